"""What a cage's root is made of. Each builder makes sure that all is there which a configuration asks for."""

from __future__ import annotations

from typing import Protocol

from libhive.spec import AgentSpec


class Builder(Protocol):
    async def build(self, spec: AgentSpec) -> None:
        """Returns when a cage of this configuration can be started; raises the Problem that is in its way."""
