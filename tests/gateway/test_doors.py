from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

HELLO = {"messages": [{"role": "user", "content": "hi"}]}
ROOT = Path(__file__).parents[2]


async def test_a_door_per_open_mailbox(hive: Any, until: Any) -> None:
    hive.broker.set("gone", open=False)
    await hive.start()
    await until(lambda: hive.door("iris").exists() and hive.door("hm1nd").exists())
    assert not hive.door("gone").exists()
    hive.broker.set("bob")
    await until(lambda: hive.door("bob").exists())
    assert (await hive.ask(HELLO, "bob")).status_code == 200
    hive.broker.set("bob", open=False)
    await until(lambda: not hive.door("bob").exists())
    hive.broker.set("bob")
    assert (await hive.ask(HELLO, "bob")).status_code == 200


async def test_doors_stay_while_the_broker_is_away(hive: Any) -> None:
    await hive.start()
    assert (await hive.ask(HELLO)).status_code == 200
    hive.broker.stop()
    assert (await hive.ask(HELLO)).status_code == 200


async def test_doors_come_back_with_the_gateway_while_the_broker_is_away(hive: Any, until: Any) -> None:
    await hive.start()
    await hive.ask(HELLO)
    await until(lambda: hive.door("hm1nd").exists())
    hive.broker.stop()
    await hive.kill()
    await hive.start()
    assert (await hive.ask(HELLO, "hm1nd")).status_code == 200


async def test_what_changed_while_it_was_away_is_found(hive: Any, until: Any) -> None:
    await hive.start()
    await hive.ask(HELLO)
    await hive.kill()
    del hive.broker.mailboxes["iris"]
    hive.broker.set("bob")
    await hive.start()
    await until(lambda: hive.door("bob").exists() and not hive.door("iris").exists())


async def test_it_waits_for_a_broker_that_comes_later(hive: Any, until: Any) -> None:
    hive.broker.stop()
    await hive.start()
    await asyncio.sleep(0.2)
    hive.broker.start()
    await until(lambda: hive.door("iris").exists())


async def test_it_stops_cleanly(hive: Any) -> None:
    await hive.start()
    client = await hive.client()
    await client.post("/v1/messages", json=HELLO)
    assert await hive.stop() == 0
    assert not hive.door("iris").exists()
    assert "Traceback" not in hive.log()


AS_SOMEBODY = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
s = socket.socket(socket.AF_UNIX); s.settimeout(5)
s.connect(sys.argv[3])
try:
    s.sendall(b"POST /v1/messages HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
    print(s.recv(100).decode() or "closed")
except ConnectionError:
    print("closed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_only_the_cages_own_user_is_served(hive: Any, until: Any) -> None:
    uid = 524_288 + 65_536
    hive.broker.set("iris", uid)
    await hive.start()
    await until(lambda: hive.door("iris").exists())
    door = hive.door("iris")
    assert (door.stat().st_mode & 0o777, door.stat().st_gid) == (0o660, uid)
    door.parent.chmod(0o755)  # as if the directory did not keep others out already
    door.chmod(0o666)
    for path in (hive.paths.run, hive.paths.run / "agents"):
        path.chmod(0o755)

    async def said(as_uid: int) -> str:
        argv = [sys.executable, "-I", "-c", AS_SOMEBODY, str(as_uid), str(uid), str(door)]
        done = await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, timeout=20, env={}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert (await said(uid)).startswith("HTTP/1.1 400")
    assert await said(65_534) == "closed\n"
    assert await said(uid + 65_536) == "closed\n"


async def test_bytes_that_are_no_request_do_no_harm(hive: Any) -> None:
    await hive.start()
    await hive.ask(HELLO)
    for data in (b"\0" * 100, b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
                 b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
                 b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"A" * 200_000,
                 b"POST /v1/messages HTTP/1.1\r\nx: \xff\r\ncontent-length: 1000\r\n\r\n{}"):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(hive.door("iris")))
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            await asyncio.sleep(0.05)
    assert (await hive.ask(HELLO)).status_code == 200
    assert hive.process.poll() is None


async def test_bodies_that_are_no_request_are_refused(hive: Any) -> None:
    await hive.start()
    client: httpx.AsyncClient = await hive.client()
    for body in (b"", b"{", b"[]", b'{"messages": 3}', b'{"messages": []}', b"[" * 200_000, b"\xff\xfe"):
        answer = await client.post("/v1/messages", content=body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    too_long = await client.post("/v1/messages", content=b" " * (9 << 20))
    assert too_long.status_code == 413
    assert hive.process.poll() is None


async def test_the_real_broker_tells_it_whom_to_serve(paths: Any, hive: Any, until: Any) -> None:
    """The one test here that runs the broker itself."""
    from libhive.clients.broker import Broker
    from libhive.link import Link

    hive.broker.stop()
    (paths.run / "bus").mkdir(parents=True, exist_ok=True)
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HIVE_RUN_DIR": str(paths.run),
        "HIVE_STATE_DIR": str(paths.state),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.broker", env=env, stderr=subprocess.DEVNULL
    )
    link = Link(paths)
    try:
        await hive.start()
        await until(lambda: _ping(Broker(link)))
        await Broker(link).open_mailbox("iris", os.geteuid())
        await until(lambda: hive.door("iris").exists())
        await Broker(link).close_mailbox("iris")
        await until(lambda: not hive.door("iris").exists())
    finally:
        await link.close()
        process.terminate()
        await process.wait()


async def _ping(broker: Any) -> bool:
    from libhive.problems import Problem

    try:
        await broker.ping()
    except Problem:
        return False
    return True
