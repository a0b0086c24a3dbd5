"""Reading what a harness serves on its cage's `page.sock`, without trusting a byte of it.

Static files never come from there: a script that a cage could change would run with the operator's session,
and could press every button. What does come is JSON, decoded here under caps and encoded again, and sent on
under our own content type; the request carries nothing of the browser's, least of all its cookie.

The socket lies in a directory that the cage can write, so its path is not followed either: a symbolic link
there could name any socket of the host. It is opened without following links, must be a socket, must be
served by the cage's own user, and is then reached through its descriptor.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from libhive.doorway import peer_uid
from libhive.names import AgentName
from libhive.paths import Paths
from libhive.problems import BadRequest, Problem, Unavailable, problem_from
from libhive.web.page import page_socket
from services.dashboard.settings import Settings

if TYPE_CHECKING:
    import httpx

DEPTH_MAX = 24
_EVENT_KIND = re.compile(r"[a-z][a-z_-]{0,30}")
_EVENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class CagePage:
    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._paths, self._settings = paths, settings

    async def read(self, agent: AgentName, uid: int, path: str, query: dict[str, str] | None = None) -> bytes:
        """What the harness answers to this GET, as clean JSON."""
        async with self._in_time(agent), self._asked(agent, uid, "GET", path, params=query) as response:
            return clean_json(await self._whole(agent, response))

    async def write(self, agent: AgentName, uid: int, path: str, body: dict[str, str]) -> None:
        """Asks the harness to do something of its own (another model, an interrupt)."""
        async with self._in_time(agent), self._asked(agent, uid, "POST", path, json=body) as response:
            await self._whole(agent, response)

    async def events(self, agent: AgentName, uid: Callable[[], int], last_id: str) -> AsyncGenerator[bytes]:
        """The harness's event stream, each event taken apart and put together again.

        When the harness goes the browser hears `away`, keeps its stream, and gets what follows once it is
        back.
        """
        yield b"retry: 1000\n\n"
        while True:
            try:
                async for own, event in self._events_once(agent, uid(), last_id):
                    last_id = own or last_id
                    yield event
                why = f"{agent}'s harness has ended its stream"
            except Problem as problem:
                why = problem.message
            yield b"event: away\ndata: %s\n\n" % msgspec.json.encode({"message": why})
            await asyncio.sleep(self._settings.page_retry_seconds)

    async def _events_once(
        self, agent: AgentName, uid: int, last_id: str
    ) -> AsyncGenerator[tuple[str, bytes]]:
        headers = {"last-event-id": last_id} if _EVENT_ID.fullmatch(last_id) else {}
        idle = self._settings.page_idle_seconds_max
        async with self._asked(
            agent, uid, "GET", "/events/stream", headers=headers, read_seconds=idle
        ) as response:
            yield "", b"event: here\ndata: {}\n\n"
            async for block in _blocks(response.aiter_raw(), self._settings.page_event_bytes_max):
                yield clean_event(block)

    @asynccontextmanager
    async def _in_time(self, agent: AgentName) -> AsyncIterator[None]:
        """httpx counts each read by itself: an answer that drips, or endless 103s, would never be late."""
        try:
            async with asyncio.timeout(self._settings.page_seconds_max):
                yield
        except TimeoutError as error:
            raise Unavailable(
                f"{agent}'s harness does not answer in time", "is the agent running? start it here"
            ) from error

    @asynccontextmanager
    async def _asked(
        self,
        agent: AgentName,
        uid: int,
        method: str,
        path: str,
        *,
        read_seconds: float | None = None,
        **more: Any,
    ) -> AsyncIterator[httpx.Response]:
        import httpx  # not before the first page is read: it would be a quarter of the dashboard's start

        limit = self._settings.page_seconds_max
        timeout = httpx.Timeout(limit, read=read_seconds or limit)
        try:
            with page_socket(self._paths.page(agent)) as uds:
                transport = httpx.AsyncHTTPTransport(uds=uds)
                async with (
                    httpx.AsyncClient(
                        transport=transport, base_url="http://page", timeout=timeout, trust_env=False
                    ) as client,
                    client.stream(method, path, **more) as response,
                ):
                    _check_peer(response, uid, agent)
                    if response.status_code != 200:
                        raise await self._problem(agent, response)
                    yield response
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Unavailable(
                f"{agent}'s harness does not answer", "is the agent running? start it here"
            ) from error

    async def _whole(self, agent: AgentName, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > self._settings.page_bytes_max:
                raise BadRequest(
                    f"{agent}'s harness answers with more than {self._settings.page_bytes_max} bytes"
                )
            parts.append(part)
        return b"".join(parts)

    async def _problem(self, agent: AgentName, response: httpx.Response) -> Problem:
        try:
            said = msgspec.json.decode(await self._whole(agent, response), type=_Said)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Unavailable(f"{agent}'s harness refused: HTTP {response.status_code}")
        return problem_from(said.code, f"{agent}'s harness: {said.message}", said.hint)


class _Said(msgspec.Struct):
    code: str
    message: str
    hint: str = ""


def _check_peer(response: httpx.Response, uid: int, agent: AgentName) -> None:
    """Served by the cage's own user (by anybody's, when all is one user's: an ordinary user's hive)."""
    peer: socket.socket = response.extensions["network_stream"].get_extra_info("socket")
    if peer_uid(peer) not in (uid, os.geteuid()):
        raise Unavailable(f"{agent}'s page is served by another user than its cage's")


def clean_json(data: bytes) -> bytes:
    """`data` decoded and encoded again. Raises BadRequest when it is not JSON of a bearable depth."""
    try:
        value = msgspec.json.decode(data)
        _check_depth(value)
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BadRequest("the agent's harness answers with something that is not JSON") from error


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise ValueError("too deep")
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]


async def _blocks(chunks: AsyncIterator[bytes], bytes_max: int) -> AsyncIterator[bytes]:
    """The stream cut at its empty lines."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk.replace(b"\r", b"")
        *whole, buffer = buffer.split(b"\n\n")
        if len(buffer) > bytes_max or any(len(block) > bytes_max for block in whole):
            raise BadRequest("the agent's harness sends an event that is too large")
        for block in whole:
            yield block


def clean_event(block: bytes) -> tuple[str, bytes]:
    """One event of the cage's as one of ours, and its id: both and its kind of a known form, its data JSON.
    What is not an event, or says it is one of ours, becomes a comment."""
    fields: dict[str, list[str]] = {}
    for line in block.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    kind, own = fields.get("event", ["message"])[-1], fields.get("id", [""])[-1]
    if "data" not in fields or not _EVENT_KIND.fullmatch(kind) or kind in ("away", "here"):
        return "", b": \n\n"
    data = clean_json("\n".join(fields["data"]).encode())
    if not _EVENT_ID.fullmatch(own):
        return "", b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
    return own, b"id: %s\nevent: %s\ndata: %s\n\n" % (own.encode(), kind.encode(), data)
