"""`python -m tests.booted.prepare ID SPEC [AGENT]`: has lifecycle see to the root of this configuration, and says what became
of it. With an agent, that agent is started from it."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import msgspec

from libhive.clients.lifecycle import Lifecycle
from libhive.link import Link
from libhive.messages.lifecycle import Root
from libhive.paths import Paths
from libhive.problems import Problem, Unavailable
from libhive.spec import AgentSpec


async def until_answered(lifecycle: Lifecycle, id: str, spec: AgentSpec) -> Root:
    """As the updater does it: a lifecycle that is away comes back."""
    while True:
        with contextlib.suppress(Unavailable):
            return await lifecycle.prepare(spec, id=id)
        await asyncio.sleep(0.1)


async def prepare(id: str, spec: AgentSpec, agents: list[str]) -> str:
    link = Link(Paths.from_environment())
    lifecycle = Lifecycle(link)
    try:
        while (root := await until_answered(lifecycle, id, spec)).state == "building":
            await asyncio.sleep(0.1)
        for agent in agents:
            await lifecycle.apply(agent, 1, spec)
    except Problem as problem:
        return f"{type(problem).__name__}: {problem.message} ({problem.hint})"
    finally:
        await link.close()
    return root.state


if __name__ == "__main__":
    id, text, *agents = sys.argv[1:]
    print(asyncio.run(prepare(id, msgspec.json.decode(text, type=AgentSpec), agents)))
