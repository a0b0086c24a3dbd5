from __future__ import annotations

import random
from dataclasses import replace

import pytest

from libhive.messages.approvals import ProposalState
from libhive.names import MANAGER, AgentName
from libhive.problems import Conflict, NotFound, StaleApproval, TooMany
from services.approvals import rules
from services.approvals.rules import HOUR_MS, Standing, Target
from services.approvals.settings import Settings
from services.approvals.story import NEXT, ORDER, Note, Record, parse_tag, read_note, tag_message, tag_name

SETTINGS = Settings()
RECORD = Record(
    number=3,
    command="command-1",
    kind="change_config",
    agent=AgentName("iris"),
    state="proposed",
    requester=MANAGER,
    message="Another prompt\nin detail",
    rationale="",
    created_ms=0,
    base="b" * 40,
    commit="c" * 40,
    tree="d" * 40,
)
STANDING = Standing(digest="good", base_moved=False, tags_moved=False, destroyed=False)
NOTE = Note(command="command-2", by="operator", at_ms=5, reason="because")


def stories(state: ProposalState = "proposed") -> list[list[ProposalState]]:
    """Every story there can be, finished or not."""
    return [[state]] + [[state, *rest] for after in NEXT.get(state, ()) for rest in stories(after)]


def test_every_story_is_followed_from_wherever_it_was_cut() -> None:
    for story in stories():
        for cut in range(len(story) + 1):
            done = story[cut - 1] if cut else None
            assert rules.unfinished(done, set(story[cut:])) == story[cut:]


def test_no_tags_whatever_make_an_illegal_story() -> None:
    source = random.Random(1)
    for _ in range(5_000):
        found = set(source.sample(ORDER, source.randrange(len(ORDER) + 1)))
        state = source.choice([None, *ORDER])
        for after in rules.unfinished(state, found):
            assert after in (("proposed",) if state is None else NEXT[state])
            state = after


def test_a_state_is_reached_once_and_from_its_own_place_only() -> None:
    for before in ORDER:
        for after in ORDER:
            record = replace(RECORD, state=before)
            if after in NEXT.get(before, ()):
                rules.on_step(record, after)
            else:
                with pytest.raises(Conflict):
                    rules.on_step(record, after)


def test_approval_is_bound_to_all_that_was_seen() -> None:
    rules.on_approve(RECORD, STANDING, "good")
    for standing in (replace(STANDING, base_moved=True), replace(STANDING, tags_moved=True)):
        with pytest.raises(StaleApproval):
            rules.on_approve(RECORD, standing, "good")
    for digest in ("", "other"):
        with pytest.raises(StaleApproval):
            rules.on_approve(RECORD, STANDING, digest)
    with pytest.raises(StaleApproval):
        rules.on_approve(RECORD, replace(STANDING, digest=""), "")
    with pytest.raises(Conflict, match="too long"):
        rules.on_approve(RECORD, replace(STANDING, blocked="too long"), "good")
    with pytest.raises(Conflict, match="destroyed"):
        rules.on_approve(RECORD, replace(STANDING, destroyed=True), "good")
    for state in ORDER[1:]:
        with pytest.raises((Conflict, StaleApproval)):
            rules.on_approve(replace(RECORD, state=state), STANDING, "good")


def test_who_may_be_spawned_and_who_changed() -> None:
    unknown, known = Target("iris", "", False, 0), Target("iris", "b", False, 0)
    rules.on_spawn(unknown)
    rules.on_change(known)
    rules.on_spawn(replace(known, destroyed=True))
    with pytest.raises(Conflict):
        rules.on_spawn(known)
    with pytest.raises(NotFound):
        rules.on_change(unknown)
    with pytest.raises(Conflict):
        rules.on_change(replace(known, destroyed=True))


def test_the_limit_is_a_sliding_hour_and_says_when_it_ends() -> None:
    target, now = Target("iris", "", False, 0), 10 * HOUR_MS
    recent = [now - HOUR_MS + 600_000 + n for n in range(6)]
    with pytest.raises(TooMany) as refused:
        rules.on_propose(target, MANAGER, recent, now, SETTINGS)
    assert "11 minutes" in refused.value.hint
    rules.on_propose(target, MANAGER, recent, now + 11 * 60_000, SETTINGS)
    rules.on_propose(target, "operator", recent, now, SETTINGS)
    with pytest.raises(Conflict):
        rules.on_propose(replace(target, open_number=2), "operator", [], now, SETTINGS)


def test_a_week_without_a_decision_expires() -> None:
    week = 7 * 24 * HOUR_MS
    assert not rules.expired(RECORD, week, SETTINGS)
    assert rules.expired(RECORD, week + 1, SETTINGS)
    assert not rules.expired(replace(RECORD, state="approved"), week + 1, SETTINGS)


def test_every_decision_is_told() -> None:
    told = {state: rules.news_of(RECORD, state, NOTE) for state in ORDER}
    assert [state for state, news in told.items() if news is None] == ["proposed", "building"]
    for state in ("approved", "denied", "cancelled", "expired", "stale"):
        news = told[state]
        assert news
        assert (news.to, news.what) == (MANAGER, "proposal_decided")
        assert news.details == {"proposal": "3", "agent": "iris", "decision": state, "reason": "because"}
        assert news.body == f"Proposal 3 (iris: Another prompt) is {state} by operator: because."
    assert told["failed"]
    assert told["failed"].details["reason"] == "because"


def test_who_decided_stays_when_the_deploy_goes_on() -> None:
    approved = rules.evolve(RECORD, "approved", Note(command="x" * 8, by="operator", at_ms=5))
    failed = rules.evolve(approved, "failed", Note(command="x" * 8, by="hive", at_ms=9, reason="no jq"))
    assert (failed.decided_by, failed.decided_ms, failed.reason) == ("operator", 5, "no jq")


def test_tags_and_their_notes() -> None:
    for state in ORDER:
        assert parse_tag(tag_name(state, 12)) == (state, 12)
        note = Note(
            command="c" * 8, by="iris", at_ms=1, reason='a\n\n{"by":"operator"}\n', rationale="\u202e"
        )
        assert read_note(tag_message(state, 12, note)) == note
    for name in ("deployed/0", "approved/01", "approved/", "Approved/1", "approved/1/2", "proposed/1", "x"):
        assert parse_tag(name) is None
    for message in ("", "approved 1\n", '{"by": 1}', "[]"):
        assert read_note(message) is None
