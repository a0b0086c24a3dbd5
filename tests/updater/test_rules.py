from __future__ import annotations

from typing import Any

import msgspec
import pytest

from libhive.messages.broker import Peer
from libhive.messages.lifecycle import Agent
from libhive.names import Id
from libhive.problems import Conflict
from libhive.spec import AgentSpec
from services.updater import rules
from services.updater.rules import Previous
from services.updater.settings import Settings

SETTINGS = Settings()
AGENT = Agent(
    name="iris",
    desired="running",
    cage="running",
    cage_kind="bubblewrap",
    revision=4,
    generation=2,
    uid=1,
    page_port=8100,
    spec=AgentSpec(),
)
PEER = Peer(name="iris", connected=True, state="idle", generation=2)
PREVIOUS = Previous(desired="running", revision=3, generation=1, spec=AgentSpec())


def but(thing: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(thing, **changes)


@pytest.mark.parametrize(
    ("agent", "peer", "mood"),
    [
        (None, None, "away"),
        (but(AGENT, cage="stopped"), PEER, "away"),
        (but(AGENT, cage="broken"), None, "away"),
        (AGENT, None, "unsure"),
        (AGENT, but(PEER, connected=False), "unsure"),
        (AGENT, but(PEER, state="starting"), "unsure"),
        (AGENT, but(PEER, state="running"), "turn"),
        (AGENT, but(PEER, state="limited", turn="t1"), "turn"),
        (AGENT, but(PEER, state="waiting-operator"), "quiet"),
        (AGENT, PEER, "quiet"),
        (but(AGENT, cage="unknown"), PEER, "quiet"),
    ],
)
def test_what_an_agent_is_taken_to_be_doing(agent: Agent | None, peer: Peer | None, mood: str) -> None:
    assert rules.mood(agent, peer) == mood


def test_a_turn_is_never_cut() -> None:
    assert not rules.may_switch("turn", 1e9, SETTINGS)
    assert rules.may_switch("away", 0, SETTINGS)
    assert not rules.may_switch("quiet", 0, SETTINGS)
    assert rules.may_switch("quiet", SETTINGS.quiet_seconds, SETTINGS)
    assert not rules.may_switch("unsure", SETTINGS.quiet_seconds, SETTINGS)
    assert rules.may_switch("unsure", SETTINGS.unsure_seconds_max, SETTINGS)


def test_only_a_generation_started_since_is_healthy() -> None:
    assert rules.healthy(AGENT, PEER, after_generation=1)
    assert not rules.healthy(AGENT, PEER, after_generation=2)
    assert not rules.healthy(but(AGENT, generation=3), PEER, after_generation=1)
    assert not rules.healthy(AGENT, but(PEER, connected=False), after_generation=1)
    for state in ("starting", "failed", "unknown"):
        assert not rules.healthy(AGENT, but(PEER, state=state), after_generation=1)
    for state in ("idle", "running", "needs-login", "limited", "paused", "waiting-operator"):
        assert rules.healthy(AGENT, but(PEER, state=state), after_generation=1)


def test_how_long_health_is_waited_for() -> None:
    rules.on_unwell("iris", AGENT, PEER, 59, SETTINGS)
    with pytest.raises(
        Conflict, match="not healthy within 60 s: its cage is running, its harness is starting"
    ):
        rules.on_unwell("iris", AGENT, but(PEER, state="starting"), 60, SETTINGS)
    with pytest.raises(Conflict, match="did not start"):
        rules.on_unwell("iris", but(AGENT, cage="broken"), PEER, 0, SETTINGS)


def test_the_way_back() -> None:
    assert rules.way_back(PREVIOUS, AGENT, "switched") == "apply"
    assert rules.way_back(PREVIOUS, AGENT, "built") == "nothing"
    assert rules.way_back(PREVIOUS, but(AGENT, revision=3), "drained") == "nothing"
    assert rules.way_back(None, AGENT, "switched") == "stop"
    assert rules.way_back(None, None, "drained") == "nothing"
    assert rules.way_back(PREVIOUS, but(AGENT, desired="destroyed"), "switched") == "nothing"


def test_where_to_go_back_to() -> None:
    assert rules.previous_of(None, never_well=False) is None
    assert rules.previous_of(but(AGENT, desired="destroyed"), never_well=False) is None
    assert rules.previous_of(but(AGENT, desired="stopped"), never_well=True) is None
    assert rules.previous_of(but(AGENT, desired="stopped"), never_well=False)
    assert rules.previous_of(AGENT, never_well=True)


def test_ids_are_the_same_for_the_same_and_ids_for_all() -> None:
    made = {rules.command_id("x" * 64, step) for step in ("apply", "back", "stop", "record-failed")}
    assert len(made) == 4
    assert rules.command_id("a", "b") == rules.command_id("a", "b")
    assert rules.deploy_id(1, "c") != rules.deploy_id(11, "")
    for each in made | {rules.deploy_id(1, "c" * 40)}:
        msgspec.convert(each, Id)
