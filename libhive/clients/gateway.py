from __future__ import annotations

from libhive.clients import Client
from libhive.messages import gateway as say
from libhive.messages.base import Done


class Gateway(Client):
    service = "gateway"

    async def forget_agent(self, agent: str) -> Done:
        return await self.link.call("gateway", say.ForgetAgent(agent=agent))

    async def login(self, kind: say.CredentialKind, secret: str) -> Done:
        return await self.link.call("gateway", say.Login(kind=kind, secret=secret))

    async def logout(self) -> Done:
        return await self.link.call("gateway", say.Logout())

    async def status(self) -> say.GatewayReport:
        return await self.link.call("gateway", say.GatewayStatus())

    async def egress(self, agent: str, limit: int = 100) -> say.EgressReport:
        return await self.link.call("gateway", say.EgressStatus(agent=agent, limit=limit))
