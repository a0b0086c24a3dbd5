"""The gateway's vocabulary: the credential and what it is used for; each agent's way out to the network."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Done, Event, Reply, Request
from libhive.names import Name
from libhive.spec import EgressMode

CredentialKind = Literal["api_key", "oauth_token"]
GatewayMode = Literal["rehearsal", "api_key", "oauth_token"]
Verdict = Literal["allowed", "refused", "failed"]
"""`failed`: it was let out, and the host could not be reached."""
EgressReason = Literal[
    "bad-request",
    "learn",
    "learn-full",
    "listed",
    "no-address",
    "no-space",
    "not-listed",
    "off",
    "special-address",
    "too-many",
    "unreachable",
]


class Login(Request[Done], frozen=True, kw_only=True):
    """Operator: keep this credential. It never appears in a reply, an event or a log."""

    KIND = "gateway.login"
    REPLY = Done

    kind: CredentialKind
    secret: Annotated[str, msgspec.Meta(min_length=8, max_length=4_096, pattern=r"^[!-~]+\Z")]

    def __repr__(self) -> str:
        return f"Login(kind={self.kind!r}, secret=...)"


class Logout(Request[Done], frozen=True, kw_only=True):
    """Operator: forget the credential; the rehearsal model answers from then on."""

    KIND = "gateway.logout"
    REPLY = Done


class ForgetAgent(Request[Done], frozen=True, kw_only=True):
    """Updater: remove what is kept of an agent that is destroyed."""

    KIND = "gateway.forget_agent"
    REPLY = Done

    agent: Name


class Usage(Reply, frozen=True, kw_only=True):
    """What one agent has used since the gateway first saw it."""

    agent: str
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    last_ms: int = 0


class GatewayReport(Reply, frozen=True, kw_only=True):
    mode: GatewayMode
    upstream: str
    """Where requests go; empty in rehearsal."""
    last_error: str = ""
    usage: list[Usage] = []


class GatewayStatus(Request[GatewayReport], frozen=True, kw_only=True):
    KIND = "gateway.status"
    REPLY = GatewayReport


class GatewayChanged(Event, frozen=True, kw_only=True):
    KIND = "gateway.changed"
    mode: GatewayMode
    last_error: str = ""


class RequestServed(Event, frozen=True, kw_only=True):
    """One answer of the model went to an agent."""

    KIND = "gateway.request_served"
    agent: str
    status: int
    model: str
    input_tokens: int
    output_tokens: int
    took_ms: int


class EgressDecision(Reply, frozen=True, kw_only=True):
    """One connection that an agent asked for, or several refusals of the same kind within a second."""

    at_ms: int
    host: str
    port: int
    verdict: Verdict
    reason: EgressReason
    detail: str = ""
    address: str = ""
    """What was connected to."""
    times: int = 1
    bytes_up: int = 0
    bytes_down: int = 0
    ended_ms: int = 0
    """0: it is open."""


class EgressReport(Reply, frozen=True, kw_only=True):
    agent: str
    known: bool
    """False: lifecycle has not said yet what this agent may reach, so nothing is let out."""
    mode: EgressMode
    allow: list[str]
    open: int
    """Connections just now."""
    learned: list[str]
    """What was used since `learn` was approved last."""
    decisions: list[EgressDecision]


class EgressStatus(Request[EgressReport], frozen=True, kw_only=True):
    """An agent's way out: what it may reach, and the newest decisions first."""

    KIND = "gateway.egress"
    REPLY = EgressReport

    agent: Name
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class EgressUsed(Event, frozen=True, kw_only=True):
    """What one agent's proxy has decided in the last second, and the newest of it: a refusal, if there was one."""

    KIND = "gateway.egress_used"
    agent: str
    allowed: int
    refused: int
    newest: EgressDecision
