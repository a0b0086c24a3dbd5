"""Instants on the operator's screen: her own time zone, and the date when it is another day's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from libhive.admin import times

NOW = 1_795_000_000_000  # 2026-11-18 11:06:40 UTC
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("instant", "shown"),
    [
        (NOW, "20:06:40"),
        (NOW - 20 * HOUR, "00:06:40"),
        (NOW - 21 * HOUR, "2026-11-17 23:06:40"),
        (NOW + 4 * HOUR, "2026-11-19 00:06:40"),
    ],
)
def test_the_date_is_shown_when_it_is_not_today(instant: int, shown: str) -> None:
    assert times.when(instant, NOW) == shown


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (-1, "it has passed"),
        (0, "it has passed"),
        (45 * SECOND, "in 45 s"),
        (119 * SECOND, "in 119 s"),
        (19 * MINUTE + 59 * SECOND, "in 19 min"),
        (119 * MINUTE, "in 119 min"),
        (5 * HOUR, "in 5 h"),
        (47 * HOUR, "in 47 h"),
        (3 * DAY, "in 3 days"),
    ],
)
def test_a_deadline_says_how_long_there_is(left: int, words: str) -> None:
    assert times.until(NOW + left, NOW).endswith(f" ({words})")
