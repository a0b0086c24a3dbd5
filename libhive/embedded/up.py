"""`make up`: the hive in the foreground, from nothing to stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from libhive.embedded import hold, processes, program, ready, stopping
from libhive.embedded.settings import Settings, make_places
from libhive.link import Link
from libhive.messages.dashboard import MakeLink
from libhive.names import MANAGER, OPERATOR
from libhive.problems import Conflict, Problem

STDOUT = 1
FILES_MAX = 65_536
SUPERVISOR_LIFE_SECONDS_MIN = 2.0
SUPERVISOR_SHORT_LIVES_MAX = 3
CHECK_SECONDS_MAX = 60.0


def say(text: str) -> None:
    """A terminal that is gone hears nothing, and what is being said still happens. Nothing is buffered for the
    interpreter to stumble over at its end."""
    with contextlib.suppress(OSError):
        os.write(STDOUT, f"{text}\n".encode(errors="replace"))


def up(settings: Settings) -> int:
    """Runs until it is told to stop. Raises a Problem when it cannot start."""
    make_places(settings.paths)
    with _environment_in_use(settings), hold.hold(settings.paths):
        _check_cages(settings)
        if stopping.leftovers(settings):
            say("clearing what a killed hive has left")
        stopping.clear(settings)
        _allow_files()
        return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    hive = Hive(settings)
    try:
        await hive.start()
        await _first_of(told.wait(), hive.rise(), hive.keep_supervised())
        return 0
    except Problem as problem:
        say(explained(problem))
        return 1
    finally:
        say("stopping the hive: cages, then services")
        await hive.stop()
        say(f"the hive is down; its state is kept in {settings.paths.state}")


class Hive:
    """The supervisor and, through it, the services."""

    supervisor: asyncio.subprocess.Process | None = None
    began = 0.0
    short_lives = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.link = Link(settings.paths, OPERATOR)
        self.log_from = 0

    async def start(self) -> None:
        settings = self.settings
        settings.own.mkdir(mode=0o700, exist_ok=True)
        settings.config.write_text(program.config(settings, as_root=os.geteuid() == 0))
        with contextlib.suppress(FileNotFoundError):
            self.log_from = settings.log("supervisor").stat().st_size
        self.supervisor = await self._start_supervisor()

    async def rise(self) -> None:
        """Ends its words with the one line that a newcomer waits for; then stays until it is cancelled."""
        await ready.services(self.settings, self.link, say, self.log_from)
        if trouble := await ready.manager(self.link):
            say(f"  {MANAGER} is not at work: {trouble}; its log: hive-admin logs {MANAGER}")
        else:
            say(f"  {MANAGER} is awake")
        link = await self.link.call("dashboard", MakeLink())
        say(f"In a second terminal:  {second_terminal(self.settings)} status")
        say("To stop it:  Ctrl-C here, or make down")
        say(f"Open the link below within a minute; another one:  {second_terminal(self.settings)} link")
        say(f"hive is up: {link.url}")
        await asyncio.Event().wait()

    async def keep_supervised(self) -> None:
        """For ever. A supervisor that was killed is replaced; its services ended with it, the cages go on.

        Raises Conflict when it does not live.
        """
        while self.supervisor is not None:
            status = await self.supervisor.wait()
            short = time.monotonic() - self.began < SUPERVISOR_LIFE_SECONDS_MIN
            self.short_lives = self.short_lives + 1 if short else 0
            if self.short_lives >= SUPERVISOR_SHORT_LIVES_MAX:
                log = self.settings.log("supervisor")
                raise Conflict(f"the supervisor ended at once with {status}", f"its log: {log}")
            say(f"the supervisor ended with {status}; starting another")
            await asyncio.to_thread(
                processes.end, stopping.orphans(self.settings), within_seconds=stopping.PROCESS_SECONDS_MAX
            )
            self.supervisor = await self._start_supervisor()

    async def stop(self) -> None:
        await stopping.stop_cages(self.settings)
        await self.link.close()
        if self.supervisor is not None:
            await stopping.stop_supervisor(self.supervisor)
        await asyncio.to_thread(stopping.clear, self.settings)

    async def _start_supervisor(self) -> asyncio.subprocess.Process:
        """In a session of its own: Ctrl-C is for us, who then end everything in its order."""
        self.began = time.monotonic()
        return await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "--"),
            *(self.settings.python, "-m", "libhive.embedded.supervisor", "-c", str(self.settings.config)),
            env=self.settings.environment,
            cwd=self.settings.paths.state,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def explained(problem: Problem) -> str:
    return f"{problem.message}\n  {problem.hint}".rstrip()


def second_terminal(settings: Settings) -> str:
    """hive-admin as one would type it there: with the places that are not the usual ones."""
    chosen = [
        f"{name}={os.environ[name]}" for name in ("HIVE_RUN_DIR", "HIVE_STATE_DIR") if os.environ.get(name)
    ]
    return " ".join([*chosen, str(settings.prefix / "bin" / "hive-admin")])


async def _first_of(*work: Coroutine[Any, Any, object]) -> None:
    """Until the first of them ends; the others are cancelled then, and what it raised is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


def _check_cages(settings: Settings) -> None:
    """The one who makes cages says whether it can make them here, and if not, what mends it."""
    if shutil.which("setpriv") is None:
        raise Conflict("setpriv is not installed", "install your distribution's package util-linux")
    check = subprocess.run(
        [settings.python, "-m", "services.lifecycle.check"],
        env=settings.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS_MAX,
        check=False,
    )
    if check.returncode:
        raise Conflict((check.stdout + check.stderr).strip()[-2_000:])


@contextlib.contextmanager
def _environment_in_use(settings: Settings) -> Iterator[None]:
    """While it is held, set-up changes nothing under our feet (deploy/setup/setup.py)."""
    with (settings.prefix / ".in-use").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _allow_files() -> None:
    """Every stream of a browser and every door of an agent is an open file of some service, which inherits this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
