"""Reminders fire and questions expire: one task that sleeps until the next of them is due, and minds the clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from libhive.clock import Clock
from libhive.problems import NoSpace

log = logging.getLogger("hive.broker")

BATCH = 64
"""Of what is due, in one commit."""
JUMP_MS = 3_600_000
"""A clock that goes this much faster or slower than time itself has jumped."""
RETRY_SECONDS = 5.0
"""Between tries while the disk is full: what is due stays due."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock would say `expected_ms` had it only gone on; it says `now_ms`."""

    expected_ms: int
    now_ms: int


async def all_of(writes: Iterable[Awaitable[Any]]) -> None:
    """Raises what hindered one of them, after the others."""
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def steady_ms() -> int:
    """Never set, and goes on while the machine is suspended: waking up is no jump."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Timers:
    """Calls `run_due(now)` whenever `next_due()` has come. `changed` wakes it when something earlier may be due."""

    def __init__(
        self,
        next_due: Callable[[], int | None],
        run_due: Callable[[int], Awaitable[None]],
        clock: Clock,
        seconds_max: float,
        on_jump: Callable[[Jump], Awaitable[None]],
        steady: Clock = steady_ms,
    ) -> None:
        self._next_due, self._run_due, self._clock, self._seconds_max = next_due, run_due, clock, seconds_max
        self._on_jump, self._steady = on_jump, steady
        self._ahead = clock() - steady()
        """By how much the clock is ahead of the steady one."""
        self._wake = asyncio.Event()

    def changed(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self.step()
            except NoSpace as problem:
                log.warning("what is due waits", extra={"why": problem.message})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._pause(seconds)

    async def step(self) -> float:
        """Everything that is due; returns how many seconds there is nothing to do."""
        now = self._clock()
        if jump := self._jump(now):
            await self._on_jump(jump)
            self._ahead += jump.now_ms - jump.expected_ms
        due = self._next_due()
        if due is not None and due <= now:
            await self._run_due(now)
            return 0.0
        return self._seconds_max if due is None else min(self._seconds_max, (due - now) / 1000 + 0.001)

    def _jump(self, now: int) -> Jump | None:
        expected = self._steady() + self._ahead
        if abs(now - expected) > JUMP_MS:
            return Jump(expected, now)
        self._ahead += now - expected  # a clock that is put right bit by bit has not jumped
        return None

    async def _pause(self, seconds: float) -> None:
        if not seconds:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
