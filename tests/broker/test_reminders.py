"""Reminders on the real store, with clocks that the test sets; and once with the real process."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Event
from libhive.names import HIVE, OPERATOR, new_id
from libhive.problems import BadRequest, Conflict, NoSpace, NotAllowed, NotFound, TooMany, UnknownRecipient
from libhive.sqlite import Database, rows
from libhive.testing.hive import Hive
from services.broker import agenda, timers
from services.broker.core import Core
from services.broker.reminders import Reminders
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS
from services.broker.timers import JUMP_MS, Timers, steady_ms

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
YEAR = 365 * DAY


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


START = ms("2026-11-23 12:00")


class Bench:
    """The reminders on a file, and a time that passes only when the test says so. `clock` may be set, `steady` not."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, Settings(**settings)
        self.clock, self.steady = START, 0
        self.events: list[Event] = []
        self.open()

    def open(self) -> None:
        """As a process that starts."""
        self.database = Database.open(self.path, MIGRATIONS, keeps_redo=True)
        self.core = Core(self.database, self.settings, lambda: self.clock)
        self.core.publish = self.events.append  # type: ignore[assignment, method-assign]
        self.reminders = Reminders(self.core)
        self.timers = Timers(
            self.reminders.next_due,
            self.reminders.run_due,
            self.core.clock,
            self.settings.timer_seconds_max,
            self.reminders.clock_jumped,
            lambda: self.steady,
        )

    async def restart(self) -> None:
        self.database.close()
        self.open()
        await self.reminders.start()

    async def mailbox(self, *names: str, is_open: bool = True) -> None:
        def work(c: Any) -> None:
            for name in names:
                query = "INSERT OR REPLACE INTO mailboxes (name, uid, open) VALUES (?, 0, ?)"
                c.exec_driver_sql(query, (name, int(is_open)))

        await self.database.write(work)

    async def remind(self, caller: str = "alice", id: str = "", **fields: Any) -> say.Reminded:
        request = say.Remind(**{"text": "tea", **fields})
        return await self.reminders.on_remind(Call(caller, id or new_id()), request)

    async def cancel(self, id: str, caller: str = "alice") -> None:
        await self.reminders.on_cancel_reminder(Call(caller, new_id()), say.CancelReminder(id=id))

    def listed(self, caller: str = OPERATOR, agent: str = "") -> list[say.Reminder]:
        return self.reminders.on_reminders(Call(caller, new_id()), say.Reminders(agent=agent)).reminders

    async def run(self) -> None:
        """Everything that is due now."""
        while await self.timers.step() == 0:
            pass

    async def passes(self, milliseconds: int) -> None:
        """So much time, in which the timers sleep as long as they mean to."""
        end = self.steady + milliseconds
        while self.steady < end:
            seconds = await self.timers.step()
            slept = min(int(seconds * 1000), end - self.steady)
            self.clock, self.steady = self.clock + slept, self.steady + slept
        await self.run()

    def mail(self, kind: str = "reminder") -> list[Any]:
        query = "SELECT sender, recipient, body, details, stored_ms FROM mail WHERE kind = ? ORDER BY seq"
        return self.database.read(lambda c: rows(c, query, (kind,)))

    def due_told(self) -> list[str]:
        """The instants that mail has come for."""
        return [say_due(row) for row in self.mail()]

    def told(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, say.ReminderChanged)]


def say_due(row: Any) -> str:
    return str(json.loads(row["details"])["due"])


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "broker.sqlite")
    await bench.mailbox("alice", "bob", "hm1nd")
    yield bench
    bench.database.close()


# ---- setting, listing, cancelling


async def test_it_fires_at_its_instant_and_not_before(bench: Bench) -> None:
    reminded = await bench.remind(after_seconds=90)
    assert reminded.due_ms == START + 90 * SECOND
    await bench.passes(90 * SECOND - 1)
    assert bench.mail() == []
    await bench.passes(1)
    (mail,) = bench.mail()
    assert (mail["sender"], mail["recipient"], mail["body"]) == ("alice", "alice", "tea")
    assert mail["stored_ms"] == reminded.due_ms
    await bench.passes(DAY)
    assert len(bench.mail()) == 1
    assert bench.listed() == []
    assert bench.told() == ["set", "fired"]


async def test_a_recurring_one_goes_on(bench: Bench) -> None:
    await bench.remind(cron="0  9 * * *", zone="Europe/Berlin")
    await bench.passes(3 * DAY)
    assert bench.due_told() == [f"2026-11-{day}T08:00:00Z" for day in (24, 25, 26)]
    (reminder,) = bench.listed()
    assert (reminder.cron, reminder.fired) == ("0 9 * * *", 3)
    assert (reminder.last_ms, reminder.due_ms) == (ms("2026-11-26 08:00"), ms("2026-11-27 08:00"))


async def test_an_instant_that_has_passed_fires_at_once(bench: Bench) -> None:
    await bench.remind(at_ms=1)
    await bench.run()
    assert len(bench.mail()) == 1


async def test_the_operator_schedules_a_prompt(bench: Bench) -> None:
    await bench.remind(OPERATOR, agent="bob", text="look at the news", cron="0 7 * * *")
    await bench.remind(OPERATOR, agent="manager", at_ms=1)
    await bench.passes(DAY)
    hm1nd, bob = bench.mail()
    assert (hm1nd["sender"], hm1nd["recipient"]) == (OPERATOR, "hm1nd")
    assert (bob["sender"], bob["recipient"], bob["body"]) == (OPERATOR, "bob", "look at the news")


async def test_who_may_remind_whom(bench: Bench) -> None:
    with pytest.raises(NotAllowed):
        await bench.remind("alice", agent="bob", at_ms=1)
    with pytest.raises(BadRequest):
        await bench.remind(OPERATOR, at_ms=1)
    for nobody in ("carol", "all", OPERATOR, HIVE):
        with pytest.raises(UnknownRecipient):
            await bench.remind(OPERATOR, agent=nobody, at_ms=1)
    await bench.remind("alice", agent="alice", at_ms=1)


async def test_a_repeated_command_sets_one_and_is_answered_the_same(bench: Bench) -> None:
    id = new_id()
    first = await bench.remind(id=id, cron="0 * * * *")
    await bench.passes(3 * HOUR)
    assert await bench.remind(id=id, cron="0 * * * *") == first
    assert len(bench.listed()) == 1
    with pytest.raises(Conflict):
        await bench.remind("bob", id=id, at_ms=1)
    with pytest.raises(Conflict):
        await bench.remind(OPERATOR, id=id, agent="alice", at_ms=1)


async def test_an_agent_sees_its_own_and_the_operator_all(bench: Bench) -> None:
    await bench.remind("alice", text="b", after_seconds=200)
    await bench.remind("bob", text="c", after_seconds=300)
    await bench.remind(OPERATOR, agent="alice", text="a", after_seconds=100)
    assert [one.text for one in bench.listed()] == ["a", "b", "c"]
    assert [(one.text, one.set_by) for one in bench.listed("alice")] == [("a", OPERATOR), ("b", "alice")]
    assert [one.text for one in bench.listed(OPERATOR, "bob")] == ["c"]
    with pytest.raises(NotAllowed):
        bench.listed("alice", "bob")


async def test_who_may_cancel(bench: Bench) -> None:
    own = await bench.remind("alice", after_seconds=100)
    set_for_her = await bench.remind(OPERATOR, agent="alice", after_seconds=100)
    with pytest.raises(NotFound):
        await bench.cancel(own.id, "bob")
    with pytest.raises(NotAllowed):
        await bench.cancel(set_for_her.id, "alice")
    await bench.cancel(own.id, OPERATOR)
    await bench.cancel(own.id, "alice")
    await bench.cancel(set_for_her.id, OPERATOR)
    await bench.passes(DAY)
    assert bench.mail() == []
    assert bench.told() == ["set", "set", "cancelled", "cancelled"]


async def test_what_has_fired_cannot_be_cancelled(bench: Bench) -> None:
    reminded = await bench.remind(at_ms=1)
    await bench.run()
    with pytest.raises(Conflict):
        await bench.cancel(reminded.id)


async def test_too_many_are_refused_and_the_operator_has_room_of_her_own(bench: Bench) -> None:
    limit = bench.settings.pending_reminders_max
    assert limit == 64
    ids = [(await bench.remind(after_seconds=60)).id for _ in range(limit)]
    with pytest.raises(TooMany):
        await bench.remind(after_seconds=60)
    await bench.remind("bob", after_seconds=60)
    await bench.remind(OPERATOR, agent="alice", after_seconds=60)
    assert (await bench.remind(id=ids[0], after_seconds=60)).id == ids[0]
    await bench.cancel(ids[0])
    await bench.remind(after_seconds=60)
    await bench.passes(MINUTE + 1)
    assert len(bench.mail()) == limit + 2
    await bench.remind(after_seconds=60)


async def test_the_reminders_of_a_destroyed_agent_wait_for_it(bench: Bench) -> None:
    await bench.remind(after_seconds=60)
    await bench.remind(cron="0 9 * * *")
    await bench.mailbox("alice", is_open=False)
    await bench.passes(3 * DAY)
    assert bench.mail() == []
    assert len(bench.listed()) == 2
    await bench.mailbox("alice")
    await bench.run()
    assert len(bench.mail()) == 2


# ---- restarts


@pytest.mark.parametrize(("catch_up", "days"), [("once", ["26"]), ("skip", []), ("all", ["24", "25", "26"])])
async def test_what_was_missed_while_it_was_down(bench: Bench, catch_up: str, days: list[str]) -> None:
    await bench.remind(cron="0 9 * * *", catch_up=catch_up)
    bench.clock, bench.steady = bench.clock + 3 * DAY, bench.steady + 3 * DAY
    await bench.restart()
    await bench.run()
    assert bench.due_told() == [f"2026-11-{day}T09:00:00Z" for day in days]
    assert bench.told()[-1] == ("fired" if days else "skipped")
    await bench.passes(DAY)
    assert bench.due_told() == [f"2026-11-{day}T09:00:00Z" for day in [*days, "27"]]


async def test_a_firing_is_whole_or_has_not_been(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the mail and the next firing there is no moment to die in: what fails there takes the mail back."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("here")

    await bench.remind(cron="0 * * * *")
    await bench.remind(after_seconds=HOUR // SECOND)
    bench.clock += HOUR
    with monkeypatch.context() as patched:
        patched.setattr(agenda, "advance", fails)
        with pytest.raises(RuntimeError):
            await bench.reminders.run_due(bench.clock)
    assert bench.mail() == []
    await bench.restart()
    await bench.run()
    assert len(bench.mail()) == 2


async def test_two_that_look_at_the_same_time_fire_it_once(bench: Bench) -> None:
    await bench.remind(cron="0 * * * *")
    await bench.remind(after_seconds=60)
    bench.clock += HOUR
    await asyncio.gather(*(bench.reminders.run_due(bench.clock) for _ in range(3)))
    assert len(bench.mail()) == 2


async def test_many_at_once_all_fire(bench: Bench) -> None:
    for number in range(60):
        await bench.remind(text=str(number), after_seconds=60)
        await bench.remind("bob", text=str(number), after_seconds=60)
    await bench.passes(MINUTE + 1)
    assert Counter(row["body"] for row in bench.mail()) == dict.fromkeys(map(str, range(60)), 2)


async def test_a_zone_that_is_gone_ends_it_with_a_word(bench: Bench) -> None:
    reminded = await bench.remind(cron="0 9 * * *")
    await bench.database.write(
        lambda c: c.exec_driver_sql("UPDATE reminders SET zone = 'Gone/City' WHERE id = ?", (reminded.id,))
    )
    await bench.restart()
    await bench.passes(3 * DAY)
    (mail,) = bench.mail()
    assert mail["body"].startswith("tea")
    assert "Gone/City" in mail["body"]
    assert bench.listed() == []


async def test_on_a_full_disk_it_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And fires by itself when there is room again."""
    monkeypatch.setattr(timers, "RETRY_SECONDS", 0.01)
    await bench.remind(text="x" * 60_000, after_seconds=60)
    bench.clock += MINUTE
    writer = bench.database._writer
    used = writer.exec_driver_sql("PRAGMA page_count").scalar_one()
    writer.exec_driver_sql(f"PRAGMA max_page_count = {used}")
    with pytest.raises(NoSpace):
        await bench.run()
    running = asyncio.create_task(bench.timers.run())
    await asyncio.sleep(0.05)
    assert not running.done()
    assert bench.mail() == []
    writer.exec_driver_sql(f"PRAGMA max_page_count = {used + 1_000}")
    async with asyncio.timeout(20):
        while not bench.mail():
            await asyncio.sleep(0.01)
    running.cancel()


# ---- the clock


def jumps(bench: Bench) -> list[Any]:
    return bench.mail("news")


async def test_forward_by_years_everything_due_fires_once(bench: Bench) -> None:
    await bench.remind(text="once", after_seconds=HOUR // SECOND)
    await bench.remind(text="daily", cron="0 9 * * *")
    await bench.passes(MINUTE)
    bench.clock += 10 * YEAR
    await bench.passes(MINUTE)
    assert Counter(row["body"] for row in bench.mail()) == {"once": 1, "daily": 1}
    (news,) = jumps(bench)
    assert (news["sender"], news["recipient"]) == (HIVE, OPERATOR)
    assert "2026-11-23T12:01" in news["body"]
    assert "2036-11-20T12:01" in news["body"]


async def test_back_by_years_nothing_fires_twice_nor_early_and_nothing_falls_silent(bench: Bench) -> None:
    await bench.remind(text="once", after_seconds=HOUR // SECOND)
    await bench.remind(text="later", after_seconds=40 * DAY // SECOND)
    await bench.remind(text="daily", cron="0 9 * * *")
    await bench.passes(2 * DAY)
    bench.clock -= 10 * YEAR
    await bench.passes(2 * DAY)
    assert Counter(row["body"] for row in bench.mail()) == {"once": 1, "daily": 4}
    assert len(jumps(bench)) == 1
    bench.clock += 10 * YEAR
    await bench.passes(2 * DAY)
    assert Counter(row["body"] for row in bench.mail()) == {"once": 1, "daily": 7}
    assert len(set(bench.due_told())) == len(bench.due_told())


async def test_ahead_for_years_and_right_again_it_goes_on_the_next_day(bench: Bench) -> None:
    await bench.remind(cron="0 9 * * *")
    bench.clock += 10 * YEAR
    await bench.passes(HOUR)
    bench.clock -= 10 * YEAR
    await bench.passes(2 * DAY)
    assert bench.due_told() == ["2036-11-20T09:00:00Z", "2026-11-24T09:00:00Z", "2026-11-25T09:00:00Z"]


async def test_back_while_it_was_down(bench: Bench) -> None:
    bench.clock += 10 * YEAR
    await bench.restart()
    await bench.remind(cron="0 9 * * *")
    await bench.remind(at_ms=1)
    await bench.run()
    bench.clock = START
    await bench.restart()
    assert [reminder.due_ms for reminder in bench.listed()] == [ms("2026-11-24 09:00")]
    assert len(jumps(bench)) == 1
    await bench.restart()
    assert len(jumps(bench)) == 1


@pytest.mark.parametrize("catch_up", ["once", "skip"])
async def test_ahead_and_right_again_while_it_was_down(bench: Bench, catch_up: str) -> None:
    """Also where nothing but the skipping itself shows that the clock was ahead."""
    await bench.remind(cron="0 9 * * *", catch_up=catch_up)
    bench.clock += 10 * YEAR
    await bench.restart()
    await bench.run()
    bench.clock = START
    await bench.restart()
    assert [reminder.due_ms for reminder in bench.listed()] == [ms("2026-11-24 09:00")]


async def test_very_many_are_put_right_some_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agenda, "REALIGNED_AT_ONCE", 7)
    bench.clock += 10 * YEAR
    await bench.passes(0)
    for _ in range(30):
        await bench.remind(cron="0 9 * * *")
    bench.clock -= 10 * YEAR
    await bench.passes(0)
    assert {reminder.due_ms for reminder in bench.listed()} == {ms("2026-11-24 09:00")}


@pytest.mark.parametrize(("by", "told"), [(JUMP_MS, 0), (JUMP_MS + 1, 1), (-JUMP_MS, 0), (-JUMP_MS - 1, 1)])
async def test_a_jump_over_an_hour_is_reported(bench: Bench, by: int, told: int) -> None:
    await bench.passes(MINUTE)
    bench.clock += by
    await bench.passes(3 * MINUTE)
    assert len(jumps(bench)) == told


async def test_a_clock_that_is_put_right_bit_by_bit_has_not_jumped(bench: Bench) -> None:
    for _ in range(20):
        bench.clock += 10 * MINUTE
        await bench.passes(2 * MINUTE)
    assert jumps(bench) == []


async def test_the_real_steady_clock_is_as_fast_as_time() -> None:
    also, before = time.monotonic_ns(), steady_ms()
    passed = steady_ms() - before
    really = (time.monotonic_ns() - also) // 1_000_000
    assert 0 <= passed <= really + 1


def zones() -> list[Any]:
    changes = [
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("America/New_York", "2026-11-01"),
    ]
    lines = ["30 2 * * *", "30 1 * * *", "0 2-3 * * *", "*/15 1-3 * * *"]
    return [(zone, change, line) for zone, change in changes for line in lines]


@pytest.mark.parametrize(("zone", "change", "line"), zones())
async def test_each_local_time_fires_once_when_the_clocks_change(
    bench: Bench, zone: str, change: str, line: str
) -> None:
    bench.clock = ms(change) - 2 * DAY
    await bench.restart()
    await bench.remind(cron=line, zone=zone)
    await bench.passes(4 * DAY)
    local = [datetime.fromisoformat(due).astimezone(ZoneInfo(zone)) for due in bench.due_told()]
    days = Counter(due.date().isoformat() for due in local)
    assert len(set(bench.due_told())) == len(local)
    if change == "2026-03-29":  # times that fall together right after the gap are one
        assert 1 <= days[change] <= max(days.values())
    else:
        assert days[change] == max(days.values())


async def test_every_quarter_of_an_hour_goes_on_through_both(bench: Bench) -> None:
    for change in ("2026-10-25", "2027-03-28"):
        bench.clock = ms(change)
        await bench.restart()
        await bench.remind(cron="*/15 * * * *", zone="Europe/Berlin", text=change)
        await bench.passes(DAY - 1)
        fired = [row for row in bench.mail() if row["body"] == change]
        assert len(fired) == 95
        for reminder in bench.listed():
            await bench.cancel(reminder.id, OPERATOR)


async def test_whatever_the_clock_does_and_whenever_it_dies(bench: Bench) -> None:
    """Months of sleep, jumps both ways by minutes to years, and restarts, from a seed that a failure prints."""
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    lines = ["0 9 * * *", "*/30 * * * *", "30 2 * * *", "0 0 1 * *", "15 */5 * * MON"]
    ids = {}
    for _ in range(60):
        match chance.randrange(6):
            case 0:
                text = new_id()
                ids[text] = (await bench.remind(text=text, after_seconds=chance.randrange(1, 200_000))).due_ms
            case 1 if len(bench.listed()) < 12:
                text = new_id()
                policy = chance.choice(["once", "skip", "all"])
                await bench.remind(
                    "bob", text=text, cron=chance.choice(lines), zone="Europe/Berlin", catch_up=policy
                )
            case 2:
                bench.clock += chance.choice([-1, 1]) * chance.choice([MINUTE, HOUR, DAY, 40 * DAY, 5 * YEAR])
                bench.clock = max(bench.clock, ms("1980-01-01"))
            case 3:
                await bench.restart()
            case _:
                await bench.passes(chance.randrange(1, 12 * HOUR))
    bench.clock = max(bench.clock, *ids.values(), 0)
    await bench.run()
    came = Counter(
        (row["body"], say_due(row)) for row in bench.mail() if not row["body"].startswith("This reminder")
    )
    assert [key for key, count in came.items() if count > 1] == []
    assert {row["body"] for row in bench.mail() if row["recipient"] == "alice"} == set(ids)
    for row in bench.mail():
        assert row["stored_ms"] >= ms(say_due(row).removesuffix("Z").replace("T", " "))
    for reminder in bench.listed():
        assert (
            reminder.due_ms - bench.clock < 60 * DAY or "MON" in reminder.cron or jumped_into(bench, reminder)
        )


def jumped_into(bench: Bench, reminder: say.Reminder) -> bool:
    """It is silent because all of that time has fired before: the clock has been there."""
    with sqlite3.connect(bench.path) as database:
        ((spans,),) = database.execute("SELECT spans FROM reminders WHERE id = ?", (reminder.id,))
    return any(first <= reminder.due_ms and bench.clock <= last for first, last in json.loads(spans))


# ---- the process


async def test_it_fires_once_over_kills_of_the_process() -> None:
    async with Hive() as hive:
        await hive.start("broker")
        await hive.open_mailbox("alice")
        alice = await hive.join("alice")
        reminded = await alice.door.call(say.Remind(text="stretch", after_seconds=1))
        await alice.door.call(say.Remind(text="tea", cron="* * * * *", zone="Europe/Berlin"))
        for _ in range(2):
            await hive.kill("broker")
            await hive.start("broker")
        again = await alice.hello()
        assert again.agent == "alice"
        found = await alice.recv(wait_ms=20_000)
        assert [(mail.kind, mail.body) for mail in found if mail.body == "stretch"] == [
            ("reminder", "stretch")
        ]
        assert all(mail.sent_ms >= reminded.due_ms for mail in found if mail.body == "stretch")
        await alice.ack(*(mail.id for mail in found))
        await hive.kill("broker")
        await hive.start("broker")
        (tea,) = await hive.operator.reminders()
        assert (tea.cron, tea.zone, tea.set_by) == ("* * * * *", "Europe/Berlin", "alice")
        assert "stretch" not in [mail.body for mail in await alice.recv()]
