"""Another service is asked until it answers. What the gateway keeps on disk serves meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from libhive.problems import Problem

T = TypeVar("T")
log = logging.getLogger("hive.gateway")

RETRY_SECONDS = 0.5


async def until_answered(ask: Callable[[], Awaitable[T]], who: str, what: str) -> T:
    """Says once that `who` does not answer, and that `what` stay as they are."""
    told = False
    while True:
        try:
            return await ask()
        except Problem as problem:
            if not told:
                log.warning(
                    "%s does not answer; %s stay as they are", who, what, extra={"code": problem.code}
                )
                told = True
            await asyncio.sleep(RETRY_SECONDS)
