from __future__ import annotations

from libhive.clients import Client
from libhive.messages import updater as say


class Updater(Client):
    service = "updater"

    async def rebuild(self, agent: str, id: str | None = None) -> say.Deploy:
        return await self.link.call("updater", say.Rebuild(agent=agent), id=id)

    async def purge(self, agent: str, confirm: str, id: str | None = None) -> say.Purge:
        return await self.link.call("updater", say.PurgeAgent(agent=agent, confirm=confirm), id=id)

    async def purges(self, limit: int = 50) -> list[say.Purge]:
        return (await self.link.call("updater", say.Purges(limit=limit))).purges

    async def deploys(self, limit: int = 50) -> list[say.Deploy]:
        return (await self.link.call("updater", say.Deploys(limit=limit))).deploys
