from __future__ import annotations

from libhive.clients import Client
from libhive.link import CALL_SECONDS
from libhive.messages import lifecycle as say
from libhive.messages.base import Done
from libhive.spec import AgentSpec

STOP_SECONDS = 20.0
"""A verb that ends a cage is answered when it has ended, so it may take its grace time."""

COLLECT_SECONDS = 600.0
FORGET_SECONDS = 10.0
"""An agent that has filled its /state with millions of files takes longer: it is asked again, and goes on meanwhile."""


class Lifecycle(Client):
    service = "lifecycle"

    async def agents(self) -> list[say.Agent]:
        return (await self.link.call("lifecycle", say.Agents())).agents

    async def agent(self, name: str) -> say.Agent | None:
        return next((agent for agent in await self.agents() if agent.name == name), None)

    async def apply(
        self,
        name: str,
        revision: int,
        spec: AgentSpec,
        *,
        revive: bool = False,
        in_place: bool = False,
        id: str | None = None,
    ) -> say.Agent:
        request = say.Apply(name=name, revision=revision, spec=spec, revive=revive, in_place=in_place)
        return await self.link.call("lifecycle", request, id=id, timeout_seconds=STOP_SECONDS)

    async def prepare(self, spec: AgentSpec, id: str | None = None) -> say.Root:
        return await self.link.call("lifecycle", say.Prepare(spec=spec), id=id)

    async def roots(self, key: str = "") -> list[say.Root]:
        return (await self.link.call("lifecycle", say.Roots(key=key))).roots

    async def start(self, name: str, id: str | None = None) -> say.Agent:
        return await self.link.call("lifecycle", say.Start(name=name), id=id, timeout_seconds=STOP_SECONDS)

    async def stop(self, name: str, id: str | None = None) -> say.Agent:
        return await self.link.call("lifecycle", say.Stop(name=name), id=id, timeout_seconds=STOP_SECONDS)

    async def restart(self, name: str, id: str | None = None) -> say.Agent:
        return await self.link.call("lifecycle", say.Restart(name=name), id=id, timeout_seconds=STOP_SECONDS)

    async def destroy(self, name: str, id: str | None = None) -> say.Agent:
        return await self.link.call("lifecycle", say.Destroy(name=name), id=id, timeout_seconds=STOP_SECONDS)

    async def collect_garbage(self, *, apply: bool = False) -> say.Leftovers:
        request = say.CollectGarbage(apply=apply)
        return await self.link.call("lifecycle", request, timeout_seconds=COLLECT_SECONDS)

    async def forget(self, name: str) -> Done:
        return await self.link.call("lifecycle", say.Forget(name=name), timeout_seconds=FORGET_SECONDS)

    async def logs(self, name: str, lines: int = 100) -> str:
        return (await self.link.call("lifecycle", say.Logs(name=name, lines=lines))).text

    async def exec(self, name: str, argv: list[str], timeout_seconds: int = 30) -> say.Executed:
        request = say.Exec(name=name, argv=argv, timeout_seconds=timeout_seconds)
        return await self.link.call("lifecycle", request, timeout_seconds=timeout_seconds + CALL_SECONDS)

    async def stop_all(self) -> Done:
        return await self.link.call("lifecycle", say.StopAll(), timeout_seconds=STOP_SECONDS)
