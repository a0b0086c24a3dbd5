"""hive-admin events: what the services have on record, and with --follow what they publish."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from libhive.admin.session import SERVICES, Session, print_json
from libhive.clock import now_ms
from libhive.link import Gap
from libhive.messages.approvals import Proposal, ProposalChanged, ProposalState
from libhive.messages.base import Event
from libhive.messages.broker import MessageStored
from libhive.messages.updater import DeployChanged
from libhive.problems import Unavailable

RECORDS_MAX = 500
APPROVED = frozenset({"approved", "building", "deployed", "failed"})


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hive-admin events --json`."""

    at_ms: int
    service: str
    kind: str
    body: dict[str, Any]


async def events(session: Session, given: Namespace) -> int:
    """Listens before it looks at what is on record, so that nothing falls between the two."""
    queue: asyncio.Queue[Happened] = asyncio.Queue()
    listening = [
        asyncio.create_task(_listen(session, service, queue)) for service in SERVICES if given.follow
    ]
    try:
        lately = await _lately(session, given.lines)
        for happened in lately:
            _print_event(session, happened)
        if not (lately or given.follow or session.as_json):
            session.screen.say("nothing has happened yet", "dim")
        while given.follow:
            _print_event(session, await queue.get())
    finally:
        for task in listening:
            task.cancel()
    return 0


async def _listen(session: Session, service: str, queue: asyncio.Queue[Happened]) -> None:
    began = False
    async for event in session.link.events(service):
        if not isinstance(event, Gap):
            began = True
            queue.put_nowait(_happened(now_ms(), event))
        elif began:  # one before the first event only says that we have begun to listen
            queue.put_nowait(Happened(at_ms=now_ms(), service=service, kind=f"{service}.gap", body={}))


async def _lately(session: Session, limit: int) -> list[Happened]:
    """The newest of what is on record, oldest first. A service that is down adds nothing, and that is said."""
    found: list[Happened] = []
    for service, records in RECORDS.items():
        try:
            found += await records(session, min(limit, RECORDS_MAX))
        except Unavailable:
            sys.stderr.write(f"{service} does not answer: what it has on record is missing here\n")
    return sorted(found, key=lambda happened: happened.at_ms)[-limit:]


async def _messages(session: Session, limit: int) -> list[Happened]:
    receipts = await session.broker.history(limit=limit)
    return [_happened(receipt.stored_ms, MessageStored(receipt=receipt)) for receipt in receipts]


async def _decisions(session: Session, limit: int) -> list[Happened]:
    await session.ping("approvals")
    proposals = await session.approvals.list(limit=limit)
    return [happened for proposal in proposals for happened in story(proposal)]


async def _deploys(session: Session, limit: int) -> list[Happened]:
    await session.ping("updater")
    deploys = await session.updater.deploys(limit=limit)
    return [_happened(deploy.updated_ms, DeployChanged(deploy=deploy)) for deploy in deploys]


RECORDS: dict[str, Callable[[Session, int], Awaitable[list[Happened]]]] = {
    "approvals": _decisions,
    "broker": _messages,
    "updater": _deploys,
}


def story(proposal: Proposal) -> Iterator[Happened]:
    """When it was proposed, and when it was decided, each as it was then: a row only says what it is by now."""
    proposed = msgspec.structs.replace(proposal, state="proposed", decided_ms=0, decided_by="", reason="")
    yield _happened(proposal.created_ms, ProposalChanged(proposal=proposed))
    if proposal.decided_ms:
        decision: ProposalState = "approved" if proposal.state in APPROVED else proposal.state
        reason = "" if decision == "approved" else proposal.reason
        decided = msgspec.structs.replace(proposal, state=decision, reason=reason)
        yield _happened(proposal.decided_ms, ProposalChanged(proposal=decided))


def _happened(at_ms: int, event: Event) -> Happened:
    return Happened(
        at_ms=at_ms, service=event.KIND.split(".")[0], kind=event.KIND, body=msgspec.to_builtins(event)
    )


def _print_event(session: Session, happened: Happened) -> None:
    if session.as_json:
        print_json(happened, indent=None)
    else:
        session.screen.event(happened.at_ms, happened.kind, happened.body)
