"""The real Claude Code CLI against the real gateway and its rehearsal model, through a pipe like the harness's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libhive.messages.gateway import RequestServed
from libhive.web.serve import WebServer, tcp_socket

ROOT = Path(__file__).parents[2]
CLAUDE = Path(os.environ.get("HIVE_CLAUDE") or ROOT / ".claude-cli/claude_agent_sdk/_bundled/claude")
TURN_SECONDS_MAX = 60.0
OF_THE_CAGE = "sk-ant-api03-of-the-cage-and-worth-nothing"

pytestmark = pytest.mark.skipif(not CLAUDE.exists(), reason=f"no Claude Code CLI at {CLAUDE}")


class Tools:
    """An MCP server that has the hive's tools in name, and keeps what they were called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.replies: dict[str, dict[str, Any]] = {"request_spawn": {"number": 1}}
        self.sock = tcp_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}/mcp"
        app = Starlette(routes=[Route("/mcp", self.serve, methods=["GET", "POST", "DELETE"])])
        self.server = WebServer(app, sock=self.sock)

    async def serve(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405 if request.method == "GET" else 200)
        asked = await request.json()
        if "id" not in asked:
            return Response(status_code=202)
        result = self.answer(asked["method"], asked.get("params") or {})
        if result is None:
            return JSONResponse(
                {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}}
            )
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "initialize":
            info = {"name": "hive", "version": "1"}
            return {
                "protocolVersion": params.get("protocolVersion"),
                "capabilities": {"tools": {}},
                "serverInfo": info,
            }
        if method == "tools/list":
            names = ("send", "request_spawn", "status")
            return {
                "tools": [
                    {"name": name, "description": name, "inputSchema": {"type": "object"}} for name in names
                ]
            }
        if method == "tools/call":
            self.calls.append((params["name"], params["arguments"]))
            reply = self.replies.get(params["name"], {"id": "01m0000001"})
            return {"content": [{"type": "text", "text": json.dumps(reply)}]}
        return None


class Cli:
    """One claude process with a home of its own, whose only way out is a pipe to the door."""

    def __init__(self, home: Path, door: Path, tools: Tools) -> None:
        self.home, self.door, self.tools = home, door, tools
        self.events: list[dict[str, Any]] = []
        self.results: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.session = str(uuid.uuid4())

    async def start(self, *, resume: bool = False) -> None:
        self.pipe = await asyncio.start_server(self._pipe, "127.0.0.1", 0)
        port = self.pipe.sockets[0].getsockname()[1]
        for name in ("", "rt", "tmp", "work"):
            (self.home / name).mkdir(mode=0o700, exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            str(CLAUDE), *self._arguments(resume), env=self._environment(port), cwd=self.home / "work",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            limit=64 << 20, start_new_session=True,
        )  # fmt: skip
        self.reading = asyncio.get_running_loop().create_task(self._read())

    async def say(self, text: str) -> None:
        line = {"type": "user", "uuid": str(uuid.uuid4()), "client_composed": True, "priority": "next",
                "message": {"role": "user", "content": text}}  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        await self.process.stdin.drain()

    async def turn(self, text: str) -> str:
        await self.say(text)
        return await self.result()

    async def result(self) -> str:
        result = await asyncio.wait_for(self.results.get(), TURN_SECONDS_MAX)
        assert not result["is_error"], result
        return str(result["result"])

    async def until_it_uses(self, tool: str) -> None:
        async with asyncio.timeout(TURN_SECONDS_MAX):
            while not any(block.get("name") == tool for block in self._said()):
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        self.process.kill()
        await self._end()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self._end()

    async def _end(self) -> None:
        await self.process.wait()
        await self.reading
        self.pipe.close()

    def _said(self) -> list[dict[str, Any]]:
        return [
            block
            for event in self.events
            if event["type"] == "assistant"
            for block in event["message"]["content"]
        ]

    def _arguments(self, resume: bool) -> list[str]:
        servers = {"mcpServers": {"hive": {"type": "http", "url": self.tools.url}}}
        return [
            "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--replay-user-messages",
            "--model", "haiku", "--tools", "Bash,Read,Edit,Write,Grep,Glob", "--setting-sources", "", "--strict-mcp-config",
            "--mcp-config", json.dumps(servers), "--permission-mode", "bypassPermissions", "--system-prompt-snapshot", "off",
            "--append-system-prompt", "You are iris.", "--resume" if resume else "--session-id", self.session,
        ]  # fmt: skip

    def _environment(self, port: int) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.home / "cfg"),
            "XDG_RUNTIME_DIR": str(self.home / "rt"),
            "CLAUDE_CODE_TMPDIR": str(self.home / "tmp"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",
            "IS_SANDBOX": "1",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
            "ANTHROPIC_AUTH_TOKEN": OF_THE_CAGE,
        }

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["type"] == "result":
                self.results.put_nowait(event)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(str(self.door))
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def mail(text: str, id: str, sender: str = "operator", **more: str) -> str:
    attributes = {"id": id, "from": sender, "kind": "message", "sent": "2026-11-23T15:00:00Z", **more}
    quoted = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<message {quoted}>\n{text}\n</message>"


@pytest.fixture
async def cli(hive: Any, until: Any, paths: Any) -> AsyncIterator[Cli]:
    await hive.start()
    await until(lambda: hive.door("hm1nd").exists())
    tools = Tools()
    await tools.server.start()
    one = Cli(paths.run.parent / "home", hive.door("hm1nd"), tools)
    await one.start()
    yield one
    await one.stop()
    await tools.server.stop()


async def test_words_a_command_and_the_hives_tools(cli: Cli, hive: Any, until: Any) -> None:
    assert "rehearsal" in await cli.turn(mail("what can you do?", "01m0000001"))
    assert await cli.turn(mail("run: echo $((6 * 7)) &amp; wait", "01m0000002")) != ""
    assert (await cli.turn(mail("run: echo $((6 * 7))", "01m0000003"))).strip() == "42"
    assert "Exit code 3" in await cli.turn(mail("run: exit 3", "01m0000004"))
    assert "proposal 1" in await cli.turn(mail("spawn an agent called iris who draws", "01m0000005"))
    [(tool, given)] = cli.tools.calls
    assert (tool, given["name"]) == ("request_spawn", "iris")
    news = mail("It is up.", "01m0000006", "hive", kind="news", what="deployed", proposal="1", agent="iris")
    await cli.turn(news)
    assert cli.tools.calls[1][1] == {
        "to": "operator",
        "text": "iris is up: proposal 1 is deployed. Say hello to it.",
    }
    await until(lambda: len(hive.seen(RequestServed)) == 11)
    assert all(event.status == 200 for event in hive.seen(RequestServed))
    assert (await hive.gateway.status()).usage[0].agent == "hm1nd"


async def test_mail_that_joins_a_running_turn(cli: Cli) -> None:
    await cli.say(mail("run: sleep 1; echo slept", "01m0000001"))
    await cli.until_it_uses("Bash")
    await cli.say(mail("your status is busy", "01m0000002"))
    last = await cli.result()
    assert "slept" in last
    assert "busy" in last
    assert cli.tools.calls == [
        ("send", {"to": "operator", "text": "slept", "in_reply_to": "01m0000001"}),
        ("status", {"text": "busy"}),
        ("send", {"to": "operator", "text": "My status is now: busy", "in_reply_to": "01m0000002"}),
    ]


async def test_a_turn_that_was_killed_is_finished_after_the_resume(cli: Cli) -> None:
    await cli.turn(mail("spawn an agent called otto", "01m0000000"))
    await cli.say(mail("run: sleep 2; echo slept", "01m0000001"))
    await cli.until_it_uses("Bash")
    await asyncio.sleep(0.3)
    await cli.kill()
    again = Cli(cli.home, cli.door, cli.tools)
    again.session = cli.session
    await again.start(resume=True)
    try:
        assert (
            await again.turn(mail("run: sleep 2; echo slept", "01m0000001", attempt="2"))
        ).strip() == "slept"
        assert "proposal 1" in await again.turn(mail("spawn an agent called otto", "01m0000000", attempt="2"))
        assert len(cli.tools.calls) == 1, "what had its result is not called again"
    finally:
        await again.stop()


async def test_without_login_and_rehearsal_the_cli_says_so(hive: Any, until: Any, paths: Any) -> None:
    await hive.start(HIVE_REHEARSAL="off")
    await until(lambda: hive.door("iris").exists())
    tools = Tools()
    await tools.server.start()
    cli = Cli(paths.run.parent / "home", hive.door("iris"), tools)
    await cli.start()
    try:
        await cli.say(mail("hello", "01m0000001"))
        result = await asyncio.wait_for(cli.results.get(), TURN_SECONDS_MAX)
        assert result["is_error"]
        assert "hive-admin login" in json.dumps(cli.events)
        assert "authentication_failed" in json.dumps(cli.events)
    finally:
        await cli.stop()
        await tools.server.stop()


async def test_through_the_gateway_to_an_upstream_with_the_hosts_key(
    hive: Any, until: Any, paths: Any, upstream: Any, canary: str
) -> None:
    """The whole way with a credential: the CLI streams an answer that the upstream streams, and never sees the key."""

    async def script(reply: Any) -> None:
        usage = {"input_tokens": 5, "output_tokens": 1}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-5-5",
            "content": [],
            "usage": usage,
        }
        await reply.start(content_type="text/event-stream")
        await reply.event("message_start", message={**message, "stop_reason": None, "stop_sequence": None})
        await reply.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in ("from ", "the ", "upstream"):
            await reply.event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        await reply.event("content_block_stop", index=0)
        await reply.event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 9},
        )
        await reply.event("message_stop")
        await reply.end()

    upstream.script = script
    await hive.start(HIVE_UPSTREAM_URL=upstream.url)
    await hive.gateway.login("api_key", canary)
    await until(lambda: hive.door("iris").exists())
    tools = Tools()
    await tools.server.start()
    cli = Cli(paths.run.parent / "home", hive.door("iris"), tools)
    await cli.start()
    try:
        assert await cli.turn(mail("hello", "01m0000001")) == "from the upstream"
    finally:
        await cli.stop()
        await tools.server.stop()
    assert upstream.headers()["x-api-key"] == canary
    assert OF_THE_CAGE not in str(upstream.requests)
    assert canary not in json.dumps(cli.events)
    for path in cli.home.rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes()
