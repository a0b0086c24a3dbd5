"""Typed clients, one per service: a verb is a method, a refusal is a raised `Problem`."""

from __future__ import annotations

from libhive.link import Link
from libhive.messages.base import Ping, Pong


class Client:
    """What every service's client can do."""

    service: str

    def __init__(self, link: Link) -> None:
        self.link = link

    async def ping(self) -> Pong:
        return await self.link.call(self.service, Ping())
