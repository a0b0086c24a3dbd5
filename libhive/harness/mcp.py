"""The tools over MCP's streamable HTTP: plain JSON answers, no sessions. For the agent's own CLI only: it has the token.

In a `process` cage several harnesses share one loopback, so the token is what tells them apart.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libhive.harness.tools import Toolbox
from libhive.release import package_version

BODY_BYTES_MAX = 1 << 20
PROTOCOL_VERSION = "2025-06-18"
_NO_METHOD, _BAD_REQUEST = -32601, -32600


class McpServer:
    def __init__(self, toolbox: Toolbox, token: str) -> None:
        self._toolbox = toolbox
        self._expected = f"Bearer {token}".encode()
        self.app = Starlette(routes=[Route("/mcp", self._serve, methods=["DELETE", "GET", "POST"])])
        self._methods: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "tools/call": self._call,
            "tools/list": self._list,
        }

    async def _serve(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            return JSONResponse({"error": "unauthorized"}, status_code=401)
        if request.method != "POST":
            return Response(status_code=405 if request.method == "GET" else 200)
        message = await _message(request)
        if message is None:
            return JSONResponse(_error(None, _BAD_REQUEST, "not a JSON-RPC request"), status_code=400)
        if "id" not in message:
            return Response(status_code=202)
        method = self._methods.get(str(message.get("method")))
        if method is None:
            return JSONResponse(_error(message["id"], _NO_METHOD, "no such method"))
        params = message.get("params")
        result = await method(params if isinstance(params, dict) else {})
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        return {
            "protocolVersion": params.get("protocolVersion") or PROTOCOL_VERSION,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "hive", "version": package_version()},
        }

    async def _ping(self, params: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        return {
            "tools": [
                {"name": tool.name, "description": tool.description, "inputSchema": tool.schema}
                for tool in self._toolbox.tools.values()
            ]
        }

    async def _call(self, params: dict[str, Any]) -> dict[str, Any]:
        meta = params.get("_meta")
        tool_use = str(meta.get("claudecode/toolUseId", "")) if isinstance(meta, dict) else ""
        text, is_error = await self._toolbox.run(
            str(params.get("name")), params.get("arguments") or {}, tool_use
        )
        return {"content": [{"type": "text", "text": text}], "isError": is_error}


async def _message(request: Request) -> dict[str, Any] | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    try:
        message = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _error(id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}
