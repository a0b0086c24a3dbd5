"""Commands that look at the whole hive: status, agents, events."""

from __future__ import annotations

import asyncio
import contextlib
from argparse import Namespace
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from libhive.admin.session import SERVICES, Session, print_json
from libhive.clock import now_ms
from libhive.link import Gap
from libhive.messages.approvals import Proposal, ProposalChanged
from libhive.messages.base import Event, Pong
from libhive.messages.broker import MessageStored, Peer, Question
from libhive.messages.gateway import GatewayReport
from libhive.messages.lifecycle import Agent
from libhive.messages.updater import DeployChanged
from libhive.names import OPERATOR
from libhive.problems import Unavailable

T = TypeVar("T")


class ServiceLine(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    up: bool
    version: str = ""
    pid: int = 0
    up_since_ms: int = 0
    details: dict[str, str] = {}


class HiveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now; None where the service that knows does not answer."""

    services: list[ServiceLine]
    model: GatewayReport | None
    agents: list[Agent] | None
    peers: list[Peer] | None
    proposals: list[Proposal] | None
    """Those that wait for a decision."""
    questions: list[Question] | None
    """Those that wait for the operator's answer."""
    unread: int | None


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hive-admin events --json`."""

    at_ms: int
    service: str
    kind: str
    body: dict[str, Any]


async def status(session: Session, given: Namespace) -> int:
    """3 when a service is down, after showing what the others say."""
    services = await asyncio.gather(*(_service_line(session, name) for name in SERVICES))
    down = [service.name for service in services if not service.up]
    if len(down) == len(SERVICES):
        raise Unavailable("the hive is not running")
    found = await _ask_everyone(session, list(services))
    if not session.show(found):
        _render_status(session, found, down)
    return 3 if down else 0


async def _ask_everyone(session: Session, services: list[ServiceLine]) -> HiveStatus:
    up = {service.name for service in services if service.up}

    async def known(service: str, call: Coroutine[Any, Any, T]) -> T | None:
        if service not in up:
            call.close()
            return None
        with contextlib.suppress(Unavailable):
            return await call
        return None

    model, agents, peers, proposals, questions, inbox = await asyncio.gather(
        known("gateway", session.gateway.status()),
        known("lifecycle", session.lifecycle.agents()),
        known("broker", session.broker.peers()),
        known("approvals", session.approvals.list(open_only=True)),
        known("broker", session.broker.questions()),
        known("broker", session.broker.inbox()),
    )
    return HiveStatus(
        services=services,
        model=model,
        agents=agents,
        peers=peers,
        proposals=None if proposals is None else [one for one in proposals if one.state == "proposed"],
        questions=None if questions is None else [one for one in questions if one.recipient == OPERATOR],
        unread=None if inbox is None else len(inbox),
    )


async def _service_line(session: Session, name: str) -> ServiceLine:
    try:
        pong: Pong = await session.ping(name)
    except Unavailable:
        return ServiceLine(name=name, up=False)
    return ServiceLine(
        name=name,
        up=True,
        version=pong.version,
        pid=pong.pid,
        up_since_ms=pong.up_since_ms,
        details=pong.details,
    )


def _render_status(session: Session, found: HiveStatus, down: list[str]) -> None:
    screen = session.screen
    up = [service.name for service in found.services if service.up]
    screen.say(f"up: {' '.join(up)}", "green")
    for name in down:
        screen.say(
            f"down: {name}; its supervisor starts it again, its log: hive-admin logs {name} --service", "red"
        )
    dashboard = next((service.details for service in found.services if service.name == "dashboard"), {})
    if url := dashboard.get("url"):
        screen.say(f"dashboard: {url}  (let a browser in: hive-admin link)")
    if found.model is not None:
        screen.rehearsal(found.model)
    if found.agents is not None:
        screen.say("")
        screen.agents(found.agents, found.peers or [], int(dashboard.get("page_port_shift", 0)))
    waiting = [
        (len(found.proposals or []), "proposal", "hive-admin proposals"),
        (len(found.questions or []), "question", "hive-admin answer"),
        (found.unread or 0, "message", "hive-admin inbox"),
    ]
    screen.say("")
    for count, what, command in waiting:
        if count:
            screen.say(f"{count} {what}{'s' if count > 1 else ''} for you:  {command}", "bold")
    if not any(count for count, _, _ in waiting):
        screen.say("nothing waits for you", "dim")


async def agents(session: Session, given: Namespace) -> int:
    """The registry is lifecycle's; what the harnesses say is the broker's, and may be missing."""
    found = await session.lifecycle.agents()
    peers: list[Peer] = []
    with contextlib.suppress(Unavailable):
        await session.ping("broker")
        peers = await session.broker.peers()
    shift = 0
    with contextlib.suppress(Unavailable):
        shift = int((await session.ping("dashboard")).details.get("page_port_shift", 0))
    if not session.show({"agents": found, "peers": peers}):
        session.screen.agents(found, peers, shift)
    return 0


# ---- events


async def events(session: Session, given: Namespace) -> int:
    """What happened lately, by the services' own records; with --follow, what happens from now on as well."""
    queue: asyncio.Queue[Happened] = asyncio.Queue()
    listening = [
        asyncio.create_task(_listen(session, service, queue)) for service in SERVICES if given.follow
    ]
    try:
        for happened in await _lately(session, given.lines):
            _print_event(session, happened)
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
            queue.put_nowait(_happened(now_ms(), event))
        elif began:
            queue.put_nowait(Happened(at_ms=now_ms(), service=service, kind=f"{service}.gap", body={}))
        began = True  # the first gap only says that we have begun to listen


async def _lately(session: Session, limit: int) -> list[Happened]:
    """The newest of what is on record, oldest first. A service that is down adds nothing."""
    found: list[Happened] = []
    with contextlib.suppress(Unavailable):
        receipts = await session.broker.history(limit=min(limit, 500))
        found += [_happened(receipt.stored_ms, MessageStored(receipt=receipt)) for receipt in receipts]
    with contextlib.suppress(Unavailable):
        await session.ping("approvals")
        for proposal in await session.approvals.list(limit=min(limit, 500)):
            found.append(
                _happened(max(proposal.created_ms, proposal.decided_ms), ProposalChanged(proposal=proposal))
            )
    with contextlib.suppress(Unavailable):
        await session.ping("updater")
        deploys = await session.updater.deploys(limit=min(limit, 500))
        found += [_happened(deploy.updated_ms, DeployChanged(deploy=deploy)) for deploy in deploys]
    return sorted(found, key=lambda happened: happened.at_ms)[-limit:]


def _happened(at_ms: int, event: Event) -> Happened:
    return Happened(
        at_ms=at_ms, service=event.KIND.split(".")[0], kind=event.KIND, body=msgspec.to_builtins(event)
    )


def _print_event(session: Session, happened: Happened) -> None:
    if session.as_json:
        print_json(happened, indent=None)
    else:
        session.screen.event(happened.at_ms, happened.kind, happened.body)
