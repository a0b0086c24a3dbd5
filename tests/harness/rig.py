"""A real broker, a real harness with the real CLI, and a scripted model: what the tests of the harness are played on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from libhive.clients.broker import Broker
from libhive.door_client import DoorClient
from libhive.doorway import make_doors
from libhive.link import Link
from libhive.messages.broker import History, MessageStatus, Peers, Receipt, Send
from libhive.names import OPERATOR, AgentName
from libhive.paths import Paths
from libhive.problems import Problem
from libhive.spec import AgentSpec
from libhive.testing import nursery
from tests.harness.api import ScriptedApi

ROOT = Path(__file__).parents[2]
CLAUDE_VERSION = "2.1.330"
SECONDS_MAX = 40.0


def claude() -> Path:
    """The real CLI: HIVE_CLAUDE, else where `make up` puts it."""
    bundled = "claude_agent_sdk/_bundled/claude"
    candidates = [
        os.environ.get("HIVE_CLAUDE", ""),
        str(ROOT / ".claude-cli" / bundled),
    ]
    found = next((Path(path) for path in candidates if path and Path(path).is_file()), None)
    if found is None:
        raise RuntimeError("the tests of the harness need the real CLI: set HIVE_CLAUDE, or run make up once")
    return found


async def until(what: str, check: Callable[[], Any], seconds: float = SECONDS_MAX) -> Any:
    """Polls `check` (plain or async) until it gives something true."""
    deadline = asyncio.get_running_loop().time() + seconds
    found: Any = None
    while asyncio.get_running_loop().time() < deadline:
        found = check()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"never came: {what}; last seen: {found!r}")


class Rig:
    """One run directory with one broker and the agents `iris` (driven by a harness) and `bob` (only a mailbox)."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hh-", dir="/tmp"))
        self.environ = {
            "HIVE_RUN_DIR": str(self.root / "r"), "HIVE_STATE_DIR": str(self.root / "s"), "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        self.paths = Paths.from_environment(self.environ)
        self.link, self.operator = Link(self.paths), Link(self.paths, actor=OPERATOR)
        self.broker: nursery.Process | None = None
        self.harness: asyncio.subprocess.Process | None = None
        self.spec = AgentSpec(prompt="You paint.")
        self.limits: dict[str, Any] = {"recv_wait_ms": 1_000, "drain_seconds_max": 0.2}
        self.agent = AgentName("iris")
        self.generation = 0
        self.more_environ: dict[str, str] = {}
        self.claude = claude()

    async def start(self) -> None:
        make_doors(self.paths.doors(self.agent), os.geteuid())
        self.api = ScriptedApi(self.paths.door(self.agent, "gateway"))
        await self.api.start()
        await self.start_broker()
        for name in (self.agent, AgentName("bob")):
            self.paths.page_dir(name).mkdir(parents=True)
            self.state_of(name).mkdir(parents=True)
            await Broker(self.link).open_mailbox(name, os.geteuid(), None)

    async def stop(self) -> None:
        await end(self.harness)
        if self.broker:
            self.broker.terminate()
            await asyncio.to_thread(self.broker.wait, 15)
        await self.api.stop()
        await self.link.close()
        await self.operator.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def state_of(self, name: str) -> Path:
        return self.paths.agent_state(AgentName(name))

    @property
    def state(self) -> Path:
        return self.state_of(self.agent)

    async def start_broker(self) -> None:
        with (self.root / "broker.log").open("ab") as log:
            self.broker = nursery.start("services.broker", environ=self.environ, output=log)
        await until("the broker", lambda: _answers(Broker(self.link).ping()))

    async def kill_broker(self) -> None:
        assert self.broker is not None
        self.broker.kill()
        await asyncio.to_thread(self.broker.wait)

    async def start_harness(self, *arguments: str, wait: bool = True) -> None:
        self.generation += 1
        spec = self.root / "spec.json"
        spec.write_bytes(msgspec.json.encode(self.spec))
        environ = self.environ | {
            "HIVE_AGENT": self.agent, "HIVE_CLAUDE": str(self.claude), "HIVE_CLAUDE_VERSION": CLAUDE_VERSION,
            "HIVE_DOORS": str(self.paths.doors(self.agent)), "HIVE_GENERATION": str(self.generation),
            "HIVE_PAGE": str(self.paths.page_dir(self.agent)), "HIVE_SPEC": str(spec), "HIVE_STATE": str(self.state),
            "HIVE_DEFAULT_MODEL": self.spec.model, "HIVE_TEST_LIMITS": json.dumps(self.limits),
        } | self.more_environ  # fmt: skip
        log = (self.root / "harness.log").open("ab")
        self.harness = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.harness.limited",
            *arguments,
            env=environ,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        if wait:
            await self.until_state("idle", "waiting-operator")

    async def kill_harness(self) -> None:
        assert self.harness is not None
        self.harness.kill()
        await self.harness.wait()

    @property
    def log(self) -> str:
        return (self.root / "harness.log").read_text(errors="replace")

    # ---- the verbs

    async def send(self, body: str, sender: str = OPERATOR) -> str:
        """A message to the agent, from the operator (over the bus) or from `bob` (through his door)."""
        if sender == OPERATOR:
            return (await self.operator.call("broker", Send(to=[self.agent], body=body))).id
        return (await self.door(sender).call(Send(to=[self.agent], body=body))).id

    def door(self, name: str) -> DoorClient:
        return DoorClient(self.paths.door(AgentName(name), "broker"))

    async def receipt(self, id: str) -> Receipt:
        found = await self.operator.call("broker", MessageStatus(id=id))
        return found.receipts[0]

    async def receipt_in(self, id: str, state: str) -> bool:
        return bool((await self.receipt(id)).state == state)

    async def until_acked(self, id: str) -> Receipt:
        async def acked() -> Receipt | None:
            receipt = await self.receipt(id)
            assert receipt.state != "dead", receipt
            return receipt if receipt.state == "acked" else None

        found: Receipt = await until(f"{id} acked", acked)
        return found

    async def inbox(self, name: str = OPERATOR) -> list[Receipt]:
        """Everything that ever came to `name`, oldest first."""
        found = await self.operator.call("broker", History(agent=name))
        return [receipt for receipt in reversed(found.receipts) if receipt.recipient == name]

    async def peer(self) -> Any:
        peers = (await self.operator.call("broker", Peers())).peers
        return next(peer for peer in peers if peer.name == self.agent)

    async def until_state(self, *states: str) -> Any:
        async def reached() -> Any:
            peer = await self.peer()
            right = peer.connected and peer.state in states and peer.generation == self.generation
            return peer if right else None

        try:
            return await until(f"state {states}", reached)
        except AssertionError as error:
            raise AssertionError(f"{error}; the harness says:\n{self.log[-4000:]}") from error

    async def page(self, method: str, path: str, **more: Any) -> Any:
        transport = httpx.AsyncHTTPTransport(uds=str(self.paths.page(self.agent)))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://page", timeout=30, trust_env=False
        ) as client:
            response = await client.request(method, path, **more)
            return response.json()

    async def transcript(self, kind: str = "") -> list[Any]:
        entries = (await self.page("GET", "/api/transcript", params={"limit": 500}))["entries"]
        return [entry for entry in entries if not kind or entry["kind"] == kind]

    def claude_pids(self) -> list[int]:
        return [
            pid
            for pid in pids_of(str(self.state))
            if b"--session-id" in _argv(pid) or b"--resume" in _argv(pid)
        ]


def pids_of(state: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdecimal()
                and f"HIVE_TENANT={state}\0".encode() in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
    return found


def _argv(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


async def end(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answers(call: Any) -> bool:
    try:
        await call
    except Problem:
        return False
    return True
