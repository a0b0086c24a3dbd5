"""A service's life, as a process of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest

from libhive.clients.broker import Broker
from libhive.link import Gap
from libhive.messages import broker as say
from libhive.messages.base import Ping
from libhive.names import OPERATOR
from libhive.problems import BadRequest, InternalError, Unavailable
from libhive.testing.hive import Hive

BUGGY = """
from libhive import daemon
from libhive.messages.base import Done, Ping
from libhive.messages.broker import Peers

class Buggy:
    name = "buggy"
    def bus_handlers(self): return {Peers: self.on_peers}
    def door_handlers(self): return {}
    async def start(self, daemon): pass
    async def stop(self): pass
    async def on_peers(self, call, m): raise RuntimeError("a bug")

daemon.main(lambda paths: Buggy())
"""


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    async with Hive() as hive:
        yield hive


async def test_a_bug_is_answered_logged_and_ends_the_process(hive: Hive) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUGGY, env=hive.environment(), stderr=asyncio.subprocess.PIPE
    )
    await hive.wait_for_service("buggy")
    with pytest.raises(InternalError):
        await hive.operator_link.call("buggy", say.Peers())
    _, log = await process.communicate()
    assert process.returncode == 1
    assert b"RuntimeError: a bug" in log


async def test_a_second_one_of_the_same_service_says_so_and_stops(hive: Hive) -> None:
    await hive.start("broker")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.broker", env=hive.environment(), stderr=asyncio.subprocess.PIPE
    )
    _, log = await process.communicate()
    assert process.returncode == 2
    assert b"another broker runs" in log
    await hive.operator_link.call("broker", Ping())


async def test_a_service_that_is_down_is_unavailable_within_two_seconds(hive: Hive) -> None:
    before = time.monotonic()
    with pytest.raises(Unavailable):
        await Broker(hive.operator_link).peers()
    assert time.monotonic() - before < 10  # the bound itself is CALL_SECONDS; this only says it is no hang


async def test_terminating_is_clean(hive: Hive) -> None:
    await hive.start("broker")
    assert await hive.stop("broker") == 0


async def test_a_door_has_no_actor_and_the_bus_has_one(hive: Hive) -> None:
    await hive.start("broker")
    await hive.open_mailbox("iris")
    nobody = hive.link("")
    with pytest.raises(BadRequest, match="actor"):
        await nobody.call("broker", say.Peers())
    iris = await hive.join("iris")
    with pytest.raises(BadRequest, match="has no"):
        await iris.door.call(say.Inbox())


async def test_a_subscriber_that_misses_events_is_told(hive: Hive) -> None:
    await hive.start("broker")
    events = hive.link(OPERATOR).events("broker")
    assert isinstance(await anext(events), Gap)
    first = asyncio.create_task(anext(events))
    for name in ("iris", "ivan", "ida"):
        await asyncio.sleep(0.1)
        await hive.open_mailbox(name)
    assert isinstance(await first, Gap), "some may have been sent before the subscription stood"
    assert isinstance(await anext(events), say.MailboxChanged)
    await hive.kill("broker")
    await hive.start("broker")
    seen: list[object] = []
    while not any(isinstance(event, Gap) for event in seen):
        opening = asyncio.create_task(hive.open_mailbox("anna"))
        seen.append(await anext(events))
        await opening
    await events.aclose()  # type: ignore[attr-defined]
