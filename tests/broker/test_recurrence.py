"""What a reminder that is due comes to: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from libhive.cron import parse
from libhive.messages.broker import Remind, Reminder
from libhive.problems import BadRequest
from services.broker import recurrence
from services.broker.recurrence import CATCH_UP_MAX, SPANS_MAX, Span, fire, next_due

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2026-11-23 12:00")
NINE = ms("2026-11-23 09:00")


def daily(**changed: Any) -> Reminder:
    fields = {
        "id": "r",
        "agent": "alice",
        "text": "tea",
        "due_ms": NINE,
        "created_ms": 0,
        "cron": "0 9 * * *",
    }
    return Reminder(**{**fields, **changed})


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({"at_ms": 5}, 5),
        ({"after_seconds": 5}, NOW + 5_000),
        ({"cron": "0 9 * * *"}, NINE + DAY),
        ({"cron": "0 9 * * *", "zone": "Asia/Tokyo"}, NOW + 12 * HOUR),
    ],
)
def test_it_is_due_at_an_instant_after_a_delay_or_by_a_line(given: Any, due: int) -> None:
    assert recurrence.first_due(Remind(text="x", **given), NOW) == due


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"at_ms": 5, "after_seconds": 5},
        {"at_ms": 5, "cron": "* * * * *"},
        {"after_seconds": 5, "zone": "UTC"},
        {"at_ms": 5, "catch_up": "all"},
        {"cron": "0 0 29 2 *", "zone": "Mars"},
        {"cron": "0 0 31 4 *"},
        {"cron": "0 0 * 2 MON#5", "at_ms": 1},
    ],
)
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(BadRequest):
        recurrence.first_due(Remind(text="x", **given), NOW)


def test_a_line_that_never_comes_is_refused() -> None:
    with pytest.raises(BadRequest, match="never comes"):
        recurrence.first_due(Remind(text="x", cron="0 0 */31 2 MON#5"), NOW)


def test_in_time_it_fires_once_and_is_due_again() -> None:
    firing = fire(daily(), [], NINE + 5)
    assert (firing.instants, firing.due_ms) == ([NINE], NINE + DAY)


@pytest.mark.parametrize(("late", "instants"), [(0, [NINE]), (MINUTE, [NINE]), (MINUTE + 1, [])])
def test_skip_leaves_out_what_is_more_than_a_minute_late(late: int, instants: list[int]) -> None:
    firing = fire(daily(catch_up="skip"), [], NINE + late)
    assert (list(firing.instants), firing.due_ms) == (instants, NINE + DAY)


def test_after_a_long_time_once_is_one_mail_for_the_newest() -> None:
    firing = fire(daily(due_ms=NINE - 1_000 * DAY), [], NOW)
    assert (firing.instants, firing.left_out_from, firing.due_ms) == ([NINE], 0, NINE + DAY)


def test_after_a_long_time_all_is_one_mail_each() -> None:
    firing = fire(daily(due_ms=NINE - 3 * DAY, catch_up="all"), [], NOW)
    assert firing.instants == [NINE - 3 * DAY, NINE - 2 * DAY, NINE - DAY, NINE]
    assert firing.left_out_from == 0


def test_all_makes_up_for_the_newest_hundred_and_says_the_rest_in_one() -> None:
    since = ms("1970-06-01 00:00")
    reminder = daily(due_ms=since, catch_up="all", cron="* * * * *")
    firing = fire(reminder, [], NOW + 30_000)
    assert firing.instants == [NOW - MINUTE * n for n in reversed(range(CATCH_UP_MAX))]
    assert firing.left_out_from == since
    told = recurrence.left_out_text(reminder, firing)
    assert "1970-06-01T00:00:00Z" in told
    assert "2026-11-23T10:21:00Z" in told
    assert told.endswith("tea")


def test_exactly_a_hundred_leave_nothing_out() -> None:
    reminder = daily(due_ms=NOW - MINUTE * (CATCH_UP_MAX - 1), catch_up="all", cron="* * * * *")
    firing = fire(reminder, [], NOW)
    assert (len(firing.instants), firing.left_out_from) == (CATCH_UP_MAX, 0)


def test_what_has_fired_does_not_fire_again() -> None:
    """The clock was ahead for three days, and went back."""
    fired: list[Span] = [(NINE, NINE + 2 * DAY)]
    assert next_due(parse("0 9 * * *", ""), fired, NINE - HOUR) == NINE + 3 * DAY
    firing = fire(daily(due_ms=NINE - DAY), fired, NINE + HOUR)
    assert (list(firing.instants), firing.due_ms) == ([], NINE + 3 * DAY)
    assert list(fire(daily(due_ms=NINE - DAY, catch_up="all"), fired, NINE + HOUR).instants) == [NINE - DAY]


def test_after_years_ahead_it_goes_on_from_where_the_clock_is() -> None:
    fired = fire(daily(), [], NOW + 3_650 * DAY).fired
    assert next_due(parse("0 9 * * *", ""), fired, NOW) == NINE + DAY


def test_firings_that_follow_each_other_are_one_span() -> None:
    spans: list[Span] = []
    for day in range(10):
        spans = fire(daily(due_ms=NINE + day * DAY), spans, NINE + day * DAY).fired
    assert spans == [(NINE, NINE + 9 * DAY)]


def test_the_memory_of_jumps_is_bounded() -> None:
    spans: list[Span] = []
    for jump in range(3 * SPANS_MAX):
        instant = NINE + jump * 10 * DAY
        spans = fire(daily(due_ms=instant), spans, instant).fired
    assert len(spans) == SPANS_MAX
    assert spans[-1][1] == NINE + (3 * SPANS_MAX - 1) * 10 * DAY


def test_a_repeated_command_is_answered_as_the_first_time() -> None:
    set_at = NINE - HOUR
    assert recurrence.answered_due(daily(due_ms=NINE + 9 * DAY, created_ms=set_at)) == NINE
    assert recurrence.answered_due(daily(due_ms=7, cron="")) == 7
