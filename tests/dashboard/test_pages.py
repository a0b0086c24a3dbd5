"""The agents' ports, and what of a cage gets through them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libhive.messages import broker, lifecycle
from libhive.names import agent_name
from libhive.paths import Paths
from libhive.problems import BadRequest, Unavailable
from services.dashboard.cagepage import CagePage, clean_event, clean_json
from services.dashboard.settings import Settings
from tests.dashboard.cage import Cage, said
from tests.dashboard.conftest import Dashboard, running
from tests.dashboard.rich import Hive, agent, mail_id
from tests.dashboard.test_feed import events

IRIS = 1101
"""Her port's distance from the dashboard's."""


@pytest_asyncio.fixture(loop_scope="module")
async def cage(paths: Paths) -> AsyncIterator[Cage]:
    cage = await Cage(paths, "iris").start()
    yield cage
    await cage.stop()


async def page(dashboard: Dashboard) -> httpx.AsyncClient:
    port = dashboard.port + IRIS
    await dashboard.until(lambda: "iris" in dashboard.service._pages._open)
    return await dashboard.browser(port)


async def test_nothing_of_the_browsers_reaches_the_cage(dashboard: Dashboard, cage: Cage) -> None:
    browser = await page(dashboard)
    secret = browser.cookies[dashboard.settings.cookie]
    browser.headers["authorization"] = "Bearer mine"
    browser.headers["x-mine"] = secret
    assert (await browser.get("/api/state")).json()["page"]["state"] == "idle"
    assert len((await browser.get("/api/transcript?after=3")).json()["entries"]) == len(cage.entries)
    assert (await browser.post("/api/model", json={"model": "opus"})).status_code == 200
    async with asyncio.timeout(3), browser.stream("GET", "/events/stream") as stream:
        await anext(stream.aiter_raw())
        await dashboard.until(lambda: any(url == "/events/stream" for _, url, _, _ in cage.heard))
    assert [(method, url) for method, url, _, _ in cage.heard] == [
        ("GET", "/api/state"),
        ("GET", "/api/transcript?limit=100&after=3&before=0"),
        ("POST", "/model"),
        ("GET", "/events/stream"),
    ]
    for _, _, headers, body in cage.heard:
        assert not {"cookie", "authorization", "x-mine", "origin", "referer"} & set(headers)
        assert secret not in str(headers)
        assert secret.encode() not in body


async def test_a_cage_gets_no_html_and_no_header_through(dashboard: Dashboard, cage: Cage) -> None:
    cage.state = b"<script>fetch('http://127.0.0.1:7000/api/send')</script>"
    browser = await page(dashboard)
    answer = await browser.get("/api/state")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["page"] is None
    assert "not JSON" in answer.json()["page_problem"]
    assert "stolen" not in str(answer.headers)
    assert "<script" not in (await browser.get("/")).text.replace(
        '<script type="module" src="/static/app/', ""
    )


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"\xff", b"[" * 1000 + b"]" * 1000, b'{"a":' * 30 + b"1" + b"}" * 30, b"NaN", b'"\\ud800"'],
)  # fmt: skip
def test_what_is_not_bearable_json_is_refused(bad: bytes) -> None:
    with pytest.raises(BadRequest):
        clean_json(bad)


def test_json_comes_out_as_our_own_encoding() -> None:
    assert clean_json(b' { "a" : [1, "</script>\xe2\x80\xa8"] } ') == b'{"a":[1,"</script>\xe2\x80\xa8"]}'


@pytest.mark.parametrize(
    ("block", "out"),
    [
        (b'id: 7\nevent: transcript\ndata: {"a": 1}', (b"7", b'id: 7\nevent: transcript\ndata: {"a":1}\n\n')),
        (b"data: 1\ndata: 2", None),
        (b"data: {}", (b"", b"event: message\ndata: {}\n\n")),
        (b"event: away\ndata: {}", (b"", b": \n\n")),
        (b"event: x y\ndata: {}", (b"", b": \n\n")),
        (b'id: 1"><b>\nevent: state\ndata: {}', (b"", b"event: state\ndata: {}\n\n")),
        (b"retry: 1", (b"", b": \n\n")),
        (b": keepalive", (b"", b": \n\n")),
        (b"\x00\xff", (b"", b": \n\n")),
    ],
)
def test_an_event_is_taken_apart_and_put_together(block: bytes, out: tuple[bytes, bytes] | None) -> None:
    if out is None:
        with pytest.raises(BadRequest):
            clean_event(block)
    else:
        assert clean_event(block) == (out[0].decode(), out[1])


async def test_a_huge_or_endless_answer_is_refused(dashboard: Dashboard, cage: Cage) -> None:
    object.__setattr__(dashboard.settings, "page_bytes_max", 100_000)
    cage.state = {"x": "y" * 200_000}
    browser = await page(dashboard)
    assert "more than" in (await browser.get("/api/state")).json()["page_problem"]
    cage.entries = [{"seq": 1, "body": {"x": "y" * 200_000}}]
    assert (await browser.get("/api/transcript")).status_code == 400


async def test_a_socket_that_never_answers_costs_three_seconds_and_nothing_else(
    dashboard: Dashboard, paths: Paths
) -> None:
    object.__setattr__(dashboard.settings, "page_seconds_max", 0.4)
    paths.page_dir(agent_name("iris")).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(paths.page(agent_name("iris"))))
        silent.listen()
        browser = await page(dashboard)
        said = (await browser.get("/api/state")).json()
    assert said["page"] is None
    assert said["agents"][0]["name"] == "iris"
    assert "does not answer" in said["page_problem"]


@pytest.mark.parametrize(
    ("opening", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"1"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 900\r\n\r\n", b"1"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["body", "refusal", "early hints"],
)
async def test_an_answer_that_drips_is_late(paths: Paths, opening: bytes, drip: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(opening)
            while not writer.is_closing():
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.05)

    reader, iris = CagePage(paths, Settings(page_seconds_max=0.4)), agent_name("iris")
    paths.page_dir(iris).mkdir(parents=True)
    server = await asyncio.start_unix_server(serve, paths.page(iris))
    async with server, asyncio.timeout(3):
        with pytest.raises(Unavailable, match="in time"):
            await reader.read(iris, os.geteuid(), "/api/state")
        with pytest.raises(Unavailable, match="in time"):
            await reader.write(iris, os.geteuid(), "/model", {"model": "opus"})


async def test_a_refusal_that_is_not_text_is_a_refusal(paths: Paths) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"code": "x", "message": "\xff\xfe"}'
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    iris = agent_name("iris")
    paths.page_dir(iris).mkdir(parents=True)
    async with await asyncio.start_unix_server(serve, paths.page(iris)):
        with pytest.raises(Unavailable, match="refused: HTTP 500"):
            await CagePage(paths, Settings()).read(iris, os.geteuid(), "/api/state")


async def test_no_link_is_followed_to_another_socket(dashboard: Dashboard, paths: Paths, hive: Hive) -> None:
    """The cage owns the directory: it may put there what it likes."""
    secret = await Cage(paths, "atlas").start()
    place = paths.page(agent_name("iris"))
    place.parent.mkdir(parents=True)
    browser = await page(dashboard)
    place.symlink_to(paths.page(agent_name("atlas")))
    assert (await browser.get("/api/state")).json()["page"] is None
    place.unlink()
    place.write_text("a file")
    assert "not a socket" in (await browser.get("/api/state")).json()["page_problem"]
    place.unlink()
    os.mkfifo(place)
    assert "not a socket" in (await browser.get("/api/state")).json()["page_problem"]
    place.unlink()
    place.parent.rmdir()
    place.parent.symlink_to(paths.page_dir(agent_name("atlas")))
    assert (await browser.get("/api/state")).json()["page"] is None
    assert secret.heard == []
    await secret.stop()


SERVER = """
import os, socket, sys
os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("up", flush=True)
while True:
    c, _ = s.accept(); c.recv(9999); c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}"); c.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
async def test_a_page_served_by_another_user_is_not_the_agents(paths: Paths) -> None:
    directory = paths.page_dir(agent_name("iris"))
    directory.mkdir(parents=True)
    for part in (directory, *directory.parents[:3]):
        part.chmod(0o777)
    environment = {"PYTHONSAFEPATH": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(paths.page(agent_name("iris")))],
        stdout=subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        assert server.stdout
        server.stdout.readline()
        reader = CagePage(paths, Settings())
        with pytest.raises(Unavailable, match="another user"):
            await reader.read(agent_name("iris"), 524288, "/api/state")
        assert await reader.read(agent_name("iris"), 65534, "/api/state") == b"{}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


async def test_the_stream_says_when_the_harness_goes_and_goes_on_when_it_is_back(
    dashboard: Dashboard, cage: Cage, paths: Paths
) -> None:
    object.__setattr__(dashboard.settings, "page_retry_seconds", 0.05)
    browser, seen = await page(dashboard), []
    async with (
        asyncio.timeout(8),
        browser.stream("GET", "/events/stream", params={"after": str(len(cage.entries))}) as stream,
    ):
        reading = events_loosely(stream)
        assert await anext(reading) == ("here", {})
        cage.add("assistant", said({"type": "text", "text": "one"}))
        seen.append((await anext(reading))[1]["seq"])
        await cage.stop()
        assert (await anext(reading))[0] == "away"
        cage.add("assistant", said({"type": "text", "text": "two"}))
        await cage.start()
        async for kind, data in reading:
            if kind == "transcript":
                seen.append(data["seq"])
                break
    assert seen == [18, 19]


async def events_loosely(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    import json

    buffer = ""
    async for text in response.aiter_text():
        buffer += text
        *blocks, buffer = buffer.split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])


async def test_an_agents_port_is_about_that_agent(dashboard: Dashboard, hive: Hive, cage: Cage) -> None:
    browser = await page(dashboard)
    state = (await browser.get("/api/state")).json()
    assert [agent["name"] for agent in state["agents"]] == ["iris"]
    assert all("iris" in (message["sender"], message["recipient"]) for message in state["messages"])
    assert all(proposal["agent"] == "iris" for proposal in state["proposals"])
    assert (await browser.post("/api/send", json={"body": "hi"})).status_code == 200
    assert hive.broker.last(broker.Send) == broker.Send(to=["iris"], body="hi")
    assert (await browser.post("/api/send", json={"to": ["atlas"], "body": "hi"})).status_code == 400
    hers, others = mail_id(202), mail_id(201)
    assert (await browser.post("/api/answer", json={"question": hers, "text": "x"})).status_code == 200
    assert (await browser.post("/api/answer", json={"question": others, "text": "x"})).status_code == 404
    assert (await browser.post("/api/restart", json={})).status_code == 200
    assert hive.lifecycle.last(lifecycle.Restart) == lifecycle.Restart(name="iris")
    assert (await browser.get(f"/api/messages/{mail_id(11)}")).status_code == 404
    for path in ("/api/proposals/7", "/api/agents/atlas/logs", "/api/spawn", "/exec", "/api/exec"):
        assert (await browser.get(path)).status_code in (404, 405)
    assert not any(url == "/exec" for _, url, _, _ in cage.heard)


async def test_its_stream_of_the_hive_is_filtered(dashboard: Dashboard, hive: Hive, cage: Cage) -> None:
    browser = await page(dashboard)
    at = dashboard.service._feed.at
    async with asyncio.timeout(5), browser.stream("GET", "/events/hive", params={"after": at}) as stream:
        hive.lifecycle.publish(lifecycle.AgentChanged(agent=agent("atlas", 2, detail="not hers")))
        hive.lifecycle.publish(lifecycle.AgentChanged(agent=agent("iris", 1, detail="hers")))
        async for _, kind, data in events(stream):
            assert data.get("name") != "atlas"
            if kind == "agent" and data["name"] == "iris":
                break


async def test_ports_come_and_go_with_the_agents(dashboard: Dashboard, hive: Hive) -> None:
    port = dashboard.port + 1105
    stopped = agent("mothership-of-the-long-name-27", 5, desired="stopped", cage="stopped")
    await dashboard.until(lambda: listens(port))
    gone = agent(stopped.name, 5, desired="destroyed", cage="absent")
    hive.lifecycle.publish(lifecycle.AgentChanged(agent=gone))
    await dashboard.until(lambda: not listens(port))
    hive.lifecycle.publish(lifecycle.AgentChanged(agent=stopped))
    await dashboard.until(lambda: listens(port))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_taken_port_is_shown_and_taken_when_it_is_free(
    hive: Hive, paths: Paths, settings: Settings
) -> None:
    object.__setattr__(settings, "ports_retry_seconds", 0.2)
    squatter = socket.create_server(("127.0.0.1", settings.port + IRIS))
    async with running(paths, settings) as dashboard:
        await dashboard.until(lambda: listens(dashboard.port + 1102))
        snapshot = dashboard.service._snapshot
        await dashboard.until(lambda: bool(snapshot._page_problems.get("iris")))
        iris = next(one for one in snapshot.state().agents if one.name == "iris")
        assert "taken" in iris.page_problem
        squatter.close()
        await dashboard.until(lambda: "iris" in dashboard.service._pages._open)
        assert not snapshot._page_problems


async def test_a_port_beyond_the_last_is_shown(paths: Paths, hive: Hive) -> None:
    settings = Settings(port=64_900, ping_seconds=0.1, ping_unwatched_seconds=0.1)
    async with running(paths, settings) as dashboard:
        snapshot = dashboard.service._snapshot
        await dashboard.until(lambda: "HIVE_DASHBOARD_PORT" in snapshot._page_problems.get("iris", ""))


def test_the_front_end_makes_no_markup_out_of_text() -> None:
    """Nothing that could: the policy would refuse it, and then the page would be broken."""
    root = Path(__file__).parent.parent.parent / "services/dashboard/static"
    for path in [*root.glob("app/**/*.js"), *root.glob("*.html")]:
        text = path.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "javascript:",
            "srcdoc",
        ):
            assert word not in text, (path.name, word)
        assert "https://" not in text, path.name
        assert " on" not in text if path.suffix == ".html" else True
