"""Looks after a service's database while it runs: snapshots now and then, damage found and told, room for a start."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from libhive.backup.streams import Streams
from libhive.clock import iso, now_ms
from libhive.integrity import check, recovery, reserve, snapshots
from libhive.messages.broker import News
from libhive.names import HIVE, OPERATOR
from libhive.paths import Paths
from libhive.problems import BadRequest, Conflict, Problem

T = TypeVar("T")
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Settings:
    snapshot_hours: float = 1.0
    """Between two of the same database, when it has changed; 0: none are taken."""
    large_bytes: int = 256 << 20
    large_factor: float = 6.0
    """A large one is copied that many times more rarely."""
    snapshots_kept: int = 3
    first_seconds: float = 5.0
    """After the start, which is busy enough."""
    check_seconds: float = 60.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """HIVE_SNAPSHOT_HOURS, HIVE_SNAPSHOTS_KEPT. Raises BadRequest."""
        return cls(
            snapshot_hours=_number(environ, "HIVE_SNAPSHOT_HOURS", 1.0, 0, 8760),
            snapshots_kept=int(_number(environ, "HIVE_SNAPSHOTS_KEPT", 3, 1, 1000)),
        )

    def interval_ms(self, size: int) -> float:
        return self.snapshot_hours * 3_600_000 * (self.large_factor if size > self.large_bytes else 1)


@dataclass(frozen=True, slots=True)
class Hive:
    """As whom the custodian asks its own service to send news."""

    id: str
    caller: str = HIVE
    is_agent: bool = False


class Custodian:
    def __init__(
        self, service: str, paths: Paths, details: dict[str, str], settings: Settings | None = None
    ) -> None:
        self.before_snapshot: Callable[[], None] = lambda: None
        """Called so that the service brings into its files what it has elsewhere. May raise NoSpace."""
        self.database, self.details = paths.database(service), details
        self.settings = settings or Settings.from_environment()
        self.log = logging.getLogger(f"hive.{service}")
        self.streams = Streams(service, paths, self.snapshot)
        self._one_at_a_time = asyncio.Lock()
        self._held = -1

    def hold(self) -> None:
        """While it is held nobody restores over our head. Raises Conflict when somebody does so now."""
        if not self.database.exists():
            return
        self._held = os.open(self.database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.let_go()
            raise Conflict("a backup is being restored here", "wait for it to end") from None

    def let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def noticed(self, error: BaseException) -> None:
        """A failure that ends the process: if the database is not whole, the next start shall look at all of it."""
        if check.is_damage(error):
            self._suspect(str(error))

    async def run(self, tell: Callable[[Any, Any], Any] | None) -> None:
        """For ever. `tell` is the service's own way to send news, if it has one."""
        if not self.database.exists():
            return
        await in_background(lambda: recovery.report_all(self.database, sys.maxsize))
        await self._report_damage(tell)
        if snapshots.size(self.database) > recovery.SMALL_BYTES_MAX:
            await self._look_at_all()
        await asyncio.sleep(self.settings.first_seconds)
        while True:
            reserve.settle(self.database)
            await self._snapshot_when_due()
            await asyncio.sleep(self.settings.check_seconds)

    async def snapshot(self) -> Path:
        """Takes one now. Raises NoSpace; when the database itself is not whole, Damaged, which ends the process."""
        async with self._one_at_a_time:
            self.before_snapshot()
            try:
                taken = await in_background(lambda: snapshots.take(self.database, now_ms()))
            except check.Damaged as damage:
                await self._look_at_all()
                raise Conflict(f"the copy was not whole, the database is: {damage}", "try again") from damage
        snapshots.keep_newest(self.database, self.settings.snapshots_kept)
        self.details["snapshot"] = iso(snapshots.taken_ms(taken))
        self.details.pop("no_snapshot", None)
        return taken

    async def _snapshot_when_due(self) -> None:
        if not self._is_due():
            return
        try:
            await self.snapshot()
        except (Problem, OSError, check.DatabaseError) as error:
            why = error.message if isinstance(error, Problem) else str(error)
            if self.details.get("no_snapshot") != why:
                self.log.warning("no snapshot of the database was taken: %s", why)
            self.details["no_snapshot"] = why

    def _is_due(self) -> bool:
        newest = next(iter(snapshots.newest_first(self.database)), None)
        if newest is None:
            return self.settings.snapshot_hours > 0
        taken = snapshots.taken_ms(newest)
        self.details["snapshot"] = iso(taken)
        interval = self.settings.interval_ms(snapshots.size(self.database))
        return 0 < interval <= abs(now_ms() - taken) and self._changed_ms() > taken

    def _changed_ms(self) -> int:
        found = [self.database, self.database.with_name(self.database.name + "-wal")]
        return max(path.stat().st_mtime_ns // 1_000_000 for path in found if path.exists())

    async def _look_at_all(self) -> None:
        """Raises Damaged, which ends the process; its next start puts a snapshot in place."""
        fault = await in_background(lambda: check.fault_of(self.database))
        if fault:
            self._suspect(fault)
            raise check.Damaged(fault)

    def _suspect(self, why: str) -> None:
        self.log.critical("the database is damaged: %s", why)
        with contextlib.suppress(OSError):
            recovery.suspicion(self.database).touch()

    async def _report_damage(self, tell: Callable[[Any, Any], Any] | None) -> None:
        """In our details until the operator has removed what is set aside, and once in her inbox."""
        for place, report in recovery.reports(self.database):
            self.details["damaged"] = f"set aside {iso(report.found_ms)}, see report.json in {place}"
            if recovery.told(place).exists():
                continue
            text = recovery.summary(place, report)
            self.log.critical("%s", text)
            if tell is not None:
                news = News(to=OPERATOR, what="database_damaged", body=text)
                outcome = tell(Hive(f"damaged-{report.found_ms}"), news)
                if inspect.isawaitable(outcome):
                    await outcome
            recovery.told(place).touch()


async def in_background(work: Callable[[], T]) -> T:
    """In a thread of its own with less of the processor: what serves goes first. It ends with the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            outcome, error = work(), None
        except BaseException as raised:  # noqa: BLE001 - raised where it is awaited
            outcome, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, future, outcome, error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return await future


def _settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)


def _number(environ: Mapping[str, str], variable: str, usual: float, low: float, high: float) -> float:
    text = environ.get(variable, "")
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BadRequest(f"{variable}={text!r:.40} is not a number from {low:g} to {high:g}")
    return value
