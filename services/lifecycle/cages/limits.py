"""What a cage may take of its host: the agent's limits, on its control groups or on its processes, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

from libhive.problems import Conflict
from libhive.spec import Limits
from services.lifecycle.cages import kernel
from services.lifecycle.cages.cgroups import Group

MIB = 1 << 20
CPU_PERIOD_US = 100_000
POLL_SECONDS = 0.01
BY_RLIMIT = {"memory": "Max data size", "tasks": "Max processes"}
"""The limits that can also be a process's own, and the kernel's names for them there."""


def make(group: Group, limits: Limits, pid: int) -> None:
    """The group, its limits and its first process, whose children will be born in it.

    Raises Conflict that names the control which the kernel did not give.
    """
    control = f"{group.limits[0]}:cgroup{group.version}"
    try:
        group.directory.mkdir()
        for limit in group.limits:
            control = f"{limit}:cgroup{group.version}"
            for file, text, needed in _settings(group, limit, limits):
                _write(group.directory / file, text, needed=needed)
        _write(group.directory / "cgroup.procs", str(pid))
    except OSError as error:
        raise Conflict(
            f"the cage did not get the control `{control}` and was not started: {error}"
        ) from error


def prlimit(limits: Limits, by_rlimit: Sequence[str]) -> list[str]:
    """What to put before a program so that it has these limits of its own."""
    options = {"memory": f"--data={limits.memory_mb * MIB}", "tasks": f"--nproc={limits.tasks}"}
    return ["prlimit", *(options[limit] for limit in by_rlimit), "--"] if by_rlimit else []


def promised(groups: Sequence[Group], by_rlimit: Sequence[str]) -> list[str]:
    held = [f"{limit}:cgroup{group.version}" for group in groups for limit in group.limits]
    return sorted([*held, *(f"{limit}:rlimit" for limit in by_rlimit)])


def holding(wanted: Sequence[str], groups: Sequence[Group], limits: Limits, pid: int) -> dict[str, bool]:
    """Each control that was promised, and whether the kernel says that it holds this process."""
    holds = {
        f"{limit}:cgroup{group.version}": kernel.is_in_group(pid, group.directory)
        and all(_is_set(group.directory / file, text) for file, text, _ in _settings(group, limit, limits))
        for group in groups
        for limit in group.limits
    }
    own = kernel.limits(pid)
    values = {"memory": str(limits.memory_mb * MIB), "tasks": str(limits.tasks)}
    holds |= {f"{limit}:rlimit": own.get(BY_RLIMIT[limit]) == value for limit, value in values.items()}
    return {control: holds.get(control, False) for control in wanted}


def kills_for_memory(groups: Sequence[Group]) -> int:
    """How many processes the kernel has ended because the cage was at its limit."""
    for group in groups:
        if "memory" in group.limits:
            file = "memory.events" if group.version == 2 else "memory.oom_control"
            counts = dict(line.split() for line in _read(group.directory / file).splitlines())
            return int(counts.get("oom_kill", 0))
    return 0


def out_of_memory(limits: Limits) -> str:
    return f"out of memory (limit {limits.memory_mb} MB)"


async def remove(groups: Sequence[Group]) -> None:
    """Ends what is still in them, and removes them; returns when that is done."""
    for group in groups:
        while group.directory.is_dir():
            _end_all(group)
            with contextlib.suppress(OSError):  # busy until the last of them is reaped
                group.directory.rmdir()
                break
            await asyncio.sleep(POLL_SECONDS)


def _end_all(group: Group) -> None:
    with contextlib.suppress(OSError):
        (group.directory / "pids.max").write_text("0")  # none is born while the others are ended
    for pid in _members(group):
        process = kernel.Process.open(pid)
        if process is not None:
            if pid in _members(group):  # the number may have been given away in between
                process.signal(signal.SIGKILL)
            process.close()


def _members(group: Group) -> list[int]:
    return [int(pid) for pid in _read(group.directory / "cgroup.procs").split()]


def _settings(group: Group, limit: str, limits: Limits) -> list[tuple[str, str, bool]]:
    """The files of a limit, in the order in which they must be written, and whether a kernel without them will do."""
    memory, cpu = str(limits.memory_mb * MIB), limits.cpu_percent * CPU_PERIOD_US // 100
    match limit, group.version:
        case "memory", 2:
            return [("memory.max", memory, True), ("memory.swap.max", "0", False)]
        case "memory", _:
            return [("memory.limit_in_bytes", memory, True), ("memory.memsw.limit_in_bytes", memory, False)]
        case "tasks", _:
            return [("pids.max", str(limits.tasks), True)]
        case _, 2:
            return [("cpu.max", f"{cpu} {CPU_PERIOD_US}", True)]
        case _:
            quota = min(cpu, _quota_above(group.directory.parent) or cpu)
            return [("cpu.cfs_period_us", str(CPU_PERIOD_US), True), ("cpu.cfs_quota_us", str(quota), True)]


def _quota_above(parent: Path) -> int:
    """A v1 group may have no more of the processor than the one it is in; 0: as much as there is."""
    quota, period = (_read(parent / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
    if not quota.isdecimal() or not period.isdecimal():
        return 0
    return int(quota) * CPU_PERIOD_US // int(period)


def _write(file: Path, text: str, *, needed: bool = True) -> None:
    if needed or file.exists():
        file.write_text(text)


def _is_set(file: Path, text: str) -> bool:
    """A file that does not exist was not needed: what is needed was written, or the cage was not started."""
    return not file.exists() or file.read_text().strip() == text


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
