"""Reminders fire and questions expire: one task that sleeps until the next of them is due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from libhive.clock import Clock


class Timers:
    """Calls `run_due(now)` whenever `next_due()` has come. `changed` wakes it when something earlier may be due."""

    def __init__(
        self,
        next_due: Callable[[], int | None],
        run_due: Callable[[int], Awaitable[None]],
        clock: Clock,
        seconds_max: float,
    ) -> None:
        self._next_due, self._run_due, self._clock, self._seconds_max = next_due, run_due, clock, seconds_max
        self._wake = asyncio.Event()

    def changed(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            due = self._next_due()
            if due is not None and due <= self._clock():
                await self._run_due(self._clock())
                continue
            seconds = (
                self._seconds_max
                if due is None
                else min(self._seconds_max, (due - self._clock()) / 1000 + 0.001)
            )
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
