"""What lifecycle knows of the agents that a command is about, to say what a person does next about them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection

from libhive.admin.session import Session
from libhive.messages.lifecycle import Agent
from libhive.problems import Conflict, NotFound, Problem, UnknownRecipient


async def known(session: Session, names: Collection[str]) -> list[Agent]:
    """None of them when lifecycle does not say: this only adds to what a command has to tell."""
    with contextlib.suppress(Problem):
        await session.ping("lifecycle")
        return [agent for agent in await session.lifecycle.agents() if agent.name in names]
    return []


async def asleep(session: Session, names: Collection[str]) -> list[str]:
    """A sentence for each of them that reads no mail until somebody does something."""
    sentences = []
    for agent in await known(session, names):
        if agent.desired == "stopped":
            sentences.append(f"{agent.name} is stopped: hive-admin start {agent.name}")
        elif agent.cage == "broken":
            sentences.append(f"{agent.name} is broken; why: hive-admin logs {agent.name}")
    return sentences


def way_back(name: str) -> str:
    return f"bring it back: hive-admin spawn {name} --prompt TEXT"


@contextlib.asynccontextmanager
async def hints_the_way_back(session: Session, name: str) -> AsyncIterator[None]:
    """What is refused because the agent is destroyed gets the command that brings it back as its hint."""
    try:
        yield
    except (Conflict, NotFound, UnknownRecipient) as problem:
        if any(agent.desired == "destroyed" for agent in await known(session, [name])):
            raise type(problem)(problem.message, way_back(name), problem.details) from None
        raise
