"""A hive of real processes in a short temporary directory, ended and removed with its block.

async with Hive() as hive:
    await hive.start("broker")
    await hive.open_mailbox("alice")
    alice = await hive.join("alice")
    await hive.send("operator", "alice", "hi")
    assert [mail.body for mail in await alice.recv()] == ["hi"]
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from libhive.clients.approvals import Approvals
from libhive.clients.broker import Broker
from libhive.clients.dashboard import Dashboard
from libhive.clients.gateway import Gateway
from libhive.clients.lifecycle import Lifecycle
from libhive.clients.updater import Updater
from libhive.door_client import DoorClient
from libhive.link import Link
from libhive.messages import broker as say
from libhive.messages.base import Ping
from libhive.names import HIVE, MANAGER, OPERATOR, AgentName, new_id
from libhive.paths import Paths
from libhive.problems import Unavailable
from libhive.testing import nursery

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 15.0
AGENT_SECONDS_MAX = 60.0
UP_SECONDS_MAX = 60.0
_NOT_YET = ("starting", "failed", "unknown")
SERVICES = ("broker", "gateway", "lifecycle", "approvals", "updater", "dashboard")
KEPT = ("PATH", "LANG", "TZ", "VIRTUAL_ENV", "PYTHONPATH")
"""All that a service of a test sees of the caller's environment."""


class Hive:
    """One hive. `environ` is added to what each of its processes gets. `forked`: its services come from a nursery, for tests
    that start many of them."""

    def __init__(self, environ: Mapping[str, str] | None = None, *, forked: bool = False) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))  # socket paths must stay short
        self.root.chmod(0o755)
        self.paths = Paths(run=self.root / "run", state=self.root / "state")
        self.environ = dict(environ or {})
        self.forked = forked
        self.processes: dict[str, subprocess.Popen[bytes] | nursery.Process] = {}
        self._links: list[Link] = []
        self._guests: list[Guest] = []
        self._ports: Ports | None = None

    async def __aenter__(self) -> Hive:
        self.operator_link, self.hive_link = self.link(OPERATOR), self.link(HIVE)
        self.operator, self.broker = Broker(self.operator_link), Broker(self.hive_link)
        self.lifecycle, self.approvals = Lifecycle(self.operator_link), Approvals(self.operator_link)
        self.updater, self.gateway = Updater(self.operator_link), Gateway(self.operator_link)
        self.dashboard = Dashboard(self.operator_link)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for guest in self._guests:
            await guest.close()
        for link in self._links:
            await link.close()
        for name in reversed(list(self.processes)):
            await self.stop(name)
        if self.paths.own("lifecycle").exists():
            self._sweep()
        if error is not None:
            sys.stderr.write(self.logs())
        if self._ports:
            self._ports.release()
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- processes

    async def start(self, *services: str) -> None:
        """Starts services, and returns when each answers."""
        for service in services:
            self.spawn(service)
        for service in services:
            await self.wait_for_service(service)

    async def start_whole(self) -> None:
        """All six services, until the manager is up. The dashboard and the pages get ports that nobody has."""
        self._settle()
        await self.start(*SERVICES)
        await self.wait_for_agent(MANAGER)

    async def up(self) -> str:
        """The hive as `make up` runs it, from the installed package; returns the one-time link it prints."""
        self._settle()
        self._start("up", "libhive.embedded", "up")
        said = ""
        for _ in range(int(UP_SECONDS_MAX / 0.1)):
            said = (self.root / "up.log").read_text()
            if found := re.search(r"^hive is up: (\S+)$", said, re.MULTILINE):
                return found[1]
            if self.processes["up"].poll() is not None:
                break
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the hive did not come up\n{said}")

    async def pid_of(self, service: str) -> int:
        return (await self.operator_link.call(service, Ping(), timeout_seconds=START_SECONDS_MAX)).pid

    async def kill_and_see_it_back(self, service: str) -> None:
        """SIGKILL; returns when its supervisor has brought up another one."""
        old = await self.pid_of(service)
        os.kill(old, signal.SIGKILL)
        for _ in range(int(START_SECONDS_MAX / 0.2)):
            try:
                if (await self.operator_link.call(service, Ping(), timeout_seconds=0.5)).pid != old:
                    return
            except Unavailable:
                await asyncio.sleep(0.1)
        raise RuntimeError(f"{service} did not come back\n{self.logs()}")

    async def wait_for_agent(self, name: str, seconds: float = AGENT_SECONDS_MAX) -> say.Peer:
        """Until the harness of the agent's newest generation says it is there."""
        for _ in range(int(seconds / 0.1)):
            try:
                agent, peer = await self.lifecycle.agent(name), await self.operator.peer(name)
            except Unavailable:
                continue
            if (
                agent
                and peer
                and peer.connected
                and peer.generation == agent.generation
                and peer.state not in _NOT_YET
            ):
                return peer
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{name} did not come up\n{self.logs()}")

    async def stop(self, service: str) -> int:
        """SIGTERM, and its exit status; SIGKILL when that takes too long."""
        process = self.processes.pop(service)
        process.terminate()
        try:
            return await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)

    async def kill(self, service: str) -> None:
        process = self.processes.pop(service)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)

    async def wait_for_service(self, service: str, seconds: float = START_SECONDS_MAX) -> None:
        for _ in range(int(seconds / 0.5)):
            if (process := self.processes.get(service)) and process.poll() is not None:
                raise RuntimeError(f"{service} ended with {process.returncode}\n{self.logs()}")
            try:
                await self.operator_link.call(service, Ping(), timeout_seconds=0.5)
                return
            except Unavailable:
                continue
        raise RuntimeError(f"{service} did not come up\n{self.logs()}")

    def logs(self) -> str:
        """What every process of this hive has written."""
        found = sorted([*self.root.glob("*.log"), *self.paths.logs.rglob("*.log")])
        return "".join(f"---- {path.name}\n{path.read_text(errors='replace')}" for path in found)

    def _settle(self) -> None:
        """Ports that nobody has, and the pinned CLI."""
        if "HIVE_DASHBOARD_PORT" not in self.environ:
            self._ports = Ports()
            self.environ["HIVE_DASHBOARD_PORT"] = str(self._ports.base)
        self.environ.setdefault("HIVE_CLAUDE", str(_claude()))

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        own = {
            "HIVE_RUN_DIR": str(self.paths.run),
            "HIVE_STATE_DIR": str(self.paths.state),
            "PYTHONSAFEPATH": "1",
        }
        return kept | {"HOME": str(self.root)} | own | self.environ

    def spawn(self, service: str) -> None:
        """Starts the process of a service, without waiting for it; a test may put another one in its place."""
        if self.forked:
            self.fork(service, f"services.{service}")
        else:
            self._start(service, f"services.{service}")

    def fork(self, name: str, module: str) -> nursery.Process:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = found = nursery.start(module, environ=self.environment(), output=log)
        return found

    def _start(self, name: str, *module: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _sweep(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "services.lifecycle.sweep"], env=self.environment(), check=False
        )

    # ---- verbs

    def link(self, actor: str) -> Link:
        link = Link(self.paths, actor)
        self._links.append(link)
        return link

    async def open_mailbox(self, name: str, allowed: list[str] | None = None) -> None:
        await self.broker.open_mailbox(name, os.geteuid(), allowed)

    async def send(self, sender: str, to: str | Sequence[str], body: str) -> str:
        """As the operator; an agent sends by its own guest."""
        assert sender == OPERATOR
        return (await self.operator.send(to, body)).id

    def guest(self, name: str) -> Guest:
        guest = Guest(self.paths, AgentName(name))
        self._guests.append(guest)
        return guest

    async def join(self, name: str) -> Guest:
        """The agent's harness, played by the test: it has said hello and holds the lease."""
        guest = self.guest(name)
        await guest.hello()
        return guest


class Guest:
    """What speaks at an agent's broker door in the place of its harness."""

    def __init__(self, paths: Paths, name: AgentName) -> None:
        self.name = name
        self.door = DoorClient(paths.door(name, "broker"))
        self.lease = ""

    async def hello(self, resume: str = "") -> say.Welcome:
        welcome = await self.door.call(
            say.Hello(generation=1, incarnation=new_id(), version="test", resume=resume)
        )
        self.lease = welcome.lease
        return welcome

    async def send(
        self, to: str | Sequence[str], body: str, in_reply_to: str = "", id: str | None = None
    ) -> say.Sent:
        names = [to] if isinstance(to, str) else list(to)
        return await self.door.call(say.Send(to=names, body=body, in_reply_to=in_reply_to), id=id)

    async def recv(self, wait_ms: int = 0, limit: int = 16) -> list[say.Mail]:
        request = say.Recv(lease=self.lease, wait_ms=wait_ms, limit=limit)
        return (await self.door.call(request, timeout_seconds=5 + wait_ms / 1000)).mail

    async def seen(self, *ids: str, turn: str = "turn") -> None:
        await self.door.call(say.Seen(lease=self.lease, ids=list(ids), turn=turn))

    async def ack(self, *ids: str) -> None:
        await self.door.call(say.Ack(lease=self.lease, ids=list(ids)))

    async def close(self) -> None:
        await self.door.close()


def _claude() -> Path:
    """The pinned CLI, where the set-up puts it beside the virtual environment."""
    given = os.environ.get("HIVE_CLAUDE")
    return Path(given) if given else Path(sys.prefix).parent / ".claude-cli/claude_agent_sdk/_bundled/claude"


class Ports:
    """A dashboard port and its pages', 1000 to 1999 above it, for one hive. Tests that run at the same time keep out of
    each other's way by the name of an abstract socket, which the kernel frees with its process."""

    def __init__(self) -> None:
        self.base = next(base for base in range(20_000, 60_000, 2_000) if self._reserve(base) and _free(base))

    def _reserve(self, base: int) -> bool:
        self._held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._held.bind(f"\0hive-ports-{base}")
        except OSError:
            self._held.close()
            return False
        return True

    def release(self) -> None:
        self._held.close()


def _free(base: int) -> bool:
    try:
        for port in (base, base + 1_000, base + 1_100, base + 1_101):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
