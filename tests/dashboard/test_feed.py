"""The stream: resumed where it broke, told when it cannot be, and held up by nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from libhive.clock import now_ms
from libhive.messages import broker
from libhive.problems import TooMany
from services.dashboard.feed import Feed
from services.dashboard.settings import Settings
from tests.dashboard.conftest import Dashboard
from tests.dashboard.rich import DIGEST, Hive, mail_id

SMALL = Settings(ring_events_max=64, ring_bytes_max=100_000, streams_max=5, streams_per_session_max=3)


def feed_with(count: int, settings: Settings = SMALL, size: int = 10) -> Feed:
    feed = Feed(settings)
    for number in range(count):
        feed.publish("line", b"%0*d" % (size, number), frozenset({f"agent-{number % 2}"}))
    return feed


def kinds(chunk: bytes) -> list[str]:
    return [line[7:] for line in chunk.decode().split("\n") if line.startswith("event: ")]


def test_a_watcher_goes_on_after_its_last_id() -> None:
    feed = feed_with(3)
    at = feed.at
    feed.publish("agent", b"{}")
    feed.publish("line", b"{}")
    watcher = feed.watch("s", at)
    assert kinds(feed.take(watcher)) == ["agent", "line"]
    assert feed.take(watcher) == b""


@pytest.mark.parametrize(
    "id", ["", "nonsense", "deadbeef-3", "-1", "{boot}-99", "{boot}-", "{boot}-3x", "{boot}-" + "9" * 99]
)
def test_an_id_that_is_not_ours_is_a_gap(id: str) -> None:
    feed = feed_with(3)
    watcher = feed.watch("s", id.format(boot=feed.at.partition("-")[0]))
    assert kinds(feed.take(watcher)) == ["reset"]
    assert feed.take(watcher) == b""


def test_who_fell_out_of_the_ring_is_told() -> None:
    feed = feed_with(1)
    watcher = feed.watch("s", feed.at)
    for _ in range(100):
        feed.publish("line", b"{}")
    assert kinds(feed.take(watcher)) == ["reset"]
    feed.publish("agent", b"{}")
    assert kinds(feed.take(watcher)) == ["agent"]


def test_the_ring_is_bounded_in_count_and_bytes() -> None:
    feed = feed_with(10_000)
    assert len(feed._ring) <= SMALL.ring_events_max
    feed = feed_with(500, size=9_000)
    assert feed._ring_bytes <= SMALL.ring_bytes_max
    assert feed._ring_bytes == sum(len(entry.chunk) for entry in feed._ring)


def test_a_burst_is_one_chunk_and_a_chunk_is_bounded() -> None:
    feed = Feed(Settings())
    watcher = feed.watch("s", feed.at)
    for _ in range(1000):
        feed.publish("line", b"x" * 1000)
    taken = []
    while chunk := feed.take(watcher):
        taken.append(chunk)
    assert sum(chunk.count(b"event:") for chunk in taken) == 1000
    assert len(taken) <= 5
    assert max(map(len, taken)) < 300_000


def test_an_agents_page_hears_of_its_own_and_of_the_hive() -> None:
    feed = Feed(SMALL)
    watcher = feed.watch("s", feed.at, "iris")
    feed.publish("message", b"1", frozenset({"iris", "atlas"}))
    feed.publish("message", b"2", frozenset({"atlas"}))
    feed.publish("service", b"3")
    assert [line for line in feed.take(watcher).split(b"\n") if line.startswith(b"data")] == [
        b"data: 1",
        b"data: 3",
    ]


def test_streams_are_capped_per_session_and_in_all() -> None:
    feed = Feed(SMALL)
    mine = [feed.watch("me", "") for _ in range(3)]
    with pytest.raises(TooMany):
        feed.watch("me", "")
    feed.watch("you", "")
    feed.watch("you", "")
    with pytest.raises(TooMany):
        feed.watch("they", "")
    feed.leave(mine[0])
    feed.watch("they", "")


# ---- over HTTP


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, str, dict[str, object]]]:
    """(id, kind, data) of each event."""
    buffer = ""
    async for text in response.aiter_text():
        buffer += text
        *blocks, buffer = buffer.split("\n\n")
        for block in blocks:
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":")
            )
            if "event" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])


async def until_message(response: httpx.Response, number: int) -> str:
    """The event's id."""
    async for id, kind, data in events(response):
        if kind == "message" and data["id"] == mail_id(number):
            return id
    raise AssertionError("the stream ended")


def stored(number: int, body: str = "hello") -> broker.MessageStored:
    receipt = broker.Receipt(
        id=mail_id(number),
        sender="iris",
        recipient="atlas",
        kind="message",
        state="stored",
        attempts=0,
        stored_ms=now_ms(),
        body=body,
    )
    return broker.MessageStored(receipt=receipt)


async def test_what_a_service_publishes_reaches_the_browser_and_is_resumed(
    dashboard: Dashboard, hive: Hive
) -> None:
    browser = await dashboard.browser()
    state = (await browser.get("/api/state")).json()
    async with (
        asyncio.timeout(8),
        browser.stream("GET", "/events/stream", params={"after": state["event"]}) as stream,
    ):
        hive.broker.publish(stored(501))
        last = await until_message(stream, 501)
    hive.broker.publish(stored(502))
    hive.broker.publish(stored(503))
    found = []
    async with (
        asyncio.timeout(8),
        browser.stream("GET", "/events/stream", headers={"last-event-id": last}) as stream,
    ):
        async for _, kind, data in events(stream):
            assert kind != "reset"
            if kind == "message":
                found.append(data["id"])
            if len(found) == 2:
                break
    assert found == [mail_id(502), mail_id(503)]


async def test_a_browser_from_before_a_restart_is_told_to_refetch(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    async with (
        asyncio.timeout(5),
        browser.stream("GET", "/events/stream", headers={"last-event-id": "0badboot-17"}) as stream,
    ):
        assert (await anext(events(stream)))[1] == "reset"


async def test_too_many_streams_are_refused_and_the_rest_of_the_dashboard_goes_on(
    dashboard: Dashboard,
) -> None:
    browser = await dashboard.browser()
    browser._transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100))
    feed = dashboard.service._feed
    watchers = [feed.watch(f"s{number}", "") for number in range(dashboard.settings.streams_max)]
    said = await browser.get("/events/stream")
    assert (said.status_code, said.json()["code"]) == (429, "too-many")
    assert (await browser.get("/api/state")).status_code == 200
    for watcher in watchers:
        feed.leave(watcher)


async def test_a_flood_of_streams_leaves_the_buttons_quick(dashboard: Dashboard, hive: Hive) -> None:
    browser = await dashboard.browser()
    cookie = f"{dashboard.settings.cookie}={browser.cookies[dashboard.settings.cookie]}"
    head = f"GET /events/stream HTTP/1.1\r\nHost: 127.0.0.1:{dashboard.port}\r\nCookie: {cookie}\r\n\r\n"

    async def flood() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", dashboard.port)
        writer.write(head.encode())
        return reader, writer, await reader.readline()

    streams = await asyncio.gather(*(flood() for _ in range(300)))
    open_ones = [status for _, _, status in streams if b"200" in status]
    assert len(open_ones) == dashboard.settings.streams_per_session_max
    slowest = 0.0
    for path, form in (("/api/proposals/7/approve", {"digest": DIGEST}), ("/api/agents/iris/stop", {})) * 5:
        begun = asyncio.get_running_loop().time()
        assert (await browser.post(path, json=form)).status_code == 200
        slowest = max(slowest, asyncio.get_running_loop().time() - begun)
    assert slowest < 0.2, slowest
    for reader, writer, status in streams:
        if b"429" in status:
            await reader.read()  # to its end: the refused are hung up on
        writer.close()


async def test_a_browser_that_does_not_read_is_dropped_and_holds_up_nobody(
    dashboard: Dashboard, hive: Hive
) -> None:
    object.__setattr__(dashboard.settings, "stream_send_seconds_max", 2)
    browser = await dashboard.browser()
    cookie = f"{dashboard.settings.cookie}={browser.cookies[dashboard.settings.cookie]}"
    stuck = socket.create_connection(("127.0.0.1", dashboard.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(
        f"GET /events/stream HTTP/1.1\r\nHost: 127.0.0.1:{dashboard.port}\r\nCookie: {cookie}\r\n\r\n".encode()
    )
    feed = dashboard.service._feed
    await dashboard.until(lambda: feed.watchers == 1)

    async def read() -> None:
        async with browser.stream("GET", "/events/stream", params={"after": feed.at}) as stream:
            async for _, kind, _ in events(stream):
                if kind == "agent":
                    return

    reading = asyncio.create_task(read())
    await dashboard.until(lambda: feed.watchers == 2)
    for _ in range(400):
        feed.publish("line", b'"%s"' % (b"x" * 40_000))
        await asyncio.sleep(0.002)
    await dashboard.until(lambda: feed.watchers == 1)
    feed.publish("agent", b"{}")
    async with asyncio.timeout(10):
        await reading
    stuck.close()


async def test_one_event_reaches_many_pages_quickly(dashboard: Dashboard, hive: Hive) -> None:
    object.__setattr__(dashboard.settings, "streams_per_session_max", 60)
    browser = await dashboard.browser()
    browser._transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100))
    at = dashboard.service._feed.at

    async def page() -> float:
        async with browser.stream("GET", "/events/stream", params={"after": at}) as stream:
            await until_message(stream, 700)
        return asyncio.get_running_loop().time()

    pages = [asyncio.create_task(page()) for _ in range(50)]
    await dashboard.until(lambda: dashboard.service._feed.watchers == 50)
    begun = asyncio.get_running_loop().time()
    hive.broker.publish(stored(700))
    took = max(await asyncio.gather(*pages)) - begun
    assert took < 2, took
