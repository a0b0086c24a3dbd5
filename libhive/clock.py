"""Time is an argument: rules take `now`, services take a `Clock`, tests jump a fake one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Milliseconds since the epoch, UTC."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def iso(instant_ms: int) -> str:
    """An instant as a person and a program read it: `2026-11-23T15:00:00Z`."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
