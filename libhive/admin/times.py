"""Instants as a person reads them: in this host's time zone, with the date when it is another day's."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86_400, 48 * 3_600, "days"), (3_600, 120 * 60, "h"), (60, 120, "min"), (1, 0, "s"))
"""How long one is, from how many seconds on it is used, and its name."""


def when(instant_ms: int, now_ms: int) -> str:
    instant, now = _local(instant_ms), _local(now_ms)
    return instant.strftime("%H:%M:%S" if instant.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def until(instant_ms: int, now_ms: int) -> str:
    """`17:24:00 (in 19 min)`"""
    left = (instant_ms - now_ms) // 1000
    return f"{when(instant_ms, now_ms)} ({f'in {_span(left)}' if left > 0 else 'it has passed'})"


def _span(seconds: int) -> str:
    length, _, name = next(unit for unit in _UNITS if seconds >= unit[1])
    return f"{seconds // length} {name}"


def _local(instant_ms: int) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000).astimezone()
