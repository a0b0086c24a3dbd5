"""What goes through an agent's proxy, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from ipaddress import ip_address
from typing import Any

import h11
import httpx
import pytest

from libhive.problems import NoSpace
from services.gateway.egress import names
from services.gateway.egress.head import HEAD_BYTE_COST
from services.gateway.egress.pace import OPENING_COST, Pace
from services.gateway.store import Store
from tests.gateway.egress.conftest import Scene


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def gone(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(OSError):
        return await asyncio.wait_for(reader.read(), 10) == b""
    return True


async def test_a_listed_host_is_reached_and_it_is_written_down(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    head, (reader, writer) = await scene.connect(f"127.0.0.1:{port}")
    assert head.startswith("HTTP/1.1 200 ")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    (open_one,) = scene.decisions()
    assert (open_one.ended_ms, open_one.bytes_up, open_one.bytes_down) == (0, 5, 5)
    scene.now += 5_000
    writer.write_eof()  # half closed: the other end still speaks
    assert await reader.read() == b""
    await until(lambda: scene.decisions()[0].ended_ms)
    await scene.book.write()
    (kept,) = scene.store.egress.newest("iris", 10).values()
    assert (kept.verdict, kept.reason, kept.host, kept.port) == ("allowed", "listed", "127.0.0.1", port)
    assert (kept.bytes_up, kept.bytes_down, kept.address) == (5, 5, "127.0.0.1")
    assert kept.ended_ms - kept.at_ms == 5_000
    assert [(used.allowed, used.refused) for used in scene.told] == [(1, 0)]


async def test_what_is_not_listed_is_refused_with_a_sentence_and_not_even_looked_up(scene: Scene) -> None:
    await scene.start()
    await scene.let("allow", "a.org:443")
    for target in ("b.org:443", "a.org:80", "x.a.org:443", "127.0.0.1:443"):
        head, (reader, _) = await scene.connect(target)
        assert head.startswith("HTTP/1.1 403 ")
        assert f"{target} is not in the list" in (await reader.read()).decode()
    assert not scene.looked_up
    assert {one.reason for one in scene.decisions()} == {"not-listed"}


async def test_nothing_goes_out_by_default_or_before_lifecycle_has_spoken(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(echo)
    assert (await scene.connect(f"127.0.0.1:{port}"))[0].startswith("HTTP/1.1 403")
    await scene.let("none", f"127.0.0.1:{port}")
    assert (await scene.connect(f"127.0.0.1:{port}"))[0].startswith("HTTP/1.1 403")
    assert {one.reason for one in scene.decisions()} == {"off"}


async def test_a_name_that_changes_its_meaning_changes_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is harmless, each later one is this host. The connection goes to the first."""
    await scene.start()
    port = await scene.host(echo, "127.0.0.9")
    scene.name("rebind.org", "127.0.0.9", public=True)
    await scene.let("allow", f"rebind.org:{port}")
    answers = iter([scene.meaning["rebind.org"]])

    def look_up(host: str) -> Any:
        scene.looked_up.append(host)
        return next(answers, [ip_address("127.0.0.1")])

    monkeypatch.setattr(names, "_look_up", look_up)
    head, (reader, writer) = await scene.connect(f"rebind.org:{port}")
    assert head.startswith("HTTP/1.1 200")
    assert scene.looked_up == ["rebind.org"]
    assert scene.decisions()[0].address == "127.0.0.9"
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    head, (reader, _) = await scene.connect(f"rebind.org:{port}")
    assert head.startswith("HTTP/1.1 403")
    assert f"lists 127.0.0.1:{port} as well" in (await reader.read()).decode()
    assert scene.decisions()[0].reason == "special-address"


async def test_of_several_addresses_only_the_public_ones_are_tried(scene: Scene) -> None:
    await scene.start()
    reached: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("public")

    port = await scene.host(note, "127.0.0.9")
    scene.name("many.org", "127.0.0.9", public=True)
    scene.meaning["many.org"][:0] = [ip_address("127.0.0.1"), ip_address("10.0.0.1")]
    await scene.let("allow", f"many.org:{port}")
    assert (await scene.connect(f"many.org:{port}"))[0].startswith("HTTP/1.1 200")
    await until(lambda: reached)


async def test_a_name_without_an_address_and_a_host_that_is_away(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(echo)
    scene.hosts.pop().close()
    scene.name("away.org", "127.0.0.1", public=True)
    await scene.let("allow", "nowhere.org:443", f"away.org:{port}")
    head, (reader, _) = await scene.connect("nowhere.org:443")
    assert head.startswith("HTTP/1.1 502")
    assert "no address" in (await reader.read()).decode()
    assert (await scene.connect(f"away.org:{port}"))[0].startswith("HTTP/1.1 502")
    assert {one.reason for one in scene.decisions()} == {"unreachable", "no-address"}
    assert {one.verdict for one in scene.decisions()} == {"failed"}


async def test_another_configuration_ends_what_it_does_not_let_out_and_only_that(scene: Scene) -> None:
    await scene.start()
    stays, goes = await scene.host(echo), await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{stays}", f"127.0.0.1:{goes}")
    _, kept = await scene.connect(f"127.0.0.1:{stays}")
    _, cut = await scene.connect(f"127.0.0.1:{goes}")
    await scene.let("allow", f"127.0.0.1:{stays}")
    assert await gone(cut[0])
    kept[1].write(b"still")
    assert await kept[0].readexactly(5) == b"still"
    (ended,) = [one for one in scene.decisions() if one.ended_ms]
    assert (ended.port, ended.detail) == (goes, "cut: its configuration lets this out no more")
    assert (await scene.connect(f"127.0.0.1:{goes}"))[0].startswith("HTTP/1.1 403")


async def test_a_change_that_comes_while_a_name_is_looked_up_counts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.start()
    port = await scene.host(echo, "127.0.0.9")
    scene.name("slow.org", "127.0.0.9", public=True)
    asked, go = threading.Event(), threading.Event()

    def look_up(host: str) -> Any:
        asked.set()
        go.wait(10)
        return scene.meaning[host]

    monkeypatch.setattr(names, "_look_up", look_up)
    await scene.let("allow", f"slow.org:{port}")
    coming = asyncio.create_task(scene.connect(f"slow.org:{port}"))
    await asyncio.to_thread(asked.wait, 10)
    await scene.let("none")
    go.set()
    assert (await coming)[0].startswith("HTTP/1.1 403")
    assert scene.decisions()[0].verdict == "refused"


async def test_a_change_that_comes_while_a_host_is_connected_to_counts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.start()
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    connect = asyncio.open_connection

    async def slow(*arguments: Any, **more: Any) -> Any:
        streams = await connect(*arguments, **more)
        await scene.let("none")
        return streams

    monkeypatch.setattr(asyncio, "open_connection", slow)
    assert (await scene.connect(f"127.0.0.1:{port}"))[0].startswith("HTTP/1.1 403")


async def test_slow_names_are_one_agents_own_trouble(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its look-ups wait for each other; those of others, and the model's in the default pool, do not."""
    await scene.start(egress_lookups_per_agent_max=2, egress_lookup_seconds_max=0.3)
    go, running = threading.Event(), []

    def look_up(host: str) -> Any:
        running.append(host)
        go.wait(10)
        raise OSError

    monkeypatch.setattr(names, "_look_up", look_up)
    await scene.let("learn")
    heads = await asyncio.gather(*(scene.connect(f"n{n}.org:443") for n in range(6)))
    assert all(head.startswith("HTTP/1.1 502") for head, _ in heads)
    assert len(running) == 2, "a thread that nobody waits for any more still counts"
    go.set()


def test_a_host_knows_its_own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names.is_own(ip_address("127.0.0.1"))
    assert not names.is_own(ip_address("192.0.2.7"))
    assert not names.is_own(ip_address("2001:db8::7"))

    def no_ipv6(*arguments: Any) -> Any:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr("socket.socket", no_ipv6)
    assert not names.is_own(ip_address("2001:db8::7"))


# ---- learning


async def test_learning_collects_exactly_what_was_used_and_keeps_it(scene: Scene) -> None:
    await scene.start()
    port, listed = await scene.host(echo, "127.0.0.9"), await scene.host(echo)
    scene.name("used.org", "127.0.0.9", public=True)
    scene.name("down.org", "127.0.0.8", public=True)
    scene.name("inside.org", "127.0.0.1")
    await scene.let("learn", f"127.0.0.1:{listed}", "never-used.org:443")
    for target, status in (
        (f"used.org:{port}", "200"),
        (f"used.org:{port}", "200"),
        (f"127.0.0.9:{port}", "200"),
        (f"inside.org:{listed}", "200"),
        ("down.org:9", "502"),
        (f"inside.org:{port}", "403"),
        ("gone.org:443", "502"),
    ):
        assert (await scene.connect(target))[0].startswith(f"HTTP/1.1 {status}"), target
    learned = [f"127.0.0.1:{listed}", f"127.0.0.9:{port}", f"inside.org:{listed}", f"used.org:{port}"]
    assert scene.policies.learned("iris") == sorted(learned)
    again = Store.open(scene.paths.database("gateway"))
    assert again.egress.learned() == {"iris": set(learned)}
    assert again.egress.specs()["iris"].mode == "learn"
    again.close()

    await scene.let("allow", *learned)
    for target in learned:
        assert (await scene.connect(target))[0].startswith("HTTP/1.1 200"), target
    await scene.let("learn")
    assert scene.policies.learned("iris") == [], "it learns anew"
    assert not scene.store.egress.learned()


async def test_a_list_that_is_full_lets_nothing_more_out(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(echo, "127.0.0.9")
    scene.name("one-more.org", "127.0.0.9", public=True)
    await scene.let("learn")
    await scene.policies.learn(
        scene.proxies._proxies["iris"].owner.agent, {f"a{n}.org:443" for n in range(256)}
    )
    assert (await scene.connect(f"one-more.org:{port}"))[0].startswith("HTTP/1.1 403")
    assert scene.decisions()[0].reason == "learn-full"
    assert len(scene.policies.learned("iris")) == 256


async def test_what_cannot_be_noted_is_not_let_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.start()
    port = await scene.host(echo, "127.0.0.9")
    scene.name("new.org", "127.0.0.9", public=True)
    await scene.let("learn")

    async def full(*arguments: Any) -> None:
        raise NoSpace("the disk is full: this was not stored")

    monkeypatch.setattr(scene.store.egress, "learn", full)
    monkeypatch.setattr(scene.store.egress, "write", full)
    assert (await scene.connect(f"new.org:{port}"))[0].startswith("HTTP/1.1 502")
    assert scene.policies.learned("iris") == []
    await scene.book.write()
    assert [one.reason for one in scene.decisions()] == ["no-space"], "it is told once there is room"
    monkeypatch.undo()
    await scene.book.write()
    assert [one.reason for one in scene.store.egress.newest("iris", 9).values()] == ["no-space"]


# ---- plain HTTP


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = next(
        (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
    )
    body = head.encode() + await reader.readexactly(size)
    writer.write(
        b"HTTP/1.1 200 Fine\r\nContent-Length: %d\r\nKeep-Alive: timeout=5\r\n\r\n%s" % (len(body), body)
    )
    await writer.drain()
    await reader.read()  # a server that keeps the connection open


async def ask(scene: Scene, url: str, **more: Any) -> httpx.Response:
    """As a program does that has HTTP_PROXY: httpx itself takes no unix socket for a proxy."""
    reader, writer = await scene.come()
    body: bytes = more.get("body", b"")
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    method = more.get("method", "POST" if body else "GET")
    writer.write(f"{method} {url} HTTP/1.1\r\nHost: elsewhere.org\r\n{length}\r\n".encode() + body)
    raw = await asyncio.wait_for(reader.read(), 10)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    client.receive_data(b"")
    response, data = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        data += event.data
    assert isinstance(event, h11.EndOfMessage)
    return httpx.Response(response.status_code, headers=list(response.headers), content=data)


async def test_plain_http_goes_by_the_same_list(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(page)
    await scene.let("allow", f"127.0.0.1:{port}")
    got = await ask(scene, f"http://127.0.0.1:{port}/x?y=z", body=b"a body")
    assert got.status_code == 200
    assert got.text.startswith("POST /x?y=z HTTP/1.1\r\n")
    assert f"\r\nhost: 127.0.0.1:{port}\r\n" in got.text.lower()
    assert "elsewhere" not in got.text
    assert got.text.endswith("\r\n\r\na body")
    assert got.headers["connection"] == "close"
    assert "keep-alive" not in got.headers
    refused = await ask(scene, "http://127.0.0.1:1/")
    assert refused.status_code == 403
    assert "127.0.0.1:1 is not in the list" in refused.text
    head = await ask(scene, f"http://127.0.0.1:{port}/", method="HEAD")
    assert head.status_code == 200
    assert [(one.verdict, one.bytes_down > 0) for one in scene.decisions()][-1] == ("allowed", True)


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 304 Same\r\n\r\n", 304, b""),
        (b"SSH-2.0-OpenSSH_9\r\n", 502, None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, 502, None),
        (b"", 502, None),
    ],
)
async def test_what_a_host_answers_comes_framed_anew(
    scene: Scene, said: bytes, status: int, body: bytes | None
) -> None:
    await scene.start()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    port = await scene.host(talk)
    await scene.let("allow", f"127.0.0.1:{port}")
    reader, writer = await scene.come()
    writer.write(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    raw = await asyncio.wait_for(reader.read(), 10)
    final = raw.split(b"\r\n\r\n", 1)[1] if raw.startswith(b"HTTP/1.1 103") else raw
    assert final.startswith(f"HTTP/1.1 {status} ".encode()), raw
    assert body is None or body in final


# ---- limits


async def test_a_head_has_its_time_and_its_size(scene: Scene) -> None:
    await scene.start()
    await scene.let("learn")
    silent, slow, huge = await scene.come(), await scene.come(), await scene.come()
    slow[1].write(b"CONNECT a.org:443 HTT")
    huge[1].write(b"CONNECT a.org:443 HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)
    assert (await asyncio.wait_for(huge[0].read(), 5)).startswith(b"HTTP/1.1 431")
    assert await gone(silent[0])
    assert await gone(slow[0])
    assert {one.reason for one in scene.decisions()} == {"bad-request"}


async def test_one_connection_too_many_is_closed_and_the_others_stay(scene: Scene) -> None:
    await scene.start(egress_connections_per_agent_max=3, egress_head_seconds_max=30)
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    kept = [(await scene.connect(f"127.0.0.1:{port}"))[1] for _ in range(3)]
    for _ in range(5):
        assert await gone((await scene.come())[0])
    for reader, writer in kept:
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
    (many,) = [one for one in scene.decisions() if one.reason == "too-many"]
    assert many.times == 5
    kept[0][1].transport.abort()
    await until(lambda: scene.book.open_count("iris") == 2)
    assert (await scene.connect(f"127.0.0.1:{port}"))[0].startswith("HTTP/1.1 200")


async def test_a_connection_on_which_nothing_happens_ends(scene: Scene) -> None:
    await scene.start(egress_idle_seconds_max=0.3)
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    _, (reader, writer) = await scene.connect(f"127.0.0.1:{port}")
    for _ in range(4):  # longer than the limit in all, and never that long without a byte
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await asyncio.sleep(0.1)
    assert await gone(reader)
    assert scene.decisions()[0].detail == "cut: idle for 0.3 s"


async def test_who_does_not_read_stops_who_writes(scene: Scene) -> None:
    await scene.start()
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    port = await scene.host(flood)
    await scene.let("allow", f"127.0.0.1:{port}")
    await scene.connect(f"127.0.0.1:{port}")
    before = -1
    async with asyncio.timeout(20):
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
    moved = scene.decisions()[0].bytes_down
    assert 0 < moved < 2 << 20, (
        "what is held between the ends is bounded; the rest is in the kernel's buffers"
    )


def test_one_agent_has_its_pace() -> None:
    now = 0.0
    pace = Pace(1 << 20, clock=lambda: now)
    free = 0
    while not pace.take(OPENING_COST):
        free += 1
    assert free == 64
    assert pace.take(1 << 20) == 1.5, "who comes next waits after those who wait"
    now = 100.0
    assert pace.take(OPENING_COST) == 0.0


# ---- the book


async def test_a_head_is_paid_for_before_it_is_parsed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that makes no sense: an agent that sends nothing else would have the loop for itself."""
    spent: list[int] = []

    async def spend(pace: Pace, cost: int) -> None:
        spent.append(cost)

    monkeypatch.setattr(Pace, "spend", spend)
    await scene.start()
    data = b"GET / HTTP/1.1\r\n" + b"H: x\r\n" * 1000 + b"\r\n"
    reader, writer = await scene.come()
    writer.write(data)
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    assert spent[0] == OPENING_COST
    assert sum(spent[1:]) == len(data) * HEAD_BYTE_COST


async def test_a_flood_of_refusals_washes_nothing_else_out(scene: Scene) -> None:
    await scene.start(egress_log_rows_max=3)
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    await scene.connect(f"127.0.0.1:{port}")
    for n in range(12):
        scene.now += 1
        await scene.connect(f"x{n % 6}.org:443")
        if n == 5:
            await scene.book.write()
    await scene.book.write()
    kept = scene.store.egress.newest("iris", 100).values()
    assert len([one for one in kept if one.verdict == "refused"]) == 3
    assert [one.host for one in kept if one.verdict == "allowed"] == ["127.0.0.1"]
    await scene.store.egress.forget(scene.now + 1)
    assert [one.verdict for one in scene.store.egress.newest("iris", 100).values()] == ["allowed"], (
        "it is open"
    )


async def test_a_gateway_that_died_left_nothing_open(scene: Scene) -> None:
    await scene.start()
    port = await scene.host(echo)
    await scene.let("allow", f"127.0.0.1:{port}")
    await scene.connect(f"127.0.0.1:{port}")
    await scene.book.write()
    scene.now += 7
    await scene.book.begin()
    (left,) = scene.store.egress.newest("iris", 1).values()
    assert (left.ended_ms, left.detail) == (scene.now, "the gateway ended")
