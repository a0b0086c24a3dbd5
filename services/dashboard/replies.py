"""What goes back to a browser: JSON, a problem as JSON, and the headers that every answer has."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from libhive.problems import Problem

STATUS = {
    "already-exists": 409,
    "bad-frame": 400,
    "bad-host": 403,
    "bad-origin": 403,
    "bad-request": 400,
    "conflict": 409,
    "conversation-paused": 409,
    "internal-error": 502,
    "needs-login": 409,
    "no-session": 401,
    "no-space": 507,
    "not-allowed": 403,
    "not-found": 404,
    "stale": 409,
    "stale-lease": 409,
    "too-large": 413,
    "too-many": 429,
    "unavailable": 503,
    "unknown-recipient": 404,
    "unsupported-version": 502,
    "wrong-method": 405,
    "wrong-type": 415,
}

HANGS_UP = frozenset({"bad-host", "bad-origin", "no-session", "too-large", "too-many", "wrong-type"})
"""Whoever hears one of these keeps no connection: the server has only so many."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    hint: str


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return json_bytes(msgspec.json.encode(value), status, headers)


def json_bytes(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def problem_reply(problem: Problem) -> Response:
    body = ProblemBody(code=problem.code, message=problem.message, hint=problem.hint)
    status = STATUS.get(problem.code, 500)
    return json_reply(body, status, {"connection": "close"} if problem.code in HANGS_UP else None)
