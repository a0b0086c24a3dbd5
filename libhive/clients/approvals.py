from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from libhive.clients import Client
from libhive.messages import approvals as say
from libhive.messages.base import Done


class Approvals(Client):
    service = "approvals"

    async def propose(
        self, agent: str, files: dict[str, str], message: str, rationale: str = "", id: str | None = None
    ) -> say.Proposed:
        request = say.Propose(agent=agent, files=files, message=message, rationale=rationale)
        return await self.link.call("approvals", request, id=id)

    async def spawn(
        self,
        agent: str,
        prompt: str,
        model: str = "",
        packages: Sequence[str] = (),
        rationale: str = "",
        id: str | None = None,
    ) -> say.Proposed:
        request = say.Spawn(
            agent=agent, prompt=prompt, model=model, packages=list(packages), rationale=rationale
        )
        return await self.link.call("approvals", request, id=id)

    async def read_config(self, agent: str) -> say.Config:
        return await self.link.call("approvals", say.ReadConfig(agent=agent))

    async def list(self, *, open_only: bool = False, limit: int = 100) -> list[say.Proposal]:
        return (await self.link.call("approvals", say.Proposals(open_only=open_only, limit=limit))).proposals

    async def show(self, number: int) -> say.ProposalDetail:
        return await self.link.call("approvals", say.ShowProposal(number=number))

    async def approve(self, number: int, digest: str, id: str | None = None) -> say.Proposal:
        return await self.link.call("approvals", say.Approve(number=number, digest=digest), id=id)

    async def deny(self, number: int, reason: str, id: str | None = None) -> say.Proposal:
        return await self.link.call("approvals", say.Deny(number=number, reason=reason), id=id)

    async def archive_config(self, agent: str) -> str:
        """Where the repository is kept now; empty when there was none."""
        return (await self.link.call("approvals", say.ArchiveConfig(agent=agent))).path

    async def deployables(self) -> Sequence[say.Deployable]:
        return (await self.link.call("approvals", say.Deployables())).deployables

    async def record_deploy(
        self,
        number: int,
        step: Literal["building", "deployed", "failed"],
        detail: str = "",
        id: str | None = None,
    ) -> Done:
        return await self.link.call(
            "approvals", say.RecordDeploy(number=number, step=step, detail=detail), id=id
        )
