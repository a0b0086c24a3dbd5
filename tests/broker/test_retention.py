"""What is over and old goes, whole conversations at a time; what nobody has acknowledged never does."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from libhive.names import OPERATOR
from services.broker import retention
from services.broker.settings import Settings
from tests.broker.looking_back import DAY_MS, Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "broker.sqlite")
    yield archive
    archive.close()


Case = Callable[[Archive], Awaitable[None]]


async def acked_long_ago(archive: Archive) -> None:
    await archive.end(await archive.say("alice", "bob", "hello"))
    archive.now += 10 * DAY_MS


async def dead_and_expired_long_ago(archive: Archive) -> None:
    await archive.end(await archive.say("alice", "bob", "poison"), state="dead")
    await archive.end(await archive.say("alice", "bob", "too late"), state="expired")
    archive.now += 10 * DAY_MS


async def a_long_conversation(archive: Archive) -> None:
    last = await archive.say("alice", "bob", "round 0")
    ids = [last]
    for number in range(1, 9):
        last = await archive.say(
            *(("bob", "alice") if number % 2 else ("alice", "bob")), f"round {number}", last
        )
        ids.append(last)
    await archive.end(*ids)
    archive.now += 10 * DAY_MS


async def an_answered_question(archive: Archive) -> None:
    asked = await ask(archive, "answered")
    await archive.end(asked, await archive.say("bob", "alice", "red", asked, kind="answer", question=asked))
    archive.now += 10 * DAY_MS


GOES: dict[Case, int] = {
    acked_long_ago: 1,
    dead_and_expired_long_ago: 2,
    a_long_conversation: 9,
    an_answered_question: 2,
}


async def ask(archive: Archive, state: str) -> str:
    id = await archive.say("alice", "bob", "which lamp?", kind="question")
    await archive.run("UPDATE mail SET question = id WHERE id = ?", id)
    await archive.run(
        "INSERT INTO questions (id, asker, recipient, text, choices, state, asked_ms, deadline_ms, default_answer, answered_ms)"
        " VALUES (?, 'alice', 'bob', 'which lamp?', '[]', ?, ?, 0, '', ?)",
        *(id, state, archive.now, 0 if state == "open" else archive.now),
    )
    return id


async def acked_lately(archive: Archive) -> None:
    id = await archive.say("alice", "bob", "hello")
    archive.now += 8 * DAY_MS
    await archive.end(id)
    archive.now += 2 * DAY_MS


async def never_acked(archive: Archive) -> None:
    await archive.say("alice", "bob", "hello")
    archive.now += 1_000 * DAY_MS


async def in_a_turn_for_ages(archive: Archive) -> None:
    id = await archive.say("alice", "bob", "hello")
    await archive.run("UPDATE mail SET state = 'seen', seen_ms = ? WHERE id = ?", archive.now, id)
    archive.now += 1_000 * DAY_MS


async def waiting_for_the_operator(archive: Archive) -> None:
    id = await archive.say("alice", "bob", "hello")
    await archive.run("UPDATE mail SET state = 'held' WHERE id = ?", id)
    archive.now += 1_000 * DAY_MS


async def one_of_three_has_not_read_it(archive: Archive) -> None:
    id = await archive.say("alice", ["bob", "carol", "dora"], "hello all")
    await archive.end(id)
    await archive.run("UPDATE mail SET state = 'stored' WHERE id = ? AND recipient = 'carol'", id)
    archive.now += 10 * DAY_MS


async def the_last_reply_is_unread(archive: Archive) -> None:
    first = await archive.say("alice", "bob", "hello")
    reply = await archive.say("bob", "alice", "hello yourself", first)
    await archive.end(first, reply)
    archive.now += 10 * DAY_MS
    await archive.say("alice", "bob", "how are you?", reply)


async def the_last_reply_is_young(archive: Archive) -> None:
    first = await archive.say("alice", "bob", "hello")
    await archive.end(first)
    archive.now += 10 * DAY_MS
    await archive.end(await archive.say("bob", "alice", "hello yourself", first))


async def a_question_still_open(archive: Archive) -> None:
    await archive.end(await ask(archive, "open"))
    archive.now += 10 * DAY_MS


async def stored_by_a_clock_that_ran_ahead(archive: Archive) -> None:
    archive.now += 100 * DAY_MS
    id = await archive.say("alice", "bob", "from the future")
    archive.now -= 100 * DAY_MS
    await archive.end(id)
    archive.now += 10 * DAY_MS


async def a_reply_stored_by_a_clock_that_ran_ahead(archive: Archive) -> None:
    first = await archive.say("alice", "bob", "hello")
    archive.now += 100 * DAY_MS
    reply = await archive.say("bob", "alice", "from the future", first)
    archive.now -= 100 * DAY_MS
    await archive.end(first, reply)
    archive.now += 10 * DAY_MS


STAYS: list[Case] = [
    acked_lately,
    never_acked,
    in_a_turn_for_ages,
    waiting_for_the_operator,
    one_of_three_has_not_read_it,
    the_last_reply_is_unread,
    the_last_reply_is_young,
    a_question_still_open,
    stored_by_a_clock_that_ran_ahead,
    a_reply_stored_by_a_clock_that_ran_ahead,
]


@pytest.mark.parametrize("indexed", [False, True], ids=["not indexed", "indexed"])
@pytest.mark.parametrize("case", GOES, ids=lambda case: case.__name__)
async def test_what_goes(archive: Archive, case: Case, indexed: bool) -> None:
    await case(archive)
    if indexed:
        await archive.index()
    dry = await archive.retain(7)
    assert (dry.messages, dry.applied, dry.days) == (GOES[case], False, 7)
    assert len(await archive.bodies(limit=500)) == GOES[case]
    done = await archive.retain(7, apply=True)
    assert (done.messages, done.questions, done.bytes, done.oldest_ms, done.newest_ms, done.applied) == (
        *(dry.messages, dry.questions, dry.bytes, dry.oldest_ms, dry.newest_ms),
        True,
    )
    assert await archive.kept() == set()
    assert await archive.run("SELECT count(*) FROM questions") == [(0,)]
    await archive.index()
    assert await archive.run(
        "SELECT count(*) FROM mail_words('lamp OR hello OR round OR poison OR late')"
    ) == [(0,)]
    assert (await archive.retain(7, apply=True)).messages == 0


@pytest.mark.parametrize("case", STAYS, ids=lambda case: case.__name__)
async def test_what_stays(archive: Archive, case: Case) -> None:
    await case(archive)
    before = await archive.run("SELECT * FROM mail ORDER BY seq")
    await archive.index()
    assert (await archive.retain(7)).messages == 0
    assert (await archive.retain(7, apply=True)).messages == 0
    assert await archive.run("SELECT * FROM mail ORDER BY seq") == before


@pytest.mark.parametrize("seed", range(4))
async def test_a_dry_run_is_what_applying_does_and_nothing_open_is_removed(
    archive: Archive, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a model that knows the rule and no SQL."""
    monkeypatch.setattr(retention, "LOOK_ROWS", 13)
    monkeypatch.setattr(retention, "REMOVE_ROWS", 5)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    chance = random.Random(seed)
    threads: list[list[str]] = []
    began = archive.now
    for _ in range(120):
        archive.now += chance.randint(0, DAY_MS // 4)
        thread = chance.choice(threads) if threads and chance.random() < 0.6 else []
        if not thread:
            threads.append(thread)
        to = ["bob", "alice", "carol"][: chance.choice([1, 1, 2, 3])]
        replied = thread[-1] if thread else ""
        sender = chance.choice(
            [row[0] for row in await archive.run("SELECT recipient FROM mail WHERE id = ?", replied)]
            or ["dora"]
        )
        thread.append(await archive.say(sender, to, f"text {chance.random()}", replied))
        if chance.random() < 0.7:
            await archive.end(thread[-1], state=chance.choice(["acked", "acked", "dead", "expired"]))
        if chance.random() < 0.1:
            await archive.index(chance.randint(1, 3))
    archive.now = began + 35 * DAY_MS
    cutoff = archive.now - 20 * DAY_MS
    rows = await archive.run("SELECT id, state, max(stored_ms, acked_ms, ended_ms) FROM mail")
    stuck = {id for id, state, at in rows if state not in ("acked", "dead", "expired") or at >= cutoff}
    goes = {id for thread in threads if not stuck & set(thread) for id in thread}
    assert goes, "a seed that removes nothing shows nothing"
    dry = await archive.retain(20)
    done = await archive.retain(20, apply=True)
    assert dry.messages == done.messages == sum(id in goes for id, _, _ in rows)
    assert (dry.bytes, dry.oldest_ms, dry.newest_ms) == (done.bytes, done.oldest_ms, done.newest_ms)
    assert await archive.kept() == {id for id, _, _ in rows} - goes
    await archive.index()
    left = await archive.run("SELECT count(*) FROM mail WHERE body LIKE 'text %'")
    assert await archive.run("SELECT count(*) FROM mail_words('text')") == left


async def test_a_reply_that_comes_in_between_keeps_the_conversation(archive: Archive) -> None:
    first = await archive.say("alice", "bob", "hello")
    await archive.end(first)
    archive.now += 10 * DAY_MS
    cutoff = archive.now - 7 * DAY_MS
    found = retention._look(archive.searching._path, 1, 100, cutoff)
    assert list(found) == [first]
    await archive.say("bob", "alice", "hello yourself", first)
    removed = await archive.core.database.write(lambda c: retention._remove(c, [first], cutoff))
    assert removed.messages == 0
    assert len(await archive.kept()) == 2


async def test_reminders_that_are_over_go_and_the_others_stay(archive: Archive) -> None:
    for id, state, due in (
        ("fired", "fired", 0),
        ("cancelled", "cancelled", 0),
        ("later", "cancelled", 9),
        ("pending", "pending", 0),
    ):
        await archive.run(
            "INSERT INTO reminders (id, agent, text, due_ms, created_ms, state) VALUES (?, 'bob', 'x', ?, ?, ?)",
            *(id, archive.now + due * DAY_MS, archive.now, state),
        )
    archive.now += 10 * DAY_MS
    await archive.retain(7)
    assert len(await archive.run("SELECT id FROM reminders")) == 4
    await archive.retain(7, apply=True)
    assert await archive.run("SELECT id FROM reminders ORDER BY id") == [("later",), ("pending",)]


async def test_without_a_number_of_days_everything_is_kept(archive: Archive) -> None:
    await acked_long_ago(archive)
    archive.now += 10_000 * DAY_MS
    done = await archive.retain(apply=True)
    assert (done.days, done.messages) == (0, 0)
    assert len(await archive.kept()) == 1


async def test_the_setting_is_applied_once_a_day_across_restarts(tmp_path: Path) -> None:
    path, days = (
        tmp_path / "broker.sqlite",
        Settings.from_environment({"HIVE_BROKER_RETENTION_DAYS": "7"}).retention_days,
    )
    archive = Archive(path, retention_days=days)
    await acked_long_ago(archive)
    assert (await archive.retain()).messages == 1
    done = await archive.searching._retention.apply_if_due()
    assert done
    assert (done.messages, done.days) == (1, 7)
    await acked_long_ago(archive)
    archive.now -= 10 * DAY_MS
    archive.now += DAY_MS - 1
    now = archive.now
    archive.close()
    archive = Archive(path, retention_days=days)
    archive.now = now
    assert await archive.searching._retention.apply_if_due() is None
    archive.now += 10 * DAY_MS
    assert (await archive.searching._retention.apply_if_due()).messages == 1  # type: ignore[union-attr]
    archive.close()


async def test_mail_to_the_operator_counts_like_any_other(archive: Archive) -> None:
    read, unread = await archive.say("bob", OPERATOR, "done"), await archive.say("bob", OPERATOR, "done, too")
    await archive.end(read)
    archive.now += 10 * DAY_MS
    assert (await archive.retain(7, apply=True)).messages == 1
    assert await archive.kept() == {unread}
