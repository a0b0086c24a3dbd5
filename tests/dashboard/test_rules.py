from __future__ import annotations

import pytest

from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.messages.base import Event
from services.dashboard import rules
from tests.dashboard.rich import agent, peers, proposals, questions, receipts

NOW = 1_000_000_000


def cage(**more: object) -> lifecycle.Agent:
    return agent("iris", 1, **{"since_ms": NOW - 300_000, **more})


def peer(**more: object) -> broker.Peer:
    fields: dict[str, object] = {"name": "iris", "connected": True, "state": "idle", "generation": 2}
    return broker.Peer(**{**fields, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cage", "peer", "word"),
    [
        (cage(), peer(), "idle"),
        (cage(), peer(state="running"), "running"),
        (cage(), peer(state="needs-login"), "needs-login"),
        (cage(), peer(holds=["operator"]), "paused"),
        (cage(), peer(holds=["operator"], state="running"), "running"),
        (cage(), peer(holds=["update"]), "idle"),
        (cage(), peer(connected=False), "unknown"),
        (cage(), None, "unknown"),
        (cage(since_ms=NOW - 5_000), None, "starting"),
        (cage(since_ms=NOW - 5_000), peer(generation=1), "starting"),
        (cage(), peer(generation=1), "unknown"),
        (cage(cage="starting"), peer(connected=False), "starting"),
        (cage(cage="stopped", desired="stopped"), peer(), "stopped"),
        (cage(cage="absent", desired="running"), None, "starting"),
        (cage(cage="stopping", desired="stopped"), peer(), "stopping"),
        (cage(cage="broken"), peer(), "broken"),
        (cage(cage="unknown"), peer(), "unknown"),
        (cage(cage="absent", desired="destroyed"), None, "destroyed"),
    ],
)
def test_one_word_from_two_services(cage: lifecycle.Agent, peer: broker.Peer | None, word: str) -> None:
    assert rules.agent_state(cage, peer, lifecycle_up=True, broker_up=True, now=NOW).word == word


def test_nothing_is_guessed_of_a_service_that_does_not_answer() -> None:
    state = rules.agent_state(cage(), peer(), lifecycle_up=False, broker_up=True, now=NOW)
    assert state == ("unknown", "lifecycle does not answer")
    state = rules.agent_state(cage(), peer(), lifecycle_up=True, broker_up=False, now=NOW)
    assert state == ("unknown", "broker does not answer")
    stopped = cage(cage="stopped", desired="stopped")
    assert rules.agent_state(stopped, None, lifecycle_up=True, broker_up=False, now=NOW).word == "stopped"


def test_a_receipt_goes_on_and_back() -> None:
    stored = receipts()[9]
    assert stored.state == "stored"
    offered = rules.receipt_after(stored, changed(stored, "offered", attempts=1))
    assert (offered.state, offered.offered_ms, offered.stored_ms) == ("offered", 77, stored.stored_ms)
    again = rules.receipt_after(offered, changed(stored, "stored", attempts=1))
    assert (again.state, again.attempts, again.stored_ms) == ("stored", 1, stored.stored_ms)
    dead = rules.receipt_after(again, changed(stored, "dead", attempts=5, reason="no turn ended"))
    assert (dead.state, dead.reason, dead.ended_ms) == ("dead", "no turn ended", 77)
    retried = rules.receipt_after(dead, changed(stored, "stored", attempts=5))
    assert (retried.state, retried.reason, retried.ended_ms) == ("stored", "", 0)


def changed(receipt: broker.Receipt, state: broker.ReceiptState, **more: object) -> broker.ReceiptChanged:
    fields: dict[str, object] = {
        "id": receipt.id,
        "recipient": receipt.recipient,
        "state": state,
        "at_ms": 77,
    }
    return broker.ReceiptChanged(**{**fields, **more})  # type: ignore[arg-type]


def test_usage_adds_up() -> None:
    served = gateway.RequestServed(
        agent="iris", status=200, model="haiku", input_tokens=10, output_tokens=3, took_ms=5
    )
    usage = rules.usage_after(rules.usage_after(None, served, 1), served, 2)
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.errors, usage.last_ms) == (
        2,
        20,
        6,
        0,
        2,
    )


def test_only_a_deploy_that_runs_is_shown() -> None:
    def deploy(step: updater.DeployStep) -> updater.Deploy:
        return updater.Deploy(id="x", agent="iris", proposal=1, step=step, started_ms=0, updated_ms=0)

    assert rules.deploy_in_progress("iris", [deploy("recorded"), deploy("built")]) == "built"
    assert rules.deploy_in_progress("iris", [deploy("recorded"), deploy("failed")]) == ""
    assert rules.deploy_in_progress("atlas", [deploy("built")]) == ""


EVENTS: list[Event] = [
    broker.MessageStored(receipt=receipts()[0]),
    broker.PeerChanged(peer=peers()[0]),
    broker.QuestionChanged(question=questions()[0]),
    broker.QuestionChanged(question=questions()[4]),
    broker.MailboxChanged(mailbox=broker.Mailbox(name="iris", uid=1, open=True)),
    changed(receipts()[0], "acked"),
    lifecycle.AgentChanged(agent=agent("iris", 1)),
    approvals.ProposalChanged(proposal=proposals()[0]),
    gateway.GatewayChanged(mode="rehearsal", last_error="401"),
    gateway.RequestServed(
        agent="iris", status=529, model="haiku", input_tokens=1, output_tokens=2, took_ms=3
    ),
    updater.DeployChanged(
        deploy=updater.Deploy(id="x", agent="iris", proposal=1, step="built", started_ms=0, updated_ms=0)
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.KIND)
def test_every_event_is_a_line(event: Event) -> None:
    line = rules.line_of(event)
    assert line
    assert line.text.strip()


def test_a_huge_body_is_a_short_line() -> None:
    huge = broker.MessageStored(receipt=broker.Receipt(
        id="x", sender="a", recipient="b", kind="message", state="stored", attempts=0, stored_ms=0, body="x\n" * 30_000,
    ))  # fmt: skip
    line = rules.line_of(huge)
    assert line
    assert len(line.text) < 250
    assert "\n" not in line.text


def test_only_what_was_not_let_out_is_a_line() -> None:
    newest = gateway.EgressDecision(
        at_ms=1, host="evil.org", port=443, verdict="refused", reason="not-listed"
    )
    line = rules.line_of(gateway.EgressUsed(agent="iris", allowed=4, refused=3, newest=newest))
    assert line == rules.Line("iris", "warn", "way out: refused evil.org:443 and 2 more (not-listed)")
    assert rules.line_of(gateway.EgressUsed(agent="iris", allowed=4, refused=0, newest=newest)) is None
