"""Cron lines: which instants they mean, above all where the clocks change."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from libhive.cron import parse, words
from libhive.problems import BadRequest

BERLIN = "Europe/Berlin"


def ms(text: str, zone: str = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def shown(line: str, since: str, count: int, zone: str = BERLIN) -> list[str]:
    found = islice(parse(line, zone).since(ms(since, zone)), count)
    return [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%d %H:%M%z") for at in found]


@pytest.mark.parametrize(
    ("line", "since", "expected"),
    [
        ("30 2 * * *", "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
        ("*/30 2 * * *", "2026-03-28 12:00", ["29 03:00+0200", "30 02:00+0200", "30 02:30+0200"]),
        ("0 2,3 * * *", "2026-03-28 12:00", ["29 03:00+0200", "30 02:00+0200", "30 03:00+0200"]),
        ("*/30 * * * *", "2026-03-29 01:00", ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
        ("30 2 * * *", "2026-10-24 12:00", ["25 02:30+0200", "26 02:30+0100"]),
        ("*/30 2 * * *", "2026-10-24 12:00", ["25 02:00+0200", "25 02:30+0200", "26 02:00+0100"]),
        ("0 */2 * * *", "2026-10-24 23:30", ["25 00:00+0200", "25 02:00+0200", "25 04:00+0100"]),
        ("0 * * * *", "2026-10-25 01:30", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        ("0 0-23 * * *", "2026-10-25 01:30", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        ("*/15 * * * *", "2026-10-25 02:30", ["25 02:45+0200", "25 02:00+0100", "25 02:15+0100"]),
    ],
)
def test_the_clocks_change(line: str, since: str, expected: list[str]) -> None:
    assert shown(line, since, len(expected)) == expected


def test_from_within_the_repeated_hour_what_has_passed_does_not_come_again() -> None:
    at = ms("2026-10-25 02:10", fold=1)
    for line in ("5 2 * * *", "30 2 * * *"):
        after = parse(line, BERLIN).after(at)
        assert after is not None
        assert after > ms("2026-10-26 00:00")


def test_an_hour_changes_by_half_an_hour_somewhere() -> None:
    assert shown("15 2 * * *", "2026-10-03 12:00", 2, "Australia/Lord_Howe") == [
        "04 02:30+1100",
        "05 02:15+1100",
    ]


@pytest.mark.parametrize(
    "zone", [BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC", ""]
)
def test_firings_are_the_same_wherever_one_begins_to_look(zone: str) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(40):
        line = f"{chance.choice(['0', '30', '*/20', '5,50'])} {chance.choice(['*', '2', '*/2', '1-3', '23'])} * * *"
        start = ms(f"{chance.choice([2011, 2026])}-01-01", zone or "UTC") + chance.randrange(365) * 86_400_000
        cron = parse(line, zone)
        found = list(islice(cron.since(start), 60))
        assert found == sorted(set(found)), line
        middle = chance.choice(range(start, found[-1], 60_000))
        rest = [at for at in found if at > middle]
        assert list(islice(cron.since(middle), len(rest))) == rest, (line, middle)


def test_an_instant_is_not_after_itself() -> None:
    nine = ms("2026-11-23 09:00")
    assert parse("0 9 * * *", BERLIN).after(nine - 1) == nine
    assert parse("0 9 * * *", BERLIN).after(nine) == nine + timedelta(days=1) // timedelta(milliseconds=1)
    assert parse("0 9 * * *", BERLIN).after(nine + 1) == parse("0 9 * * *", BERLIN).after(nine)


def test_it_ends_where_the_calendar_ends() -> None:
    assert parse("0 9 * * *", "").after(253_402_300_799_000) is None
    assert parse("0 0 31 12 *", BERLIN).after(ms("9999-12-31 12:00")) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "*",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 30 2 *",
        "0 0 * * BLA",
        "@daily",
        "-1 * * * *",
        "0 0 * * ²",
    ],
)
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    with pytest.raises(BadRequest, match="cron line"):
        parse(line, "")


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "europe/berlin", "../passwd", "/etc/passwd", "Europe", "zone.tab", "\0", "CET "]
)
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadRequest, match="time zone"):
        parse("0 9 * * *", zone)


def test_nothing_else_comes_out_of_any_text() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    good = ["*", "*/5", "1", "L", "1-5", "7", "31", "23/5"]
    parts = [*good * 3, "LW", "1#2", "5L", "MON#5", "L/2", "*,L", "#", "a", "²", "٣", "\x00"]
    taken = 0
    for _ in range(5_000):
        line = " ".join(chance.choice(parts) for _ in range(chance.choice([5, 5, 5, 4, 6])))
        try:
            cron = parse(line, "")
        except BadRequest:
            continue
        taken += 1
        cron.after(0)
        assert words(line, "").endswith(", UTC")
    assert taken > 100


def test_it_is_said_in_words() -> None:
    assert words("0 9 * * 1-5", BERLIN) == "At 09:00 on Monday through Friday, Europe/Berlin"
    assert words("what", "") == "what, UTC"
