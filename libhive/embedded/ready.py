"""Waiting until the hive is up, with progress: all services answer, and the manager's harness is at work."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from libhive.embedded.settings import SERVICES, Settings
from libhive.link import Link
from libhive.logs import safe_text
from libhive.messages.base import Ping
from libhive.messages.broker import Peers
from libhive.messages.lifecycle import Agents
from libhive.names import MANAGER
from libhive.problems import Problem, Unavailable

SERVICES_SECONDS_MAX = 30.0
MANAGER_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1
ASK_SECONDS = 1.0
FAILED_STARTS_MAX = 3
HOPELESS_STATUS = 2
"""A service's exit status for a reason that starting it again does not mend (libhive/daemon.py)."""
LOG_TAIL_LINES = 6
_EXITED = re.compile(r"exited: (\w+) \((?:exit status (\d+)|terminated by)")

Say = Callable[[str], None]


async def services(settings: Settings, link: Link, say: Say, log_from: int) -> None:
    """Returns when each has answered. Raises Unavailable, with the end of its log, for one that does not."""
    deadline = time.monotonic() + SERVICES_SECONDS_MAX
    waiting = {name: asyncio.create_task(_answers(link, name)) for name in SERVICES}
    try:
        while waiting:
            await asyncio.wait(waiting.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for name in [name for name, task in waiting.items() if task.done()]:
                await waiting.pop(name)
                say(f"  {name} is up")
            failed = hopeless(_read_from(settings, log_from)) & waiting.keys()
            if failed or time.monotonic() > deadline:
                raise does_not_start(settings, min(failed or waiting.keys()))
    finally:
        for task in waiting.values():
            task.cancel()


async def manager(link: Link) -> str:
    """Returns "" when it is healthy, or in words what it is when the time is over."""
    state = ""
    deadline = time.monotonic() + MANAGER_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            state = await _manager_state(link)
        except Problem as problem:
            state = problem.message
        if not state:
            return ""
        await asyncio.sleep(POLL_SECONDS)
    return state


async def _manager_state(link: Link) -> str:
    """ "" when its running generation has a harness that is connected and at work."""
    agents = {agent.name: agent for agent in (await link.call("lifecycle", Agents())).agents}
    if (agent := agents.get(MANAGER)) is None:
        return "not created yet"
    if agent.desired != "running":
        return ""  # the operator has stopped it, and so it stays
    if agent.cage != "running":
        return f"its cage is {agent.cage} {agent.detail}".strip()
    peers = {peer.name: peer for peer in (await link.call("broker", Peers())).peers}
    peer = peers.get(MANAGER)
    if peer is None or not peer.connected or peer.generation != agent.generation:
        return "its harness has not connected"
    return (
        f"it is {peer.state} {peer.detail}".strip() if peer.state in ("starting", "failed", "unknown") else ""
    )


async def _answers(link: Link, service: str) -> None:
    while True:
        try:
            await link.call(service, Ping(), timeout_seconds=ASK_SECONDS)
        except Unavailable:
            continue
        return


def hopeless(supervisor_log: str) -> set[str]:
    """Which services will not come up by waiting, by what the supervisor has logged of their ends."""
    ends = [match.groups() for match in _EXITED.finditer(supervisor_log)]
    at_once = {name for name, status in ends if status == str(HOPELESS_STATUS)}
    again = {name for name, _ in ends if [other for other, _ in ends].count(name) >= FAILED_STARTS_MAX}
    return at_once | again


def does_not_start(settings: Settings, service: str) -> Unavailable:
    lines = _tail(settings, service)
    said = "\n  ".join(["", *lines]) if lines else ""
    return Unavailable(f"{service} does not start:{said}", f"its whole log: {settings.log(service)}")


def _read_from(settings: Settings, offset: int) -> str:
    try:
        with settings.log("supervisor").open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _tail(settings: Settings, service: str) -> list[str]:
    try:
        text = settings.log(service).read_bytes()[-4_000:].decode(errors="replace")
    except FileNotFoundError:
        return []
    return [safe_text(line) for line in text.splitlines()[-LOG_TAIL_LINES:]]
