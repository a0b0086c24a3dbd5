"""The first lines of a connection, and what is answered to them: all parsing is h11's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import h11

from libhive import destinations
from libhive.destinations import Destination

HEAD_BYTES_MAX: Final = 16 * 1024
HEAD_BYTE_COST: Final = 512
"""In bytes that are only passed on: a head of a thousand fields keeps the loop for many milliseconds."""
_REASONS: Final = {
    400: "Bad Request",
    403: "Not Allowed By This Agent's Egress List",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    505: "HTTP Version Not Supported",
}
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"upgrade"}
)  # fmt: skip


class BadHead(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Asked:
    """`CONNECT target`, or one request for http:// at the target."""

    target: Destination
    tunnel: bool
    request: h11.Request
    path: bytes = b""


def server() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)


async def _nothing(cost: int) -> None:
    pass


async def read(
    reader: asyncio.StreamReader, near: h11.Connection, spend: Callable[[int], Awaitable[None]] = _nothing
) -> Asked | None:
    """None when there came nothing at all. Raises BadHead. `spend` is told what the bytes cost before they are parsed."""
    try:
        while (event := near.next_event()) is h11.NEED_DATA:
            data = await reader.read(HEAD_BYTES_MAX)
            await spend(len(data) * HEAD_BYTE_COST)
            near.receive_data(data)
        if not isinstance(event, h11.Request):
            return None
        found = asked(event)
        if found.tunnel and not isinstance(near.next_event(), h11.EndOfMessage):
            raise BadHead(400, "CONNECT has no body")
    except h11.RemoteProtocolError as error:
        raise BadHead(error.error_status_hint, f"this is no request to a proxy: {error}"[:200]) from None
    return found


def asked(request: h11.Request) -> Asked:
    text = request.target.decode("ascii", "replace")
    if request.http_version not in (b"1.0", b"1.1"):
        raise BadHead(505, "this proxy speaks HTTP/1.1")
    try:
        if request.method == b"CONNECT":
            return Asked(destinations.target(text), True, request)
        scheme, mark, rest = text.partition("://")
        if not mark or scheme.lower() != "http":
            raise ValueError(
                f"{text!r:.120} is neither host:port for CONNECT nor an http:// address; https:// goes by CONNECT"
            )
        authority, path = _split(rest)
        return Asked(destinations.target(authority), False, request, path.encode())
    except ValueError as error:
        raise BadHead(400, str(error)) from None


def _split(rest: str) -> tuple[str, str]:
    at = next((at for at, char in enumerate(rest) if char in "/?#"), len(rest))
    authority, path = rest[:at], rest[at:].partition("#")[0]
    has_port = ":" in authority.rpartition("]")[2]
    return (authority if has_port else f"{authority}:80"), (path if path.startswith("/") else f"/{path}")


def onward(found: Asked) -> h11.Request:
    """The request as its host gets it: the hop's own headers stay here, and `host` is the one that was judged."""
    given = list(found.request.headers)
    chunked = any(name == b"transfer-encoding" for name, _ in given)
    dropped = _dropped(given) | ({b"content-length"} if chunked else set())
    port = "" if found.target.port == 80 else f":{found.target.port}"
    host = f"[{found.target.host}]" if ":" in found.target.host else found.target.host
    headers = [
        (b"Host", f"{host}{port}".encode()),
        *((name, value) for name, value in given if name not in dropped),
    ]
    return h11.Request(
        method=found.request.method, target=found.path, headers=[*headers, (b"Connection", b"close")]
    )


def back(response: h11.Response) -> h11.Response:
    """The answer as the cage gets it: the connection ends after it, or its next request would go to the same host."""
    given = list(response.headers)
    headers = [(name, value) for name, value in given if name not in _dropped(given)]
    return h11.Response(
        status_code=response.status_code,
        headers=[*headers, (b"Connection", b"close")],
        reason=response.reason,
    )


def refusal(near: h11.Connection, status: int, sentence: str) -> bytes:
    """Empty when h11 has no way to answer any more."""
    if near.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return b""
    body = f"{sentence}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    response = h11.Response(
        status_code=status, headers=headers, reason=_REASONS.get(status, "Refused").encode()
    )
    parts = [near.send(event) for event in (response, h11.Data(data=body), h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


def established(near: h11.Connection) -> bytes:
    response = h11.Response(status_code=200, headers=[], reason=b"Connection Established")
    return near.send(response) or b""


def _dropped(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    named = {
        word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")
    }
    return {*_HOP_BY_HOP, *(named - {b"transfer-encoding", b"content-length"})}
