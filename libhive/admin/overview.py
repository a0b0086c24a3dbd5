"""Commands that look at the whole hive: status and agents."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from argparse import Namespace
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from libhive.admin.session import SERVICES, Session
from libhive.messages.approvals import Proposal
from libhive.messages.base import Pong
from libhive.messages.broker import Peer, Question
from libhive.messages.gateway import GatewayReport
from libhive.messages.lifecycle import Agent
from libhive.names import OPERATOR
from libhive.problems import Unavailable

T = TypeVar("T")
LOOK_AT = {
    "proposal": "hive-admin proposals",
    "question": "hive-admin answer",
    "message": "hive-admin inbox",
}
KEEPER = {"proposal": "approvals", "question": "broker", "message": "broker"}


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
    """The operator's unread mail, without the questions."""


async def status(session: Session, given: Namespace) -> int:
    """3 when a service is down, after showing what the others say."""
    services = await asyncio.gather(*(_service_line(session, name) for name in SERVICES))
    down = [service.name for service in services if not service.up]
    if len(down) == len(SERVICES):
        raise session.nothing_runs()
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
        unread=None if inbox is None else sum(mail.kind != "question" for mail in inbox),
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
    for service in found.services:
        if damaged := service.details.get("damaged"):
            screen.head(f"{service.name}'s database was damaged: {damaged}", "red")
    dashboard = next((service.details for service in found.services if service.name == "dashboard"), {})
    if url := dashboard.get("url"):
        screen.say(f"dashboard: {url}  (let a browser in: hive-admin link)")
    if found.model is not None:
        screen.rehearsal(found.model)
    if found.agents is not None:
        screen.say("")
        screen.agents(found.agents, found.peers or [], int(dashboard.get("page_port_shift", 0)))
    screen.say("")
    _render_waiting(session, found)


def _render_waiting(session: Session, found: HiveStatus) -> None:
    """That nothing waits is said only by whoever knows."""
    counts = {
        "proposal": None if found.proposals is None else len(found.proposals),
        "question": None if found.questions is None else len(found.questions),
        "message": found.unread,
    }
    for what, count in counts.items():
        if count:
            words = f"{count} {what}{'s' if count > 1 else ''} for you:  {LOOK_AT[what]}"
            session.screen.say(words, "bold")
    silent = sorted({KEEPER[what] for what, count in counts.items() if count is None})
    if silent:
        known = "what else waits" if any(counts.values()) else "what waits"
        verb = "is" if len(silent) == 1 else "are"
        session.screen.say(f"{known} is not known: {', '.join(silent)} {verb} down", "yellow")
    elif not any(counts.values()):
        session.screen.say("nothing waits for you", "dim")


async def agents(session: Session, given: Namespace) -> int:
    """The registry is lifecycle's; what the harnesses say is the broker's, and may be missing."""
    found = await session.lifecycle.agents()
    peers: list[Peer] = []
    try:
        await session.ping("broker")
        peers = await session.broker.peers()
    except Unavailable:
        sys.stderr.write("broker does not answer: state, mail and doing of agents are not known\n")
    shift = 0
    with contextlib.suppress(Unavailable):
        shift = int((await session.ping("dashboard")).details.get("page_port_shift", 0))
    if not session.show({"agents": found, "peers": peers}):
        session.screen.agents(found, peers, shift)
    return 0
