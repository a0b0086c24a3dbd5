"""The check itself is checked: a store without durable commits, a reply before its commit, and each kind of loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.powercut import state
from tests.powercut.disk import Disk
from tests.powercut.images import DATABASE, check, scratch
from tests.powercut.judge import Judge
from tests.powercut.record import Recording, record
from tests.powercut.state import State
from tests.powercut.strace import Event, Said, Sync

SEED = os.environ.get("HIVE_TEST_SEED", "1")
STEPS = 30
DRAWN = 300
OFTEN = "wal_autocheckpoint=40"


@pytest.fixture(scope="module")
def durable(traces: Path) -> Recording:
    return record(traces / "durable", SEED, STEPS, [OFTEN])


def test_a_store_that_does_not_sync_its_commits_is_caught(traces: Path) -> None:
    recording = record(traces / "normal", SEED, STEPS, [OFTEN, "synchronous=NORMAL"])
    outcome = check(recording, SEED, DRAWN)
    assert outcome.kinds["lost"] > DRAWN / 10
    assert outcome.kinds["undone"] > 0
    assert outcome.kinds["damaged"] == 0, outcome.first  # NORMAL forgets; it does not corrupt


def test_a_redo_log_that_is_not_synced_is_caught(traces: Path) -> None:
    recording = record(traces / "redo", SEED, STEPS, [OFTEN, "redo=unsynced"])
    outcome = check(recording, SEED, DRAWN)
    assert outcome.kinds["lost"] > DRAWN / 60  # most cuts come where a commit of SQLite's has everything
    assert outcome.kinds["damaged"] == 0, outcome.first


def test_a_store_that_never_syncs_is_caught(traces: Path) -> None:
    recording = record(traces / "off", SEED, STEPS, [OFTEN, "synchronous=OFF"])
    outcome = check(recording, SEED, DRAWN)
    assert outcome.kinds["lost"] > 0
    assert outcome.kinds["damaged"] > 0


def test_a_reply_before_its_commit_is_caught(durable: Recording) -> None:
    early = Recording(durable.directory, list(_replies_first(durable.events)), durable.ledger)
    assert check(early, SEED, DRAWN).kinds["lost"] > 0
    assert not check(durable, SEED, DRAWN).kinds


def _replies_first(events: list[Event]) -> Iterator[Event]:
    """Each reply trades places with the sync that it waited for."""
    waiting: Sync | None = None
    for event in events:
        if waiting and not isinstance(event, Said):
            yield waiting
            waiting = None
        if isinstance(event, Sync):
            waiting = event
        else:
            yield event
    if waiting:
        yield waiting


# ---- each kind of finding, from the state that a whole recording ends in


@pytest.fixture(scope="module")
def judge(durable: Recording) -> Judge:
    judge = Judge(durable.ledger)
    for event in durable.events:
        if isinstance(event, Said):
            judge.confirm(event)
    return judge


@pytest.fixture
def whole(durable: Recording) -> State:
    disk = Disk()
    for number, event in enumerate(durable.events):
        if not isinstance(event, Said):
            disk.feed(number, event)
    with scratch() as directory:
        disk.cut([one.change for one in disk.pending]).save(directory)
        return state.read(directory / DATABASE)


def _lose_mail(judge: Judge, whole: State) -> None:
    del whole.mail[next(iter(judge.mail))]


def _lose_a_mailbox(judge: Judge, whole: State) -> None:
    whole.statuses.popitem()


def _lose_a_question(judge: Judge, whole: State) -> None:
    del whole.questions[next(iter(judge.answers))]


def _lose_a_reminder(judge: Judge, whole: State) -> None:
    del whole.reminders[next(iter(judge.due))]


def _change_a_body(judge: Judge, whole: State) -> None:
    key = next(key for key in judge.mail if whole.mail[key].kind == "message")
    whole.mail[key] = whole.mail[key]._replace(body="another")


def _deliver_to_a_stranger(judge: Judge, whole: State) -> None:
    id, recipient = next(key for key, mail in whole.mail.items() if mail.kind == "message")
    stranger = next(name for name in whole.statuses if name not in (recipient, *judge.ledger[id].body["to"]))
    whole.mail[id, stranger] = whole.mail[id, recipient]


def _undo_an_ack(judge: Judge, whole: State) -> None:
    key = next(key for key, rank in judge.ranks.items() if rank == 3)
    whole.progress[key] = whole.progress[key]._replace(state="seen")


def _forget_the_turn(judge: Judge, whole: State) -> None:
    key = next(iter(judge.turns))
    whole.progress[key] = whole.progress[key]._replace(turn="")


def _invent_an_ack(judge: Judge, whole: State) -> None:
    key = next(key for key in whole.progress if key not in judge.acks)
    whole.progress[key] = whole.progress[key]._replace(state="acked")


def _undo_an_answer(judge: Judge, whole: State) -> None:
    id = next(iter(judge.answers))
    whole.questions[id] = whole.questions[id]._replace(text=whole.questions[id].text, answer="another")


def _answer_twice(judge: Judge, whole: State) -> None:
    (id, recipient), mail = next((key, mail) for key, mail in whole.mail.items() if mail.kind == "answer")
    whole.mail[id[::-1], recipient] = mail


def _fire_twice(judge: Judge, whole: State) -> None:
    (id, recipient), mail = next((key, mail) for key, mail in whole.mail.items() if mail.kind == "reminder")
    whole.mail[id[::-1], recipient] = mail


def _fire_without_its_mail(judge: Judge, whole: State) -> None:
    id = next(id for id, reminder in whole.reminders.items() if reminder.state == "pending")
    whole.reminders[id] = whole.reminders[id]._replace(state="fired")


def _bring_a_reminder_back(judge: Judge, whole: State) -> None:
    id = next(iter(judge.cancelled))
    whole.reminders[id] = whole.reminders[id]._replace(state="pending")


def _move_a_reminder(judge: Judge, whole: State) -> None:
    id = next(iter(judge.due))
    whole.reminders[id] = whole.reminders[id]._replace(due_ms=1)


def _turn_a_status_back(judge: Judge, whole: State) -> None:
    name = next(name for name, at in judge.status.items() if at > 0)
    whole.statuses[name] = ""


def _reach_only_some(judge: Judge, whole: State) -> None:
    send = next(send for send in judge.sends if (send.id, send.body["to"][0]) in whole.mail)
    key = (send.id, send.body["to"][0])
    judge.mail.discard(key)
    del whole.mail[key], whole.progress[key]


DAMAGES: dict[Callable[[Judge, State], None], str] = {
    _lose_mail: "lost",
    _lose_a_mailbox: "lost",
    _lose_a_question: "lost",
    _lose_a_reminder: "lost",
    _change_a_body: "invented",
    _deliver_to_a_stranger: "invented",
    _undo_an_ack: "undone",
    _forget_the_turn: "undone",
    _invent_an_ack: "invented",
    _undo_an_answer: "undone",
    _answer_twice: "doubled",
    _fire_twice: "doubled",
    _fire_without_its_mail: "half",
    _bring_a_reminder_back: "undone",
    _move_a_reminder: "undone",
    _turn_a_status_back: "undone",
    _reach_only_some: "half",
}


def test_a_whole_recording_leaves_nothing_to_find(judge: Judge, whole: State) -> None:
    assert judge.findings(whole) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_the_judge_finds(damage: Callable[[Judge, State], None], judge: Judge, whole: State) -> None:
    damage(judge, whole)
    kinds = {finding.partition(":")[0] for finding in judge.findings(whole)}
    assert DAMAGES[damage] in kinds
