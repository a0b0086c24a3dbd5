"""Start, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from typing import IO

from libhive.door_client import DoorClient
from libhive.harness import cli, procs, prompt, session
from libhive.harness.cli import Claude, OnEvent
from libhive.harness.context import TurnContext
from libhive.harness.forward import Forwarder
from libhive.harness.launch import Launch
from libhive.harness.mailbox import Mailbox
from libhive.harness.mcp import McpServer
from libhive.harness.model import ModelChoice
from libhive.harness.page import Page
from libhive.harness.session import Session
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.tools import Toolbox
from libhive.harness.transcript import Transcript
from libhive.harness.turns import Turns
from libhive.problems import Problem, StaleLease
from libhive.tasks import Tasks
from libhive.web.serve import WebServer, tcp_socket, unix_socket

log = logging.getLogger("hive.harness")

FAREWELL_SECONDS_MAX = 1.0
"""For what is still owed to the broker when the harness stops; the next one pays the rest."""


class Harness:
    def __init__(self, settings: Settings, lock: IO[bytes]) -> None:
        """Holds the lock of the agent's state; see `session.hold`."""
        self._settings, self._lock = settings, lock
        self.ended = asyncio.Event()
        self._exit = 0
        self._tasks = Tasks(self._failed)
        self._turning: asyncio.Task[None] | None = None
        self.status = Status()
        self.transcript = Transcript.open(settings.state / "transcript.sqlite")
        self.model = ModelChoice(settings.state, settings.spec.model)
        self.session = Session(settings.state)
        door = DoorClient(settings.doors / "broker.sock")
        self.mailbox = Mailbox(door, settings, self.transcript, self.status)
        self.turns = Turns(
            settings, self.mailbox, self.transcript, self.session, self.model, self.status, self._claude
        )
        self._forwarder = Forwarder(settings.doors / "gateway.sock", settings.silence_seconds_max)
        self._way_out = Forwarder(settings.doors / "proxy.sock", settings.proxy_silence_seconds_max)
        context = TurnContext(self.turns, self.transcript, settings.manager)
        self._toolbox = Toolbox(settings, door, context)
        self._token, self._word = secrets.token_urlsafe(32), f"{settings.agent}-{secrets.token_hex(8)}"
        self._mcp_socket = tcp_socket("127.0.0.1", 0)
        self._mcp = WebServer(McpServer(self._toolbox, self._token).app, sock=self._mcp_socket)
        self._page = Page(
            settings, self.status, self.transcript, self.mailbox, self.turns, self.model, self._way_out
        )
        self._pages = WebServer(self._page.app, sock=unix_socket(settings.socket))

    async def run(self) -> int:
        """Until told to stop; the process's exit status."""
        if left := procs.end_tenants(self._settings.state):
            log.warning("ended what an earlier harness left behind", extra={"processes": len(left)})
        self.status.set("starting", model=self.model.current)
        self._tasks.spawn(self.mailbox.pay(), "mailbox")
        await self.transcript.prune(self._settings.events_kept_max)
        await self._forwarder.start()
        await self._way_out.start()
        await self._mcp.start()
        await self._pages.start()
        try:
            await cli.version(self._settings)
        except Problem as problem:
            await self._refuse(problem)
            raise
        self._turning = self._tasks.spawn(self.turns.run(), "turns")
        log.info("up", extra={"agent": self._settings.agent, "model": self.model.current, "pid": os.getpid()})
        await self.ended.wait()
        await self._stop()
        return self._exit

    def stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)

    async def _stop(self) -> None:
        settings = self._settings
        if self._turning is not None and not self._exit:
            await self.turns.drain(settings.drain_seconds_max)
        if self._turning is not None:
            self._turning.cancel()  # which ends the CLI, while the tasks that watch it still run
            await asyncio.wait({self._turning})
        if not self._exit:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS_MAX):
                    await self.mailbox.settle()
        self._page.close()
        await self._tasks.cancel()
        await asyncio.gather(
            self._forwarder.stop(),
            self._way_out.stop(),
            self._mcp.stop(),
            self._pages.stop(),
            self._toolbox.close(),
        )
        await self.mailbox.close()
        self.transcript.close()
        self._lock.close()
        log.info("down")

    async def _refuse(self, problem: Problem) -> None:
        """It cannot work: the operator reads why on the dashboard, if the broker is there to be told."""
        self.status.set("failed", f"{problem.message} ({problem.hint})")
        self.ended.set()
        await self._stop()

    def _failed(self, what: str, error: BaseException) -> None:
        if isinstance(error, StaleLease):
            log.warning("another harness has this agent's mail now; leaving")
        else:
            log.critical("%s failed, ending the process", what, exc_info=error)
        self._exit = 0 if isinstance(error, StaleLease) else 1
        self.ended.set()

    def _claude(self, resume: bool, on_event: OnEvent) -> Claude:
        settings = self._settings
        port = self._mcp_socket.getsockname()[1]
        launch = Launch(
            claude=settings.claude,
            state=settings.state,
            model=self.model.current,
            session=self.session.id,
            resume=resume,
            system_prompt=prompt.system_prompt(settings),
            api_url=self._forwarder.url,
            api_word=self._word,
            proxy_url=self._way_out.url,
            mcp_url=f"http://127.0.0.1:{port}/mcp",
            mcp_token=self._token,
            mcp_servers=settings.spec.mcp_servers,
            path=settings.path,
            lang=settings.lang,
            tz=settings.tz,
            env=settings.spec.env,
            as_root=os.geteuid() == 0,
        )
        return Claude(settings, launch, self._tasks, on_event)


async def run(settings: Settings) -> int:
    lock = await session.hold(settings.state, settings.lock_seconds_max)
    harness = Harness(settings, lock)
    harness.stop_on_signals()
    return await harness.run()
