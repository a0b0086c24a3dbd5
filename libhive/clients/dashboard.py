from __future__ import annotations

from libhive.clients import Client
from libhive.messages import dashboard as say


class Dashboard(Client):
    service = "dashboard"

    async def make_link(self) -> say.Link:
        return await self.link.call("dashboard", say.MakeLink())
