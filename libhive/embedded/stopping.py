"""How everything ends: cages, by the service that knows them; then services; then what is left of either."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from pathlib import Path

from libhive.embedded import processes
from libhive.embedded.settings import MARK, Settings
from libhive.link import Link
from libhive.messages.base import Ping
from libhive.messages.lifecycle import StopAll
from libhive.names import OPERATOR
from libhive.problems import Conflict, Problem

CAGES_SECONDS_MAX = 25.0
SUPERVISOR_SECONDS_MAX = 30.0
PROCESS_SECONDS_MAX = 8.0
SWEEP_SECONDS_MAX = 60.0
OURS = ("agents", "bus", "cages", "embedded", "pages")
"""What a hive makes in its run directory. Only these are removed: the directory may be anybody's choice."""


async def stop_cages(settings: Settings) -> None:
    """As good as it goes: what a lifecycle that does not answer leaves is swept later."""
    link = Link(settings.paths, OPERATOR)
    with contextlib.suppress(Problem):
        await link.call("lifecycle", Ping())
        await link.call("lifecycle", StopAll(), timeout_seconds=CAGES_SECONDS_MAX)
    await link.close()


async def stop_supervisor(supervisor: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        supervisor.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SUPERVISOR_SECONDS_MAX):
            await supervisor.wait()


def clear(settings: Settings) -> None:
    """Ends the processes of this hive that are left, sweeps its cages, removes its sockets. May be repeated.

    Raises Conflict when something could not be removed.
    """
    processes.end(leftovers(settings), within_seconds=PROCESS_SECONDS_MAX)
    swept = subprocess.run(
        [settings.python, "-m", "services.lifecycle.sweep"],
        env=settings.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SWEEP_SECONDS_MAX,
        check=False,
    )
    if swept.returncode:
        raise Conflict(
            f"cages are left: {(swept.stderr or swept.stdout).strip()[-500:]}", "try again: make down"
        )
    remove_run(settings)


def leftovers(settings: Settings) -> list[processes.Process]:
    return processes.marked(MARK, str(settings.paths.run))


def orphans(settings: Settings) -> list[processes.Process]:
    """Services whose supervisor has died under them; their cages are not among these."""
    return [
        process
        for process in leftovers(settings)
        if any(part.startswith("services.") for part in process.argv)
    ]


def remove_run(settings: Settings) -> None:
    run = settings.paths.run
    if mounts := [line for line in _mounts() if line.startswith(f"{run}/")]:
        raise Conflict(f"something is still mounted on {mounts[0]}", f"umount {mounts[0]}")
    try:
        for name in OURS:
            if (run / name).exists():
                shutil.rmtree(run / name)
    except OSError as error:
        raise Conflict(
            f"cannot remove {error.filename}: {error.strerror}", f"remove what is in {run}"
        ) from error


def _mounts() -> list[str]:
    with Path("/proc/self/mountinfo").open() as table:
        return [line.split()[4].encode().decode("unicode_escape") for line in table]
