"""The host's own /usr is the cage's: nothing is built, and what is missing is named with the command that
mends it."""

from __future__ import annotations

from libhive import packages
from libhive.problems import Conflict
from libhive.spec import AgentSpec


class HostBuilder:
    async def build(self, spec: AgentSpec) -> None:
        if missing := await packages.missing(spec.packages):
            names = ", ".join(missing)
            raise Conflict(f"this host does not have the package {names}", packages.install_hint(missing))
