"""The gateway's vocabulary: the credential, and what it is used for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Done, Event, Reply, Request
from libhive.names import Name

CredentialKind = Literal["api_key", "oauth_token"]
GatewayMode = Literal["rehearsal", "api_key", "oauth_token"]


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
