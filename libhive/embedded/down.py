"""`make down`: ends the hive of another terminal, or what a killed one left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from libhive.embedded import hold, processes, stopping
from libhive.embedded.settings import MARK, Settings
from libhive.paths import Paths
from libhive.problems import Conflict

UP_SECONDS_MAX = 90.0
POLL_SECONDS = 0.1

Say = Callable[[str], None]


def down(settings: Settings, say: Say) -> int:
    """Harmless when nothing runs. Raises a Problem when something cannot be ended or removed."""
    if holder := hold.running(settings.paths):
        say(f"stopping the hive (process {holder.pid})")
        _end_up(holder.process)
    if not settings.paths.state.is_dir():
        say("there is no hive here")
        return 0
    last = hold.last_holder(hold.lock_of_state(settings.paths))
    return _clear(_as_it_ran(settings, last), say, was_running=holder is not None)


def _end_up(up: processes.Process) -> None:
    """It ends everything in its own order; killing it is for when it cannot any more."""
    os.kill(up.pid, signal.SIGTERM)
    deadline = time.monotonic() + UP_SECONDS_MAX
    while processes.is_alive(up):
        if time.monotonic() > deadline:
            processes.end([up], within_seconds=1.0)
            raise Conflict("the hive did not stop by itself and was killed", "clear what is left: make down")
        time.sleep(POLL_SECONDS)


def _as_it_ran(settings: Settings, last: hold.Holder | None) -> Settings:
    """A hive is cleared up where it ran, wherever this terminal would have started one."""
    if last is None or last.run == str(settings.paths.run):
        return settings
    environment = settings.environment | {"HIVE_RUN_DIR": last.run, MARK: last.run}
    return replace(
        settings, paths=Paths(run=Path(last.run), state=settings.paths.state), environment=environment
    )


def _clear(settings: Settings, say: Say, *, was_running: bool) -> int:
    settings.paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with hold.hold(settings.paths):
        left = stopping.leftovers(settings)
        if left:
            say(f"ending {len(left)} processes that a killed hive has left")
        stopping.clear(settings)
    say("the hive is down" if left or was_running else "no hive was running")
    return 0
