"""The JSON that a browser gets (docs/dashboard-api.md). Where a message of the hive is already what a page
needs, the page gets that message; here is only what is put together from several, or cut to size."""

from __future__ import annotations

from typing import Literal

import msgspec

from libhive.cron import words
from libhive.messages.broker import Question, Receipt, Reminder
from libhive.messages.gateway import Usage
from libhive.spec import Limits

ServiceState = Literal["up", "down", "unknown"]
Level = Literal["trace", "info", "good", "warn", "bad"]

SERVICES = ("approvals", "broker", "gateway", "lifecycle", "updater")


class View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class ServiceView(View, frozen=True, kw_only=True):
    name: str
    state: ServiceState
    version: str = ""
    pid: int = 0
    up_since_ms: int = 0
    detail: str = ""


class AgentView(View, frozen=True, kw_only=True):
    """One agent as lifecycle, broker, gateway and updater see it together."""

    name: str
    manager: bool
    state: str
    why: str
    """One sentence behind `state`; may be the agent's own words."""
    desired: str
    cage: str
    cage_kind: str
    controls: list[str]
    limits: Limits
    revision: int
    generation: int
    since_ms: int
    page_port: int
    page_problem: str
    connected: bool
    status: str
    """The agent's own line about itself."""
    turn: str
    model: str
    """What it runs with now; `spec_model` is what its configuration says."""
    spec_model: str
    packages: list[str]
    env_names: list[str]
    mcp_servers: list[str]
    allowed_recipients: list[str] | None
    egress_mode: str
    unacked: int
    holds: list[str]
    version: str
    usage: Usage | None
    deploy_step: str
    """The last step of a deploy that has not ended; empty when none runs."""


class MessageView(View, frozen=True, kw_only=True):
    """A receipt whose body is cut after BODY_SHOWN_MAX characters; `body_characters` says how long it is."""

    id: str
    sender: str
    recipient: str
    kind: str
    state: str
    attempts: int
    stored_ms: int
    offered_ms: int
    seen_ms: int
    acked_ms: int
    ended_ms: int
    turn: str
    reason: str
    body: str
    body_characters: int
    in_reply_to: str
    root: str
    hops: int
    seq: int


class ReminderView(View, frozen=True, kw_only=True):
    """A reminder, and `words`: what its cron line says; empty when it fires once."""

    id: str
    agent: str
    text: str
    due_ms: int
    created_ms: int
    cron: str
    zone: str
    catch_up: str
    set_by: str
    fired: int
    last_ms: int
    words: str


class LineView(View, frozen=True, kw_only=True):
    """One line of the events view."""

    id: int
    at_ms: int
    service: str
    kind: str
    agent: str
    level: Level
    text: str


class GatewayView(View, frozen=True, kw_only=True):
    mode: str
    """`rehearsal`, `api_key`, `oauth_token`, or `unknown` while the gateway does not answer."""
    upstream: str
    last_error: str


class HiveView(View, frozen=True, kw_only=True):
    version: str
    manager: str
    dashboard_port: int
    now_ms: int


class StateView(View, frozen=True, kw_only=True):
    """Everything, as of the stream's event `event`."""

    event: str
    hive: HiveView
    services: list[ServiceView]
    gateway: GatewayView
    agents: list[AgentView]
    proposals: list[msgspec.Raw]
    messages: list[msgspec.Raw]
    questions: list[Question]
    reminders: list[ReminderView]
    deploys: list[msgspec.Raw]
    lines: list[LineView]


class MessagePage(View, frozen=True, kw_only=True):
    """`before` is the key that the next page begins at; 0 when there is none."""

    messages: list[MessageView]
    before: int = 0


BODY_SHOWN_MAX = 4_000


def reminder_view(reminder: Reminder) -> ReminderView:
    said = words(reminder.cron, reminder.zone) if reminder.cron else ""
    return ReminderView(**msgspec.structs.asdict(reminder), words=said)


def message_view(receipt: Receipt, *, whole: bool = False) -> MessageView:
    return MessageView(
        id=receipt.id,
        sender=receipt.sender,
        recipient=receipt.recipient,
        kind=receipt.kind,
        state=receipt.state,
        attempts=receipt.attempts,
        stored_ms=receipt.stored_ms,
        offered_ms=receipt.offered_ms,
        seen_ms=receipt.seen_ms,
        acked_ms=receipt.acked_ms,
        ended_ms=receipt.ended_ms,
        turn=receipt.turn,
        reason=receipt.reason,
        body=receipt.body if whole else receipt.body[:BODY_SHOWN_MAX],
        body_characters=len(receipt.body),
        in_reply_to=receipt.in_reply_to,
        root=receipt.root,
        hops=receipt.hops,
        seq=receipt.seq,
    )
