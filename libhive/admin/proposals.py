"""Commands about proposals: reading exactly what would change, and deciding."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace

from libhive.admin.session import Session
from libhive.messages.approvals import Proposal, ProposalDetail, ProposalList
from libhive.problems import Conflict, Unavailable

ENDED = frozenset({"deployed", "failed", "denied", "cancelled", "expired", "stale"})
POLL_SECONDS = 0.2


async def proposals(session: Session, given: Namespace) -> int:
    found = await session.approvals.list(open_only=not given.all)
    if not session.show(ProposalList(proposals=found)):
        session.screen.proposals(found)
    return 0


async def proposal(session: Session, given: Namespace) -> int:
    detail = await session.approvals.show(given.id)
    if not session.show(detail):
        session.screen.proposal(detail)
        if detail.proposal.state == "proposed" and not detail.blocked:
            session.screen.say(
                f"\nhive-admin approve {given.id}   or   hive-admin deny {given.id} --reason TEXT"
            )
    return 0


async def approve(session: Session, given: Namespace) -> int:
    detail = await session.approvals.show(given.id)
    if not session.as_json:
        session.screen.effect(detail)
    return await approve_now(session, detail, given.wait)


async def approve_now(session: Session, detail: ProposalDetail, wait_seconds: float) -> int:
    """Approves exactly what `detail` shows, and watches its deploy for a while."""
    number = detail.proposal.number
    if detail.blocked:
        raise Conflict(f"proposal {number} cannot be approved: {detail.blocked}")
    approved = await session.approvals.approve(number, detail.digest)
    if not session.as_json:
        session.screen.say(f"approved; deploying {approved.agent}" if wait_seconds else "approved")
    ended = await _deployed(session, approved, wait_seconds)
    if ended.state == "failed":
        raise Conflict(
            f"the deploy of proposal {number} failed: {ended.reason}", "what ran before runs again"
        )
    if wait_seconds and ended.state != "deployed":
        return _not_yet(session, ended, wait_seconds)
    session.show(ended, None if session.as_json else _outcome(ended))
    return 0


def _not_yet(session: Session, proposal: Proposal, wait_seconds: float) -> int:
    """Whoever goes on as if the agent were there must not: this is no success."""
    if session.as_json:
        session.show(proposal)
    sys.stderr.write(
        f"not deployed within {wait_seconds:g} s: proposal {proposal.number} is {proposal.state};"
        f" see how it goes with: hive-admin proposal {proposal.number}\n"
    )
    return 1


async def deny(session: Session, given: Namespace) -> int:
    denied = await session.approvals.deny(given.id, given.reason)
    session.show(denied, f"denied; {denied.requester} is told why")
    return 0


def _outcome(proposal: Proposal) -> str:
    if proposal.state == "deployed":
        return f"deployed: {proposal.agent} runs revision {proposal.number}"
    return f"see how it goes with: hive-admin proposal {proposal.number}"


async def _deployed(session: Session, proposal: Proposal, seconds: float) -> Proposal:
    """As it is when its deploy has ended, or the time is over. A restarting service is waited for."""
    deadline = time.monotonic() + seconds
    while proposal.state not in ENDED and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        try:
            proposal = (await session.approvals.show(proposal.number)).proposal
        except Unavailable:
            continue
    return proposal
