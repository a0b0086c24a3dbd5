"""What the broker confirmed survives a power cut, whatever of the rest does."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from libhive.messages import broker as say
from libhive.testing.hive import Guest, Hive
from tests.powercut import state
from tests.powercut.images import DATABASE, Case, cases, check
from tests.powercut.judge import Judge
from tests.powercut.record import Recording, record
from tests.powercut.strace import Name, Said, Sync
from tests.powercut.workload import Command

SEED = os.environ.get("HIVE_TEST_SEED", "1")
STEPS = 40
"""Of each agent."""
STARTED = 4
"""Images of each recording that the broker itself is started from."""


class Plan(NamedTuple):
    pragmas: tuple[str, ...]
    drawn: int
    images_min: int
    checkpoints_min: int


PLANS = {
    "as-it-is": Plan((), 1_200, 1_100, 2),
    "checkpoints": Plan(("wal_autocheckpoint=60",), 2_200, 2_000, 6),
    "more-checkpoints": Plan(("wal_autocheckpoint=15",), 2_200, 2_000, 20),
}
CONFIRMED_MIN = {
    "broker.send": 100,
    "broker.recv": 50,
    "broker.seen": 30,
    "broker.ack": 20,
    "broker.ask": 15,
    "broker.answer": 5,
    "broker.remind": 10,
    "broker.cancel_reminder": 1,
    "broker.status": 5,
}


@pytest.fixture(scope="module", params=PLANS)
def recording(request: pytest.FixtureRequest, traces: Path) -> Recording:
    return record(traces / request.param, f"{SEED} {request.param}", STEPS, PLANS[request.param].pragmas)


def plan_of(recording: Recording) -> Plan:
    return PLANS[recording.directory.name]


def test_the_recording_has_what_the_check_is_about(recording: Recording) -> None:
    said = [event.id for event in recording.events if isinstance(event, Said) and event.ok]
    confirmed = Counter(recording.ledger[id].kind for id in said if id in recording.ledger)
    assert {kind: n for kind, n in CONFIRMED_MIN.items() if confirmed[kind] < n} == {}
    assert _syncs(recording, f"{DATABASE}-wal") > 50
    assert _syncs(recording, DATABASE) >= plan_of(recording).checkpoints_min


def _syncs(recording: Recording, name: str) -> int:
    """Of all the files that ever had this name."""
    named = [pair for event in recording.events if isinstance(event, Name) for pair in event.names]
    files = {file for its_name, file in named if its_name == name}
    return sum(isinstance(event, Sync) and event.file in files for event in recording.events)


def test_what_was_confirmed_survives_a_power_cut(recording: Recording) -> None:
    plan = plan_of(recording)
    outcome = check(recording, SEED, plan.drawn)
    assert not outcome.kinds, f"{dict(outcome.kinds)} in {outcome.images} images; the first:\n{outcome.first}"
    assert outcome.images >= plan.images_min
    assert outcome.cuts > outcome.images / 4


def test_the_broker_itself_goes_on_from_an_image(recording: Recording) -> None:
    """And repeating every send of the ledger, as agents do, doubles nothing."""
    for case in _spread(recording, STARTED):
        assert asyncio.run(_gone_on(case, recording.ledger)) == [], str(case)


def _spread(recording: Recording, count: int) -> list[Case]:
    """Cuts from all over the recording, each with a judge of its own."""
    return [
        Case(case.number, case.cut, case.pending, case.survived, case.image, deepcopy(case.judge))
        for case in islice(cases(recording, f"{SEED} started", count), count)
    ]


async def _gone_on(case: Case, ledger: dict[str, Command]) -> list[str]:
    async with Hive() as hive:
        store = hive.paths.database("broker").parent
        case.image.save(store)
        await hive.start("broker")
        sends = [command for command in ledger.values() if command.kind == say.Send.KIND]
        names = sorted({command.agent for command in ledger.values()})
        for name in names:
            await hive.open_mailbox(name)
        said = await asyncio.gather(*(_repeat(hive.guest(name), sends) for name in names))
        await hive.stop("broker")
        return _judged(case.judge, [one for of_one in said for one in of_one], store)


async def _repeat(guest: Guest, sends: list[Command]) -> list[Said]:
    said = []
    for command in sends:
        if command.agent == guest.name:
            sent = await guest.door.call(say.Send(**command.body), id=command.id, timeout_seconds=30)
            said.append(Said(command.id, True, {"recipients": sent.recipients}))
    return said


def _judged(judge: Judge, said: list[Said], store: Path) -> list[str]:
    for one in said:
        judge.confirm(one)
    return judge.findings(state.read(store / DATABASE))
