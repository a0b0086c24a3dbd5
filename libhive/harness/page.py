"""The agent's own page, for the dashboard and lifecycle: JSON and one event stream on page.sock.

GET  /api/state                              how things are
GET  /api/transcript?after=N | before=N &limit=N    the CLI's events by their numbers; the newest by default
GET  /events/stream                          `transcript` events, numbered and resumable by Last-Event-ID; `state`
POST /model {"model": "sonnet"}   /interrupt   /exec {"argv": [...], "timeout_seconds": 30}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from libhive.harness import execute
from libhive.harness.forward import Forwarder
from libhive.harness.launch import way_out
from libhive.harness.mailbox import Mailbox
from libhive.harness.model import ModelChoice
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.transcript import Entry, Transcript
from libhive.harness.turns import Turns
from libhive.problems import BadRequest, Problem, TooMany
from libhive.release import package_version
from libhive.spec import ModelName

BODY_BYTES_MAX = 256 * 1024
ENTRIES_MAX = 500
REPLAY_MAX = 1_000
KEEPALIVE_SECONDS = 15.0
QUEUED_MAX = 1_000
SHOWN_BYTES_MAX = 100_000
"""Of one entry; what is cut is still in the transcript."""
REPLY_BYTES_MAX = 900_000
"""The dashboard takes at most 1 MiB from a cage."""
_CUT_STRINGS = 4_000
_CUT_ITEMS = 100
_CUT_DEPTH = 12

_STATUS = {
    "bad-request": 400,
    "not-allowed": 403,
    "not-found": 404,
    "conflict": 409,
    "too-many": 429,
    "unavailable": 503,
}


class ModelForm(msgspec.Struct, forbid_unknown_fields=True):
    model: ModelName


class ExecForm(msgspec.Struct, forbid_unknown_fields=True):
    argv: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 30


class Page:
    def __init__(
        self,
        settings: Settings,
        status: Status,
        transcript: Transcript,
        mailbox: Mailbox,
        turns: Turns,
        model: ModelChoice,
        proxy: Forwarder,
    ) -> None:
        self._settings, self._status, self._transcript = settings, status, transcript
        self._mailbox, self._turns, self._model, self._proxy = mailbox, turns, model, proxy
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        status.listeners.append(self._state_changed)
        turns.on_entry = self._entry_stored
        self.app = Starlette(
            routes=[
                Route("/api/state", _answered(self._on_state)),
                Route("/api/transcript", _answered(self._on_transcript)),
                Route("/events/stream", self._on_stream),
                Route("/exec", _answered(self._on_exec), methods=["POST"]),
                Route("/interrupt", _answered(self._on_interrupt), methods=["POST"]),
                Route("/model", _answered(self._on_model), methods=["POST"]),
            ]
        )

    def close(self) -> None:
        """Ends the streams, which would otherwise hold up the server's end."""
        for queue in self._watchers:
            _put(queue, None)

    def state(self) -> dict[str, Any]:
        now, turn, held = self._status.now, self._turns.turn, self._turns.held
        return {
            "agent": self._settings.agent,
            "manager": self._settings.is_manager,
            "state": now.state,
            "detail": now.detail,
            "since_ms": now.since_ms,
            "until_ms": now.until_ms,
            "model": {"current": self._model.current, "option": self._model.option},
            "turn": {"id": turn.id, "started_ms": turn.started_ms, "mail": [m.id for m in turn.mails]}
            if turn
            else None,
            "session": self._turns.session.id,
            "unsettled": list(held),
            "attempts": max((mail.attempts for mail in held.values()), default=0),
            "failures": self._turns.failures,
            "last_error": self._status.last_error,
            "usage": msgspec.to_builtins(self._transcript.usage()),
            "sequence": self._transcript.newest(),
            "holds": self._mailbox.holds,
            "generation": self._settings.generation,
            "incarnation": self._mailbox.incarnation,
            "claude_version": self._settings.claude_version,
            "version": package_version(),
        }

    async def _on_state(self, request: Request) -> Any:
        return self.state()

    async def _on_transcript(self, request: Request) -> Any:
        limit = min(_number(request, "limit", 200), ENTRIES_MAX)
        after = _number(request, "after")
        entries = [shown(entry) for entry in self._transcript.page(after, _number(request, "before"), limit)]
        return {"entries": _fitting(entries, from_the_end=not after), "newest": self._transcript.newest()}

    async def _on_model(self, request: Request) -> Any:
        await self._turns.choose_model((await _form(request, ModelForm)).model)
        return {"model": self._model.current}

    async def _on_interrupt(self, request: Request) -> Any:
        return {"interrupted": await self._turns.interrupt()}

    async def _on_exec(self, request: Request) -> Any:
        form = await _form(request, ExecForm)
        return await execute.run(form.argv, form.timeout_seconds, self._settings, way_out(self._proxy.url))

    async def _on_stream(self, request: Request) -> Response:
        if len(self._watchers) >= self._settings.streams_max:
            return _refusal(TooMany("too many streams are open", "close a browser tab"))
        last = request.headers.get("last-event-id", "")
        stream = self._stream(int(last) if last.isdecimal() and len(last) < 16 else None)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _stream(self, after: int | None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_MAX)
        self._watchers.add(queue)
        try:
            yield _sse("state", self.state())
            if after is not None:
                yield b"".join(self._missed(after))
            while True:
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        block = await queue.get()
                except TimeoutError:
                    yield b": \n\n"
                    continue
                if block is None:
                    return
                yield block
        finally:
            self._watchers.discard(queue)

    def _missed(self, after: int) -> list[bytes]:
        """What came since; when that is too much, the browser is told to fetch the transcript again."""
        if self._transcript.newest() - after > REPLAY_MAX:
            return [_sse("reset", {"newest": self._transcript.newest()})]
        entries = self._transcript.page(after, limit=REPLAY_MAX) if after else []
        return [_sse("transcript", shown(entry), entry.seq) for entry in entries]

    def _entry_stored(self, entry: Entry) -> None:
        if self._watchers:
            self._tell(_sse("transcript", shown(entry), entry.seq))

    def _state_changed(self) -> None:
        if self._watchers:
            self._tell(_sse("state", self.state()))

    def _tell(self, block: bytes) -> None:
        for queue in self._watchers:
            _put(queue, block)


def shown(entry: Entry) -> dict[str, Any]:
    """An entry for the page; a long one is cut, string by string, so that its form stays."""
    body = json.loads(bytes(entry.body))
    if len(bytes(entry.body)) > SHOWN_BYTES_MAX or _deep(body):
        for string_max in (_CUT_STRINGS, 200):
            body = _cut(body, string_max, _CUT_DEPTH)
            if len(json.dumps(body)) <= SHOWN_BYTES_MAX:
                break
        else:
            body = {"type": entry.kind, "cut": True}
    return {"seq": entry.seq, "at_ms": entry.at_ms, "turn": entry.turn, "kind": entry.kind, "body": body}


def _deep(value: Any) -> bool:
    level = [value]
    for _ in range(_CUT_DEPTH):
        level = [
            c for v in level if isinstance(v, dict | list) for c in (v.values() if isinstance(v, dict) else v)
        ]
    return bool(level)


def _cut(value: Any, string_max: int, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= string_max else f"{value[:string_max]}… ({len(value)} characters)"
    if isinstance(value, dict | list) and not depth:
        return "…"
    if isinstance(value, dict):
        return {
            key[:200]: _cut(item, string_max, depth - 1) for key, item in list(value.items())[:_CUT_ITEMS]
        }
    if isinstance(value, list):
        return [_cut(item, string_max, depth - 1) for item in value[:_CUT_ITEMS]]
    return value


def _sse(kind: str, data: Any, id: int = 0) -> bytes:
    number = b"id: %d\n" % id if id else b""
    return number + b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(data).encode())


def _put(queue: asyncio.Queue[bytes | None], block: bytes | None) -> None:
    """A browser that does not keep up loses its stream; it comes back with the number of the last event it saw."""
    try:
        queue.put_nowait(block)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(None)


def _answered(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return _json(await handler(request))
        except Problem as problem:
            return _refusal(problem)

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


def _refusal(problem: Problem) -> Response:
    said = {"code": problem.code, "message": problem.message, "hint": problem.hint}
    return _json(said, _STATUS.get(problem.code, 400))


def _fitting(entries: list[dict[str, Any]], *, from_the_end: bool) -> list[dict[str, Any]]:
    """As many as one reply may carry, at least one; whoever wants more pages on by their numbers."""
    left = REPLY_BYTES_MAX
    found: list[dict[str, Any]] = []
    for entry in reversed(entries) if from_the_end else entries:
        left -= len(json.dumps(entry))  # unlike msgspec, it takes the lone surrogates that a CLI may write
        if found and left < 0:
            break
        found.append(entry)
    return found[::-1] if from_the_end else found


def _number(request: Request, name: str, default: int = 0) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > 15:
        raise BadRequest(f"`{name}` is a number")
    return int(text)


async def _form(request: Request, kind: type[Any]) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise BadRequest(f"a body has at most {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(f"{request.url.path}: {error}") from None
