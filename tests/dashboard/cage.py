"""What a cage serves on its page.sock: an honest harness with a short history, or one that tries things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from libhive.clock import now_ms
from libhive.names import agent_name
from libhive.paths import Paths
from libhive.web.serve import WebServer, unix_socket
from tests.dashboard.rich import HOSTILE, mail_id, minutes


class Cage:
    def __init__(self, paths: Paths, agent: str, *, entries: list[dict[str, Any]] | None = None) -> None:
        self.paths, self.agent = paths, agent_name(agent)
        self.entries = history() if entries is None else entries
        self.state: Any = harness_state()
        self.heard: list[tuple[str, str, dict[str, str], bytes]] = []
        """(method, path with query, headers, body)"""
        self.queues: set[asyncio.Queue[bytes]] = set()
        self._server: WebServer | None = None

    async def start(self) -> Cage:
        self.paths.page_dir(self.agent).mkdir(parents=True, exist_ok=True)
        routes = [
            Route("/api/state", self._on_state),
            Route("/api/transcript", self._on_transcript),
            Route("/events/stream", self._on_stream),
            Route("/model", self._on_action, methods=["POST"]),
            Route("/interrupt", self._on_action, methods=["POST"]),
            Route("/exec", self._on_action, methods=["POST"]),
        ]
        self._server = WebServer(Starlette(routes=routes), sock=unix_socket(self.paths.page(self.agent)))
        await self._server.start()
        return self

    async def stop(self) -> None:
        for queue in self.queues:
            queue.put_nowait(b"")
        if self._server:
            await self._server.stop()
        self.paths.page(self.agent).unlink(missing_ok=True)

    def add(self, kind: str, body: dict[str, Any]) -> None:
        entry = {"seq": len(self.entries) + 1, "at_ms": now_ms(), "turn": "t-2", "kind": kind, "body": body}
        self.entries.append(entry)
        self.send(b"id: %d\nevent: transcript\ndata: %s\n\n" % (entry["seq"], json.dumps(entry).encode()))

    def send(self, block: bytes) -> None:
        for queue in self.queues:
            queue.put_nowait(block)

    async def _note(self, request: Request) -> None:
        url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.heard.append((request.method, url, dict(request.headers), await request.body()))

    async def _on_state(self, request: Request) -> Response:
        await self._note(request)
        if isinstance(self.state, bytes):
            return Response(self.state, media_type="text/html", headers={"set-cookie": "stolen=1"})
        return JSONResponse(self.state)

    async def _on_transcript(self, request: Request) -> Response:
        await self._note(request)
        return JSONResponse({"entries": self.entries[-100:], "newest": len(self.entries)})

    async def _on_action(self, request: Request) -> Response:
        await self._note(request)
        return JSONResponse({})

    async def _on_stream(self, request: Request) -> Response:
        await self._note(request)
        after = int(request.headers.get("last-event-id") or len(self.entries))
        return StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues.add(queue)
        for number, entry in enumerate(self.entries[after:], after + 1):
            yield b"id: %d\nevent: transcript\ndata: %s\n\n" % (number, json.dumps(entry).encode())
        while block := await queue.get():
            yield block
        self.queues.discard(queue)


def harness_state() -> dict[str, Any]:
    usage = {"turns": 14, "input_tokens": 88_120, "output_tokens": 9_870, "cache_read_tokens": 120_000}
    return {
        "agent": "iris",
        "state": "idle",
        "model": {"current": "sonnet", "option": "haiku"},
        "usage": usage,
        "last_error": "",
    }


def history() -> list[dict[str, Any]]:
    """Two turns: mail, thinking, tools that worked and one that did not, text, and an end."""
    mail = (
        f'<message id="{mail_id(4)}" from="operator" kind="message" sent="2026-11-23T15:00:00Z">\n'
        "hello! please draw the lighthouse at dusk, three variants\n</message>"
    )
    news = (
        f'<message id="{mail_id(5)}" from="atlas" kind="message" sent="2026-11-23T15:02:00Z" attempt="2">\n'
        f"West-north-west. {HOSTILE}\n</message>"
    )
    answer = {"content": [{"type": "text", "text": '{"id": "01test", "recipients": ["atlas"]}'}]}
    bodies = [
        {"type": "system", "subtype": "init", "model": "claude-sonnet-5", "session_id": "s"},
        {"type": "user", "message": {"role": "user", "content": mail}},
        said({"type": "thinking", "thinking": "Three variants. I should first ask atlas which way the light faces."}),
        said({"type": "text", "text": "I will ask atlas about the light, then draw."}),
        said(call("a1", "mcp__hive__send", {"to": "atlas", "text": "which way does the lighthouse face?"})),
        given("a1", answer["content"]),
        said(call("a2", "Bash", {"command": "magick -size 800x600 gradient:navy-orange /state/out/dusk-1.png"})),
        given("a2", "magick: unable to open image '/state/out': No such file or directory\n" * 12, failed=True),
        said(call("a3", "Bash", {"command": "mkdir -p /state/out && magick -size 800x600 gradient:navy /state/out/dusk-1.png"})),
        given("a3", ""),
        {"type": "user", "message": {"role": "user", "content": news}},
        said({"type": "text", "text": f"Three sketches are ready:\n\n- dusk-1.png, calm\n- dusk-2.png, the best\n\n{HOSTILE}"}),
        ended("success", input_tokens=4120, output_tokens=812, duration_ms=48_200),
        {"type": "system", "subtype": "api_retry", "error": "overloaded", "attempt": 1},
        {"type": "user", "message": {"role": "user", "content": mail.replace("hello! please draw", "thank you. Now draw")}},
        ended("error_during_execution", is_error=True, terminal_reason="aborted_tools", result="interrupted"),
        said(call("b1", "mcp__hive__remind", {"text": "look at the light again", "after_seconds": 900})),
    ]  # fmt: skip
    start = now_ms() - minutes(30)
    return [
        {"seq": number, "at_ms": start + number * 20_000, "turn": "t-1", "kind": body["type"], "body": body}
        for number, body in enumerate(bodies, 1)
    ]


def said(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": [block]}}


def call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def given(id: str, content: Any, *, failed: bool = False) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": id, "content": content, "is_error": failed}
    return {"type": "user", "message": {"role": "user", "content": [block]}}


def ended(subtype: str, **more: Any) -> dict[str, Any]:
    usage = {key: value for key, value in more.items() if key.endswith("tokens")}
    return {"type": "result", "subtype": subtype, "is_error": False, "result": "done", **more, "usage": usage}
