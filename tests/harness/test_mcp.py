"""The tool server by itself: who may ask, and what it makes of nonsense."""

from __future__ import annotations

from typing import Any, cast

import httpx

from libhive.door_client import DoorClient
from libhive.harness.mcp import BODY_BYTES_MAX, McpServer
from libhive.harness.tools import Context, Toolbox
from tests.harness.test_rules import settings


class Nowhere:
    """No door, no turn."""

    async def ready(self, tool_use: str) -> None:
        return


def client() -> httpx.AsyncClient:
    toolbox = Toolbox(settings(), cast("DoorClient", None), cast("Context", Nowhere()))
    transport = httpx.ASGITransport(McpServer(toolbox, "secret").app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://x", headers={"authorization": "Bearer secret"}
    )


def call(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def test_only_with_the_token() -> None:
    async with client() as mcp:
        for wrong in ("", "Bearer", "Bearer secrets", "secret", "Bearer \xfc"):
            answer = await mcp.post(
                "/mcp", json=call("tools/list"), headers={"authorization": wrong.encode("latin-1")}
            )  # type: ignore[dict-item]
            assert answer.status_code == 401
        assert (await mcp.post("/mcp", json=call("tools/list"))).status_code == 200


async def test_the_protocol() -> None:
    async with client() as mcp:
        hello = (await mcp.post("/mcp", json=call("initialize", protocolVersion="2025-11-25"))).json()[
            "result"
        ]
        assert (hello["protocolVersion"], hello["capabilities"]) == ("2025-11-25", {"tools": {}})
        assert (
            await mcp.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        ).status_code == 202
        assert (await mcp.post("/mcp", json=call("server/discover"))).json()["error"]["code"] == -32601
        assert (await mcp.post("/mcp", json=call("ping"))).json()["result"] == {}
        assert (await mcp.get("/mcp")).status_code == 405
        tools = (await mcp.post("/mcp", json=call("tools/list"))).json()["result"]["tools"]
        assert [tool["name"] for tool in tools] == [
            "answer",
            "ask",
            "cancel_reminder",
            "loose_ends",
            "message_status",
            "peers",
            "recv",
            "remind",
            "reminders",
            "send",
            "status",
        ]


async def test_nonsense_is_refused_in_its_own_words() -> None:
    async with client() as mcp:
        for nonsense in (
            b"",
            b"{",
            b"[]",
            b"3",
            b"[" * 100_000,
            b"\xff",
            b'"' + b"x" * BODY_BYTES_MAX + b'"',
        ):
            assert (await mcp.post("/mcp", content=nonsense)).status_code == 400
        for name, given in (
            ("no-such", {}),
            ("logs", {"name": "x"}),
            ("send", None),
            ("send", [1]),
            ("send", {"to": 3}),
        ):
            result = (await mcp.post("/mcp", json=call("tools/call", name=name, arguments=given))).json()[
                "result"
            ]
            assert result["isError"]
            assert result["content"][0]["text"].startswith("bad-request: ")
