from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from libhive.door_client import DoorClient
from libhive.messages.broker import Mail
from libhive.names import MANAGER, AgentName
from libhive.problems import Unavailable
from libhive.testing.hive import Guest, Hive

PROMPT = "You are iris. You draw.\n"


def git(hive: Hive, agent: str, *args: str) -> str:
    """The real git's word on an agent's repository."""
    command = ["git", "--git-dir", str(hive.paths.config(AgentName(agent))), *args]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        command, env=environment | identity, check=True, capture_output=True, text=True
    ).stdout.strip()


def tags(hive: Hive, agent: str) -> set[str]:
    return set(git(hive, agent, "tag").split())


def assert_sound(hive: Hive) -> None:
    """What git itself says of every repository: nothing missing, malformed or half written."""
    for path in (hive.paths.state / "config").iterdir():
        agent = path.name.removesuffix(".git")
        assert git(hive, agent, "fsck", "--strict", "--full", "--no-dangling") == ""
        assert not list(path.rglob("*.lock"))
        for name in tags(hive, agent):
            assert git(hive, agent, "cat-file", "-t", f"refs/tags/{name}") == "tag"


async def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)


async def restart_with(hive: Hive, fault: str = "") -> None:
    """Approvals again, as its supervisor would start it, to die at `fault` the next time it gets there."""
    process = hive.processes.pop("approvals", None)
    if process:
        await asyncio.to_thread(process.wait, 10)
    hive.environ["HIVE_FAULT"] = fault
    await hive.start("approvals")


async def killed_in(hive: Hive, command: Coroutine[Any, Any, Any]) -> None:
    """Gives the command, which no one answers: approvals is killed by its planted fault while it does it."""
    asking = asyncio.create_task(command)
    assert await asyncio.to_thread(hive.processes["approvals"].wait, 10) == -9
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError, Unavailable):
        await asking


async def spawn_iris(hive: Hive, **more: object) -> int:
    return (await hive.approvals.spawn("iris", PROMPT, **more)).number  # type: ignore[arg-type]


async def approve(hive: Hive, number: int) -> None:
    detail = await hive.approvals.show(number)
    assert detail.blocked == ""
    await hive.approvals.approve(number, detail.digest)


async def news(guest: Guest, wait_ms: int = 5_000) -> list[Mail]:
    """What the hive told this agent, acknowledged."""
    mail = [each for each in await guest.recv(wait_ms=wait_ms) if each.kind == "news"]
    if mail:
        await guest.ack(*(each.id for each in mail))
    return mail


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    """Broker and approvals, and a mailbox for the manager, as lifecycle would have opened it."""
    async with Hive(forked=True) as hive:
        await hive.start("broker")
        await hive.open_mailbox(MANAGER)
        await hive.start("approvals")
        yield hive


@pytest.fixture
async def door(hive: Hive) -> AsyncIterator[DoorClient]:
    """The manager's own door to the approvals."""
    path: Path = hive.paths.door(MANAGER, "approvals")
    await eventually(path.exists)
    client = DoorClient(path)
    yield client
    await client.close()
