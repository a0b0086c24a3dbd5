"""How fast one agent may go on: a bucket that fills with time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

CHUNK_COST_MIN = 8 * 1024
"""What a single byte costs: to read and write it takes the loop as long as that many take."""
OPENING_COST = 512 * 1024
BURST_SECONDS = 0.25


class Pace:
    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._most = max(per_second * BURST_SECONDS, 64.0 * OPENING_COST)
        self._left, self._at = self._most, clock()

    def take(self, cost: int) -> float:
        """How many seconds the one who takes it has to wait; whoever comes next waits after it."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second) - cost
        self._at = now
        return max(0.0, -self._left / self._per_second)

    async def spend(self, cost: int) -> None:
        if seconds := self.take(cost):
            await asyncio.sleep(seconds)
