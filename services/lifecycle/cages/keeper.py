"""What the cages that are plain processes have in common: a keeper outlives us, a record lets us find it again.

    lifecycle -> keeper (sh, leader of its own session) -> bwrap -> the cage's first process -> the program

The keeper is what the cage dies with, in the place of lifecycle. It waits on its standard input for one line that says
its record is on disk; when lifecycle dies before that, it reads end-of-file and ends, so that no cage ever runs
unrecorded. Whatever dies first, everything below dies with it: the keeper's child has a parent-death signal, the
first process is the init of the cage's PID namespace. Each of them carries HIVE_KEEPER in the environment it was
started with, by which `sweep` finds a cage even when its record is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import msgspec

from libhive import faults
from libhive.clock import now_ms
from libhive.names import AgentName
from libhive.paths import Paths
from libhive.problems import Conflict
from libhive.spec import Limits
from services.lifecycle import logbook
from services.lifecycle.cages import cgroups, directories, kernel, limits
from services.lifecycle.cages.cgroups import Group
from services.lifecycle.cages.plan import Installation, Plan

MARK = "HIVE_KEEPER"
RECORD_FILE, STATUS_FILE = "cage.json", "status.json"
START_SECONDS_MAX = 10.0
KILL_SECONDS_MAX = 10.0
POLL_SECONDS = 0.002
LOOKS_MAX, LOOK_SECONDS = 5, 0.02
KILLED = (-1, 128 + signal.SIGKILL)
"""Exit codes of a cage whose program, or something around it, was ended by SIGKILL."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the next lifecycle has to know of a cage."""

    kind: str
    name: str
    generation: int
    revision: int
    uid: int
    started_ms: int
    keeper: kernel.Identity
    groups: list[Group] = []
    limits: Limits = Limits()
    promised: list[str] = []
    """The controls that hold the limits: what the next lifecycle has to find."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a cage ended; `exit_code` is -1 when nobody was left to tell."""

    exit_code: int
    last_words: str
    reason: str = ""
    """In our words, where we know it."""

    @property
    def why(self) -> str:
        return self.reason or self.last_words


@dataclass(slots=True, kw_only=True)
class Running:
    """A handle on one cage."""

    record: Record
    run: Path
    log: Path
    keeper: kernel.Process
    init: kernel.Process | None = None
    """The first process of the cage's PID namespace, where there is one."""
    program: int = 0
    controls: tuple[str, ...] = ()
    memory_kills: int = 0
    """Processes in it that the kernel has ended for want of memory, as of when that was looked at last."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Ended | None = None
    """Of a cage whose end only systemd can tell."""
    spawned: subprocess.Popen[bytes] | None = None
    """Only when we started it ourselves: then it is ours to reap."""

    def close(self) -> None:
        self.keeper.close()
        if self.init is not None:
            self.init.close()


@dataclass(frozen=True, slots=True)
class Command:
    """What the keeper's process executes, and the file descriptors it must inherit."""

    argv: Sequence[str]
    keep_fds: tuple[int, ...] = ()


class Kept(ABC):
    """A kind of cage that a keeper holds. The siblings say what to execute and which controls they see."""

    kind: ClassVar[str]

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.installation = Installation.of_this_process()

    @abstractmethod
    def check(self) -> None: ...

    @abstractmethod
    def command(self, plan: Plan, status_fd: int, stack: contextlib.ExitStack) -> Command: ...

    @abstractmethod
    def find(self, cage: Running) -> bool:
        """Sets `init` and `program`, once the program runs."""

    @abstractmethod
    def controls_of(self, cage: Running) -> Mapping[str, bool]:
        """Each control this kind of cage promises, and whether the kernel says that it holds."""

    def rlimits(self, plan: Plan) -> list[str]:
        """The limits that the processes of this cage hold themselves."""
        return plan.by_rlimit

    def create(self, plan: Plan) -> None:
        directories.make(plan)

    async def start(self, plan: Plan) -> Running:
        plan = replace(plan, groups=cgroups.place(self.paths, plan.name, cgroups.hierarchies()))
        await self._clear_groups(plan.name, plan.groups)
        cage = self._spawn(plan)
        try:
            await asyncio.to_thread(self._limit, cage)  # a v1 hierarchy takes tens of milliseconds for a move
            self._let_go(cage)
            await self._until_program_runs(cage)
            await asyncio.to_thread(self._take_controls, cage)
        except BaseException:
            await self.kill(cage)
            raise
        return cage

    async def stop(self, cage: Running, grace_seconds: float) -> None:
        if self.ask_to_end(cage):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.ended(cage)
        await self.kill(cage)

    def ask_to_end(self, cage: Running) -> bool:
        """SIGTERM to the cage's program; False when there is none."""
        program = kernel.Process.open(cage.program) if cage.program else None
        if program is None or cage.program not in kernel.children(self._parent_of_program(cage)):
            return False  # checked after the handle was opened: the number may have been given away before
        program.signal(signal.SIGTERM)
        faults.reach("lifecycle.asked")
        program.close()
        return True

    async def kill(self, cage: Running) -> None:
        async with asyncio.timeout(KILL_SECONDS_MAX):
            cage.keeper.signal(signal.SIGKILL)
            if cage.init is not None:
                cage.init.signal(signal.SIGKILL)
            await self.ended(cage)
            await kill_marked(self.paths, cage.record.name)
            await limits.remove(cage.record.groups)
        cage.close()

    async def ended(self, cage: Running) -> Ended:
        """Waits until the keeper and the cage's first process have ended; with that one, all of its namespace."""
        if not cage.over.is_set():
            await cage.keeper.wait()
            if cage.init is not None:
                await cage.init.wait()
            if cage.spawned is not None:
                cage.spawned.wait()  # it has ended: this only reaps it
            self.look(cage)
            cage.over.set()
        return self._outcome(cage)

    def status(self, cage: Running) -> Ended | None:
        return self._outcome(cage) if cage.over.is_set() or cage.keeper.ended else None

    def look(self, cage: Running) -> bool:
        """Has the kernel ended something in it for want of memory since the last look?"""
        before = cage.memory_kills
        cage.memory_kills = max(before, limits.kills_for_memory(cage.record.groups))
        return cage.memory_kills > before

    async def adopt(self, name: AgentName) -> Running | None:
        run = self.paths.cage(name)
        record = read_record(run)
        keeper = kernel.Process.reopen(record.keeper) if record else None
        if record is None or keeper is None:
            await kill_marked(self.paths, name)
            await self._clear_groups(name)
            return None
        cage = Running(record=record, run=run, log=logbook.path(self.paths, name), keeper=keeper)
        try:
            if record.kind != self.kind or not self.find(cage):
                raise Conflict("the cage is of another kind, or was not yet up")
            await asyncio.to_thread(self._take_controls, cage)
        except Conflict:
            await self.kill(cage)
            return None
        return cage

    def log(self, name: AgentName, lines: int) -> str:
        return logbook.tail(logbook.path(self.paths, name), lines)

    async def destroy(self, name: AgentName) -> None:
        directories.clear(
            self.paths.doors(name)
        )  # inline: the doors of the agent's next life come soon after
        await asyncio.to_thread(directories.clear, self.paths.cage(name), self.paths.page_dir(name))

    def _spawn(self, plan: Plan) -> Running:
        with contextlib.ExitStack() as stack:
            status = _opened(stack, os.open(plan.run / STATUS_FILE, _STATUS_FLAGS, 0o600))
            log = _opened(stack, logbook.open_for_cage(plan.log))
            command = self.command(plan, status, stack)
            spawned = subprocess.Popen(  # not asyncio's: its transport kills the child when we end
                command.argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), MARK: mark(self.paths, plan.name)},
                pass_fds=(status, *command.keep_fds),
                start_new_session=True,
                umask=0o022,
            )
        return self._record(plan, spawned)

    def _record(self, plan: Plan, spawned: subprocess.Popen[bytes]) -> Running:
        keeper = kernel.Process.open(spawned.pid)
        if keeper is None:
            spawned.wait()
            raise Conflict(f"the cage of {plan.name} ended before it began", logbook.last_line(plan.log))
        record = Record(
            kind=self.kind,
            name=plan.name,
            generation=plan.generation,
            revision=plan.revision,
            uid=plan.uid,
            started_ms=now_ms(),
            keeper=keeper.identity,
            groups=list(plan.groups),
            limits=plan.spec.limits,
            promised=limits.promised(plan.groups, self.rlimits(plan)),
        )
        faults.reach("lifecycle.spawned")
        write_record(plan.run, record)
        faults.reach("lifecycle.recorded")
        return Running(record=record, run=plan.run, log=plan.log, keeper=keeper, spawned=spawned)

    def _limit(self, cage: Running) -> None:
        """The keeper waits: what it becomes is in the groups from the first instant."""
        for group in cage.record.groups:
            limits.make(group, cage.record.limits, cage.keeper.pid)
            faults.reach("lifecycle.limited")

    def _let_go(self, cage: Running) -> None:
        assert cage.spawned is not None
        assert cage.spawned.stdin is not None
        with contextlib.suppress(BrokenPipeError), cage.spawned.stdin as go:
            go.write(b"go\n")

    async def _clear_groups(self, name: AgentName, planned: Sequence[Group] = ()) -> None:
        """What an earlier cage of this agent has left of them."""
        record = read_record(self.paths.cage(name))
        try:
            async with asyncio.timeout(KILL_SECONDS_MAX):
                await limits.remove([*(record.groups if record else ()), *planned])
        except TimeoutError:
            raise Conflict(f"an earlier cage of {name} cannot be ended") from None

    async def _until_program_runs(self, cage: Running) -> None:
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not self.find(cage):
                    if cage.keeper.ended:
                        raise Conflict(
                            f"the cage did not start: {logbook.last_line(cage.log) or 'it said nothing'}"
                        )
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise Conflict(f"the cage did not start its program within {START_SECONDS_MAX:g} s") from None

    def _take_controls(self, cage: Running) -> None:
        controls = self._controls(cage)
        for _ in range(LOOKS_MAX):
            if all(controls.values()):
                break
            time.sleep(
                LOOK_SECONDS
            )  # on a busy host we may have seen what became the program, not the program
            self.find(cage)
            controls = self._controls(cage)
        missing = [control for control, holds in controls.items() if not holds]
        if missing and _lives(
            cage.program
        ):  # of one that has ended meanwhile the kernel says nothing any more
            raise Conflict(f"the cage did not get the control `{'`, `'.join(missing)}` and was not started")
        cage.controls = tuple(controls)

    def _controls(self, cage: Running) -> dict[str, bool]:
        record = cage.record
        held = limits.holding(record.promised, record.groups, record.limits, cage.program)
        return dict(sorted({**self.controls_of(cage), **held}.items()))

    def _parent_of_program(self, cage: Running) -> int:
        return (cage.init or cage.keeper).pid

    def _outcome(self, cage: Running) -> Ended:
        code = read_status(cage.run).get("exit-code", -1)
        killed = cage.memory_kills and code in KILLED
        reason = limits.out_of_memory(cage.record.limits) if killed else ""
        return Ended(code, logbook.last_line(cage.log), reason)


def _lives(pid: int) -> bool:
    process = kernel.Process.open(pid)
    if process is not None:
        process.close()
    return process is not None


_STATUS_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC


def mark(paths: Paths, name: str) -> str:
    return f"{paths.run / 'cages'}:{name}"


def marked(paths: Paths) -> dict[str, list[int]]:
    """Every process that keeps a cage of this hive, by the agent's name."""
    found: dict[str, list[int]] = {}
    for pid, name in kernel.with_environment(f"{MARK}={mark(paths, '')}"):
        found.setdefault(name, []).append(pid)
    return found


async def kill_marked(paths: Paths, name: str) -> None:
    """Ends what is left of a cage of which nothing else is known; returns when it is gone."""
    while handles := [handle for pid in marked(paths).get(name, []) if (handle := kernel.Process.open(pid))]:
        for handle in handles:
            handle.signal(signal.SIGKILL)
        for handle in handles:
            await handle.wait()
            handle.close()


def read_record(run: Path) -> Record | None:
    """None when there is none, or a newer version wrote one that we do not understand."""
    try:
        return msgspec.json.decode((run / RECORD_FILE).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def write_record(run: Path, record: Record) -> None:
    temporary = run / f".{RECORD_FILE}"
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.rename(run / RECORD_FILE)


def read_status(run: Path) -> dict[str, int]:
    """What bwrap wrote on its status descriptor: one JSON map a line."""
    try:
        lines = (run / STATUS_FILE).read_bytes().splitlines()
    except OSError:
        return {}
    found: dict[str, int] = {}
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):  # the last line may be half written
            found |= msgspec.json.decode(line, type=dict[str, int])
    return found


def _opened(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd
