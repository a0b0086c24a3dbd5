"""remind, reminders, cancel-reminder: what is asked of the broker, and what a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libhive.admin.reminders import after, at, zone_here
from libhive.messages import base, broker
from tests.admin.conftest import Stage

ID, OTHER = "01m0000000000000000000abcd", "01m0000000000000000000bbcd"
REMINDED = broker.Reminded(id=ID, due_ms=4_070_908_800_000)


def reminder(**changed: Any) -> broker.Reminder:
    fields = {
        "id": ID,
        "agent": "iris",
        "text": "water",
        "due_ms": 4_070_908_800_000,
        "created_ms": 1,
        "set_by": "iris",
    }
    return broker.Reminder(**{**fields, **changed})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["look", "up", "--after", "10m"], {"text": "look up", "after_seconds": 600}),
        (["x", "--at", "2099-01-01T00:00:00+00:00"], {"text": "x", "at_ms": 4_070_908_800_000}),
        (
            ["x", "--cron", "0 9 * * MON", "--zone", "Asia/Tokyo", "--catch-up", "all"],
            {"text": "x", "cron": "0 9 * * MON", "zone": "Asia/Tokyo", "catch_up": "all"},
        ),
    ],
)
async def test_a_prompt_is_scheduled(stage: Stage, argv: list[str], expected: dict[str, Any]) -> None:
    stage.says = {broker.Remind: REMINDED}
    ended = await stage.admin("remind", "iris", *argv)
    assert (ended.code, ended.err) == (0, "")
    assert stage.asked == [broker.Remind(agent="iris", **expected)]
    assert "iris is reminded 2099-01-01" in ended.out
    assert ("At 09:00 on Monday, Asia/Tokyo" in ended.out) == ("cron" in expected)
    as_json = await stage.admin("remind", "manager", *argv, "--json")
    assert as_json.json == {"id": ID, "due_ms": 4_070_908_800_000}


async def test_a_cron_line_is_in_the_time_zone_of_this_host(stage: Stage) -> None:
    stage.says = {broker.Remind: REMINDED}
    await stage.admin("remind", "iris", "x", "--cron", "0 9 * * *", environ={"TZ": "America/New_York"})
    assert [asked.zone for asked in stage.asked if isinstance(asked, broker.Remind)] == ["America/New_York"]


@pytest.mark.parametrize(
    "argv",
    [
        ["remind", "iris", "x"],
        ["remind", "iris", "--after", "5m"],
        ["remind", "Iris", "x", "--after", "5m"],
        ["remind", "iris", "x", "--after", "5m", "--at", "2099-01-01"],
        ["remind", "iris", "x", "--after", "0"],
        ["remind", "iris", "x", "--after", "367d"],
        ["remind", "iris", "x", "--after", "5 minutes"],
        ["remind", "iris", "x", "--at", "tomorrow"],
        ["remind", "iris", "x", "--after", "5m", "--zone", "UTC"],
        ["remind", "iris", "x", "--after", "5m", "--catch-up", "all"],
        ["remind", "iris", "x", "--cron", "* * * * *", "--catch-up", "never"],
        ["reminders", "Iris"],
        ["cancel-reminder"],
        ["cancel-reminder", "ABC"],
    ],
)
async def test_wrong_usage(stage: Stage, argv: list[str]) -> None:
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out, stage.asked) == (2, "", [])


async def test_they_are_listed(stage: Stage) -> None:
    recurring = reminder(
        id=OTHER, cron="0 9 * * *", catch_up="skip", set_by="operator", text="two\nlines \x1b[2J"
    )
    stage.says = {broker.Reminders: broker.ReminderList(reminders=[reminder(), recurring])}
    ended = await stage.admin("reminders")
    assert ended.code == 0
    once, again = ended.out.splitlines()[1:]
    assert ID in once
    assert "2099-01-01" in once
    assert "0 9 * * * UTC, skip" in again
    assert "operator" in again
    assert "\x1b" not in ended.out
    assert (await stage.admin("reminders", "iris", "--json")).json["reminders"][0]["id"] == ID
    assert stage.asked == [broker.Reminders(), broker.Reminders(agent="iris")]
    stage.says = {broker.Reminders: broker.ReminderList(reminders=[])}
    assert (await stage.admin("reminders")).out == "nobody is reminded of anything\n"


async def test_one_is_cancelled_by_an_end_of_its_id(stage: Stage) -> None:
    found = broker.ReminderList(reminders=[reminder(), reminder(id=OTHER)])
    stage.says = {broker.Reminders: found, broker.CancelReminder: base.Done()}
    assert (await stage.admin("cancel-reminder", "abcd")).code == 0
    assert stage.asked[-1] == broker.CancelReminder(id=ID)
    both = await stage.admin("cancel-reminder", "bcd")
    assert (both.code, "the end of 2" in both.err) == (1, True)
    none = await stage.admin("cancel-reminder", "zzzz")
    assert (none.code, "no reminder's id" in none.err) == (1, True)
    fired = "01m0000000000000000000zzzz"
    await stage.admin("cancel-reminder", fired)
    assert stage.asked[-1] == broker.CancelReminder(id=fired)


@pytest.mark.parametrize(
    ("typed", "seconds"), [("7", 7), ("90s", 90), ("10m", 600), ("2h", 7_200), ("3d", 259_200)]
)
def test_times_from_now(typed: str, seconds: int) -> None:
    assert after(typed) == seconds


def test_an_instant_with_an_offset_is_what_it_says() -> None:
    assert at("2099-01-01T01:00+01:00") == 4_070_908_800_000


def test_the_time_zone_of_this_host(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert zone_here({}, link) == "UTC"
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert zone_here({}, link) == "Europe/Berlin"
    assert zone_here({"TZ": ":Asia/Tokyo"}, link) == "Asia/Tokyo"
    assert zone_here({"TZ": "/etc/shadow"}, link) == "UTC"
    assert zone_here({"TZ": "CET-1CEST,M3.5.0"}, link) == "UTC"
