"""One `claude` process: start it, speak with it, end it. What its events mean is the turn loop's affair.

It speaks stream-json: one JSON object a line, in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from libhive.harness import launch, procs
from libhive.harness.launch import Launch
from libhive.harness.session import write_whole
from libhive.harness.settings import Settings
from libhive.logs import safe_text
from libhive.paths import make_private
from libhive.problems import Conflict, Problem, Unavailable
from libhive.tasks import Tasks

log = logging.getLogger("hive.harness")

Event = dict[str, Any]
OnEvent = Callable[[Event, bytes], Awaitable[None]]

STDERR_LINES_KEPT = 8
LAST_WORDS_SECONDS_MAX = 5.0
"""For what is still in its pipes when it has ended."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class CannotStart(Problem):
    code = "cannot-start"


class SessionLost(CannotStart):
    """The CLI does not know the session that it should resume."""

    code = "session-lost"


class Claude:
    """`on_event` is awaited for each event, in order; the next line is read when it has returned."""

    def __init__(self, settings: Settings, launch_line: Launch, tasks: Tasks, on_event: OnEvent) -> None:
        self._settings, self._launch, self._tasks, self._on_event = settings, launch_line, tasks, on_event
        self._process: asyncio.subprocess.Process | None = None
        self._answers: dict[str, asyncio.Future[Event]] = {}
        self._readers: list[asyncio.Task[None]] = []
        self.ready = False
        """It has come up with its tools."""
        self.last_words: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self.gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The exit status, once the process has ended and its last event was handled."""

    async def start(self) -> None:
        """Returns when it is up and its tools are connected; no token is spent.

        Raises CannotStart, SessionLost, or Unavailable when the tools are missing.
        """
        for directory in self._launch.private_directories:
            make_private(directory)
        write_whole(self._launch.mcp_file, json.dumps(launch.mcp_config(self._launch)).encode())
        self._process = await self._spawn()
        spawn = self._tasks.spawn
        self._readers = [
            spawn(self._read_stdout(), "the CLI's events"),
            spawn(self._read_stderr(), "the CLI's stderr"),
        ]
        spawn(self._wait(), "the CLI")
        await self._until_ready()
        self.ready = True

    async def say(self, text: str, id: str) -> None:
        """A user message, delivered as it is written: no slash commands, no `@file` that pastes a file."""
        message = {"role": "user", "content": text}
        await self._write(
            {"type": "user", "uuid": id, "client_composed": True, "priority": "next", "message": message}
        )

    async def control(self, subtype: str, *, seconds: float = 0, **fields: Any) -> Event:
        """Raises Unavailable when it does not answer, Conflict when it refuses."""
        id = uuid.uuid4().hex
        future = self._answers[id] = asyncio.get_running_loop().create_future()
        try:
            await self._write(
                {"type": "control_request", "request_id": id, "request": {"subtype": subtype, **fields}}
            )
            async with asyncio.timeout(seconds or self._settings.control_seconds_max):
                answer = await future
        except TimeoutError:
            raise Unavailable(f"the CLI did not answer {subtype}") from None
        finally:
            del self._answers[id]
        if answer.get("subtype") != "success":
            raise Conflict(f"the CLI refused {subtype}: {answer.get('error')!s:.200}")
        response: Event = answer.get("response") or {}
        return response

    async def stop(self) -> int:
        """SIGTERM, which makes it end its Bash children; then whatever is left by force."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(self._settings.stop_seconds_max):
                await asyncio.shield(self.gone)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            procs.end_tenants(self._launch.state)
        return await asyncio.shield(self.gone)

    @property
    def alive(self) -> bool:
        return self._process is not None and not self.gone.done()

    async def _spawn(self) -> asyncio.subprocess.Process:
        parent = os.getpid()
        try:
            return await asyncio.create_subprocess_exec(
                *launch.argv(self._launch),
                env=launch.environment(self._launch),
                cwd=self._launch.work,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=self._settings.line_bytes_max,
                preexec_fn=lambda: _die_with(parent),
            )
        except OSError as error:
            raise CannotStart(f"{self._launch.claude} cannot be run: {error.strerror}") from error

    async def _until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.start_seconds_max
        while True:
            status = await self._tools_status()
            if status == "connected":
                return
            if status != "pending" or asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"the CLI has no connection to the hive's tools: {status}")
            await asyncio.sleep(0.05)

    async def _tools_status(self) -> str:
        asking = asyncio.ensure_future(self.control("mcp_status", seconds=self._settings.start_seconds_max))
        both: set[asyncio.Future[Any]] = {asking, self.gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self.gone.done():
            asking.cancel()
            raise self._why_not()
        try:
            servers = [s for s in (await asking).get("mcpServers") or [] if isinstance(s, dict)]
        except (Problem, OSError) as error:
            if isinstance(error, OSError):
                await asyncio.shield(self.gone)
                raise self._why_not() from error
            raise CannotStart(f"the CLI came up and does not answer: {error}") from error
        return next((_status(server) for server in servers if server.get("name") == "hive"), "unknown")

    def _why_not(self) -> CannotStart:
        words = " ".join(self.last_words) or "it said nothing"
        if "No conversation found" in words:
            return SessionLost("the CLI does not know its session any more")
        return CannotStart(f"the CLI ended with status {self.gone.result()}: {words}")

    async def _write(self, message: Event) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def _read_stdout(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                await self._take(line.rstrip(b"\n"))
        except ValueError:
            self.last_words.append(f"a line of more than {self._settings.line_bytes_max} bytes")
            self._process.kill()

    async def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            event = {"type": "unreadable", "line": line[:10_000].decode(errors="replace")}
            line = json.dumps(event).encode()
        if event.get("type") == "control_response":
            self._answered(event.get("response") or {})
            return
        await self._on_event(event, line.decode(errors="replace").encode())

    def _answered(self, response: Event) -> None:
        """Not an event of the agent's, and not to be shown: `mcp_status` repeats the tools' bearer token."""
        future = self._answers.get(str(response.get("request_id")))
        if future is not None and not future.done():
            future.set_result(response)

    async def _read_stderr(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):
            async for line in self._process.stderr:
                text = line[:2_000].decode(errors="replace").strip()
                self.last_words.append(text)
                log.warning("claude: %s", safe_text(text))

    async def _wait(self) -> None:
        assert self._process is not None
        status = await self._process.wait()
        _, still = await asyncio.wait(self._readers, timeout=LAST_WORDS_SECONDS_MAX)
        for reader in still:
            reader.cancel()  # somebody that it has left behind holds the pipe open
        self.gone.set_result(status)


def _status(server: Event) -> str:
    """A server that answered at first and then would not list its tools is called connected too, without any."""
    status = str(server.get("status"))
    return "connected without tools" if status == "connected" and not server.get("tools") else status


def _die_with(parent: int) -> None:
    """In the child before exec: SIGTERM when the harness dies, for a CLI without one goes on with its turn alone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


async def version(settings: Settings) -> str:
    """What the binary says it is. Raises CannotStart when that is not the pinned one."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(settings.claude), "--version",
            env={"PATH": settings.path, "HOME": str(settings.state), "DISABLE_AUTOUPDATER": "1"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise CannotStart(
            f"{settings.claude} cannot be run: {error.strerror}",
            "install it with: make up; or set HIVE_CLAUDE",
        ) from error
    try:
        async with asyncio.timeout(settings.start_seconds_max):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise CannotStart(f"{settings.claude} --version does not end") from None
    found = (said.decode(errors="replace").split() or ["nothing"])[0]
    if found != settings.claude_version:
        raise CannotStart(
            f"{settings.claude} is version {found:.40}; this harness is written for {settings.claude_version}",
            "install the pinned CLI with: make up; or set HIVE_CLAUDE_VERSION if you have tested another",
        )
    return found
