"""What the gateway decides: which requests it serves, what travels on with them, how a failure is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from services.gateway.secret import Credential

Header = tuple[str, str]
Route = Literal["messages", "count_tokens"]

ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("POST", "/v1/messages"): "messages",
    ("POST", "/v1/messages/count_tokens"): "count_tokens",
}
"""All that the pinned CLI calls with CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC set."""

PATHS: Final[dict[Route, str]] = {route: path for (_, path), route in ROUTES.items()}
QUERY_BYTES_MAX: Final = 256

OAUTH_BETA: Final = "oauth-2025-04-20"
_UP_EXACT: Final = frozenset(
    {"accept", "accept-language", "content-type", "idempotency-key", "user-agent", "x-app"}
)
_UP_PREFIXES: Final = ("anthropic-", "x-claude-", "x-client-", "x-stainless-")
"""Towards the upstream only what is named: whatever else a cage writes (its own `authorization`, `x-api-key`, `cookie`,
`host`, `forwarded`, hop-by-hop headers, those named by `connection`) stays here."""
_NEVER_UP: Final = frozenset(
    {"anthropic-api-key", "anthropic-auth-token", "anthropic-beta", "anthropic-organization"}
)

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
_NEVER_DOWN: Final = _HOP_BY_HOP | {
    "alt-svc",
    "date",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
}

ERROR_TYPES: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    500: "api_error",
    502: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def route(method: str, path: str) -> Route | None:
    return ROUTES.get((method, path))


def target(base_url: str, wanted: Route, query: bytes) -> str:
    """The URL upstream. A query that is not plain is dropped, not repaired."""
    plain = len(query) <= QUERY_BYTES_MAX and all(33 <= byte < 127 and byte != 35 for byte in query)
    return base_url + PATHS[wanted] + (f"?{query.decode('ascii')}" if query and plain else "")


def upstream_headers(given: Iterable[Header], credential: Credential) -> list[Header]:
    """The cage's headers that may travel on, and the host's credential in place of the cage's own."""
    given = [(name.lower(), value) for name, value in given]
    named = _named_by_connection(given)
    headers = [(name, value) for name, value in given if _travels_up(name) and name not in named]
    if betas := _betas(given, credential):
        headers.append(("anthropic-beta", betas))
    headers.append(("accept-encoding", "identity"))  # so that what streams past can be read by the meter
    headers.append(_authorization(credential))
    return headers


def cage_headers(given: Iterable[Header]) -> list[Header]:
    """The upstream's headers for the cage: rate limits, request ids and retry advice included; no cookies."""
    given = [(name.lower(), value) for name, value in given]
    named = _named_by_connection(given)
    decoded = any(name == "content-encoding" and value != "identity" for name, value in given)
    left_out = _NEVER_DOWN | named | {"content-encoding"} | ({"content-length"} if decoded else set())
    return [(name, value) for name, value in given if name not in left_out]


def error_body(status: int, message: str) -> bytes:
    """An error as the Messages API says it."""
    error = {"type": ERROR_TYPES.get(status, "api_error"), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})


def last_error(status: int, said: str, before: str) -> str:
    """What the operator should know of the way to the model: the newest failure, until something succeeds.

    What only the asker did wrong (400, 404, 413) says nothing about the way.
    """
    if status < 400:
        return ""
    if status in (400, 404, 413, 499):
        return before
    return f"{status} {said}".strip()


def _travels_up(name: str) -> bool:
    return (name in _UP_EXACT or name.startswith(_UP_PREFIXES)) and name not in _NEVER_UP


def _named_by_connection(headers: Iterable[Header]) -> set[str]:
    return {
        word.strip().lower() for name, value in headers if name == "connection" for word in value.split(",")
    }


def _betas(headers: Iterable[Header], credential: Credential) -> str:
    found = [word.strip() for name, value in headers if name == "anthropic-beta" for word in value.split(",")]
    betas = dict.fromkeys(word for word in found if word and word != OAUTH_BETA)
    if credential.kind == "oauth_token":
        betas[OAUTH_BETA] = None
    return ",".join(betas)


def _authorization(credential: Credential) -> Header:
    if credential.kind == "oauth_token":
        return ("authorization", f"Bearer {credential.secret}")
    return ("x-api-key", credential.secret)
