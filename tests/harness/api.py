"""The Messages API, scripted: what the gateway answers in these tests. One turn of the script per request."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from libhive.web.serve import WebServer, unix_socket

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"text": words, **more}


def tool(name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A tool of the hive's, or Bash with a command."""
    full = name if name == "Bash" else f"mcp__hive__{name}"
    return {"tool": full, "input": arguments, **more}


def bash(command: str) -> dict[str, Any]:
    return tool("Bash", {"command": command, "description": "x"})


def error(status: int, message: str = "", **headers: str) -> dict[str, Any]:
    return {"status": status, "message": message or f"mock {status}", "headers": headers}


class ScriptedApi:
    """Serves `script`, one entry a request; when it is empty, a plain text. `hold` keeps a request until it is set."""

    def __init__(self, path: Path) -> None:
        self.script: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        app = Starlette(
            routes=[Route("/v1/messages", self._messages, methods=["POST"]), Route("/{rest:path}", _nothing)]
        )
        self._server = WebServer(app, sock=unix_socket(path))

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def prompts(self) -> list[str]:
        """The text of the user's (and the hive's) words in the newest request."""
        return [_words(message) for message in self.requests[-1]["messages"]] if self.requests else []

    async def _messages(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        turn = self.script.pop(0) if self.script else text("nothing more to say")
        if (hold := turn.get("hold")) is not None:
            await hold.wait()
        if status := turn.get("status"):
            kind = ERRORS.get(status, "api_error")
            said = {"type": "error", "error": {"type": kind, "message": turn["message"]}}
            return JSONResponse(said, status_code=status, headers=turn["headers"])
        if not body.get("stream"):
            return JSONResponse(_message(body, _block(turn), turn))
        return StreamingResponse(_stream(body, turn), media_type="text/event-stream")


def _words(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text") or block.get("content") or "") for block in content)


def _block(turn: dict[str, Any]) -> dict[str, Any]:
    if "tool" in turn:
        return {
            "type": "tool_use",
            "id": f"toolu_{uuid.uuid4().hex[:24]}",
            "name": turn["tool"],
            "input": turn["input"],
        }
    return {"type": "text", "text": turn["text"]}


def _message(body: dict[str, Any], block: dict[str, Any], turn: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": body["model"],
        "content": [block], "stop_reason": "tool_use" if "tool" in turn else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }  # fmt: skip


async def _stream(body: dict[str, Any], turn: dict[str, Any]) -> AsyncIterator[bytes]:
    block = _block(turn)
    whole = _message(body, block, turn)
    yield _event("message_start", message={**whole, "content": [], "stop_reason": None})
    if (stall := turn.get("stall")) is not None:
        await stall.wait()
    if block["type"] == "text":
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in turn.get("pieces") or [block["text"]]:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    else:
        yield _event("content_block_start", index=0, content_block={**block, "input": {}})
        yield _event(
            "content_block_delta",
            index=0,
            delta={"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
        )
    yield _event("content_block_stop", index=0)
    yield _event(
        "message_delta",
        delta={"stop_reason": whole["stop_reason"], "stop_sequence": None},
        usage=whole["usage"],
    )
    yield _event("message_stop")


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


async def _nothing(request: Request) -> Response:
    return Response(status_code=200 if request.method == "HEAD" else 404)
