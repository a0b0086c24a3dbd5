"""How several services' words about one agent become one state, and how an event becomes one line. No I/O."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.messages.base import Event
from libhive.names import OPERATOR
from services.dashboard.views import Level, ServiceState, ServiceView

CONNECT_SECONDS_MAX = 60
"""A cage that runs and whose harness has not said hello by then is `unknown`, no longer `starting`."""
DEPLOY_ENDED = frozenset({"recorded", "failed"})
RECEIPT_ORDER = ("stored", "offered", "seen", "acked")
EXCERPT_CHARACTERS = 140


class State(NamedTuple):
    word: str
    why: str


class Line(NamedTuple):
    agent: str
    level: Level
    text: str


def agent_state(
    agent: lifecycle.Agent, peer: broker.Peer | None, *, lifecycle_up: bool, broker_up: bool, now: int
) -> State:
    """What is known, and nothing guessed: where a service does not answer, the word is `unknown`."""
    if not lifecycle_up:
        return State("unknown", "lifecycle does not answer")
    if agent.desired == "destroyed":
        return State("destroyed", agent.detail)
    if agent.cage in ("broken", "stopping", "unknown"):
        return State(agent.cage, agent.detail)
    if agent.cage != "running":
        return State(
            "starting" if agent.desired == "running" or agent.cage == "starting" else "stopped", agent.detail
        )
    if not broker_up:
        return State("unknown", "broker does not answer")
    return _harness_state(agent, peer, now)


def _harness_state(agent: lifecycle.Agent, peer: broker.Peer | None, now: int) -> State:
    if peer is None or not peer.connected or peer.generation != agent.generation:
        if now - agent.since_ms < CONNECT_SECONDS_MAX * 1000:
            return State("starting", "the cage runs; its harness has not said hello yet")
        return State("unknown", "the cage runs, but its harness is not connected")
    if "operator" in peer.holds and peer.state == "idle":
        return State("paused", "paused by the operator")
    return State(peer.state, peer.detail or agent.detail)


def deploy_in_progress(agent: str, deploys: list[updater.Deploy]) -> str:
    steps = [deploy.step for deploy in deploys if deploy.agent == agent and deploy.step not in DEPLOY_ENDED]
    return steps[0] if steps else ""


def receipt_after(receipt: broker.Receipt, news: broker.ReceiptChanged) -> broker.Receipt:
    """The receipt with this news in it. Going back happens too: a dead harness's mail is offered again."""
    at = {f"{news.state}_ms": news.at_ms} if news.state in RECEIPT_ORDER else {"ended_ms": news.at_ms}
    if news.state == "stored":  # again: when it was first is what its sender saw
        at = {"ended_ms": 0}
    return msgspec.structs.replace(
        receipt,
        state=news.state,
        attempts=news.attempts or receipt.attempts,
        turn=news.turn or receipt.turn,
        reason=news.reason,
        **at,
    )


def unacked_change(event: Event) -> tuple[str, int]:
    """Whose pile of unacknowledged mail has changed, and by how much."""
    match event:
        case broker.MessageStored(receipt=receipt):
            return receipt.recipient, 1
        case broker.ReceiptChanged(recipient=name, state="acked" | "dead" | "expired"):
            return name, -1
    return "", 0


def still_reminds(reminder: broker.Reminder, what: str) -> bool:
    """Whether it will fire again after what has happened to it."""
    if what == "fired":
        return bool(reminder.cron) and reminder.due_ms > reminder.last_ms
    return what in ("set", "skipped")


def usage_after(usage: gateway.Usage | None, news: gateway.RequestServed, now: int) -> gateway.Usage:
    before = usage or gateway.Usage(agent=news.agent, requests=0, errors=0, input_tokens=0, output_tokens=0)
    return gateway.Usage(
        agent=news.agent,
        requests=before.requests + 1,
        errors=before.errors + (news.status >= 400),
        input_tokens=before.input_tokens + news.input_tokens,
        output_tokens=before.output_tokens + news.output_tokens,
        last_ms=now,
    )


def line_of(event: Event) -> Line | None:
    """The event as one line of the events view; None for what is too small to tell."""
    match event:
        case broker.MessageStored(receipt=receipt):
            return _message_line(receipt)
        case broker.ReceiptChanged():
            return _receipt_line(event)
        case broker.QuestionChanged(question=question):
            return _question_line(question)
        case broker.ReminderChanged(reminder=reminder, what=what):
            return Line(reminder.agent, "info", f"reminder {what}: {_excerpt(reminder.text)}")
        case broker.PeerChanged(peer=peer):
            return _peer_line(peer)
        case broker.MailboxChanged(mailbox=mailbox):
            return Line(mailbox.name, "trace", f"mailbox {'open' if mailbox.open else 'closed'}")
        case lifecycle.AgentChanged(agent=agent):
            return _agent_line(agent)
        case approvals.ProposalChanged(proposal=proposal):
            return _proposal_line(proposal)
        case updater.PurgeChanged(purge=purge):
            return _purge_line(purge)
        case updater.DeployChanged(deploy=deploy):
            return _deploy_line(deploy)
        case gateway.GatewayChanged(mode=mode, last_error=error):
            return Line(
                "", "bad" if error else "info", f"gateway: {mode}" + (f", {_excerpt(error)}" if error else "")
            )
        case gateway.EgressUsed():
            return _egress_line(event)
        case gateway.RequestServed():
            return _request_line(event)
    return None


def service_line(before: ServiceState, after: ServiceView) -> Line:
    if after.state == "up":
        return Line("", "trace" if before == "unknown" else "good", f"{after.name} is up")
    return Line("", "bad", f"{after.name} does not answer")


def _purge_line(purge: updater.Purge) -> Line:
    if purge.step == "purged":
        return Line(
            purge.agent,
            "warn",
            f"{purge.agent} is purged; its configuration is in {purge.archive or 'no archive'}",
        )
    return Line(
        purge.agent,
        "warn" if purge.detail else "trace",
        f"purge of {purge.agent}: {purge.detail or purge.step}",
    )


def _egress_line(news: gateway.EgressUsed) -> Line | None:
    """Only of what was not let out; the rest is on the agent's page."""
    if not news.refused:
        return None
    newest = news.newest
    where = f"{newest.host}:{newest.port}" if newest.host else "what it asked its proxy for"
    more = f" and {news.refused - 1} more" if news.refused > 1 else ""
    return Line(news.agent, "warn", _excerpt(f"way out: {newest.verdict} {where}{more} ({newest.reason})"))


def _message_line(receipt: broker.Receipt) -> Line:
    """Questions and answers have a line of their own, with what has become of them."""
    about = receipt.sender if receipt.recipient == OPERATOR else receipt.recipient
    level: Level = "trace" if receipt.kind in ("question", "answer") else "info"
    return Line(
        about, level, f"{receipt.sender} → {receipt.recipient}  {receipt.kind}: {_excerpt(receipt.body)}"
    )


def _receipt_line(news: broker.ReceiptChanged) -> Line:
    level: Level = "bad" if news.state in ("dead", "expired") else "trace"
    again = f", attempt {news.attempts}" if news.attempts > 1 else ""
    why = f": {_excerpt(news.reason)}" if news.reason else ""
    return Line(news.recipient, level, f"{news.state} by {news.recipient}{again}{why}  ({news.id})")


def _question_line(question: broker.Question) -> Line:
    if question.state == "open":
        return Line(
            question.asker, "warn", f"{question.asker} asks {question.recipient}: {_excerpt(question.text)}"
        )
    told = f"{question.state} by {question.answered_by or 'its deadline'}"
    return Line(question.asker, "good", f"{question.asker}'s question {told}: {_excerpt(question.answer)}")


def _peer_line(peer: broker.Peer) -> Line:
    level: Level = "bad" if peer.state in ("failed", "needs-login") else "trace"
    what = peer.state if peer.connected else "harness away"
    said = " · ".join(_excerpt(text) for text in (peer.detail, peer.status) if text)
    return Line(peer.name, level, f"{peer.name} is {what}" + (f" · {said}" if said else ""))


def _agent_line(agent: lifecycle.Agent) -> Line:
    levels: dict[str, Level] = {"running": "good", "broken": "bad"}
    why = f": {_excerpt(agent.detail)}" if agent.detail else ""
    return Line(
        agent.name,
        levels.get(agent.cage, "info"),
        f"cage of {agent.name} {agent.cage} (wanted: {agent.desired}){why}",
    )


def _proposal_line(proposal: approvals.Proposal) -> Line:
    levels: dict[str, Level] = {"proposed": "warn", "deployed": "good", "failed": "bad", "denied": "bad"}
    by = (
        f" by {proposal.decided_by}"
        if proposal.state in ("approved", "denied") and proposal.decided_by
        else ""
    )
    why = f": {_excerpt(proposal.reason)}" if proposal.reason else ""
    level = levels.get(proposal.state, "info")
    return Line(
        proposal.agent, level, f"proposal {proposal.number} for {proposal.agent} {proposal.state}{by}{why}"
    )


def _deploy_line(deploy: updater.Deploy) -> Line:
    levels: dict[str, Level] = {"recorded": "good", "failed": "bad"}
    what = f"proposal {deploy.proposal}" if deploy.proposal else "rebuild"
    why = f": {_excerpt(deploy.detail)}" if deploy.detail else ""
    if deploy.root and deploy.step == "built":
        why = f": its root is {deploy.root}"
    return Line(
        deploy.agent,
        levels.get(deploy.step, "info"),
        f"deploy of {deploy.agent} ({what}): {deploy.step}{why}",
    )


def _request_line(news: gateway.RequestServed) -> Line:
    tokens = f"{news.input_tokens} in, {news.output_tokens} out"
    level: Level = "bad" if news.status >= 400 else "trace"
    return Line(
        news.agent, level, f"{news.model} answered {news.agent}: {news.status}, {tokens}, {news.took_ms} ms"
    )


def _excerpt(text: str) -> str:
    line = " ".join(text[: EXCERPT_CHARACTERS * 4].split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"
