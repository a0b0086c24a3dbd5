"""The dashboard's vocabulary on the bus; its contract with browsers is docs/dashboard-api.md."""

from __future__ import annotations

from libhive.messages.base import Reply, Request


class Link(Reply, frozen=True, kw_only=True):
    """Logs one browser in, once, before `expires_ms`."""

    url: str
    expires_ms: int


class MakeLink(Request[Link], frozen=True, kw_only=True):
    KIND = "dashboard.make_link"
    REPLY = Link
