"""A disk that is really full, and one whose fsync really fails, under a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from libhive.integrity import recovery, reserve
from libhive.messages.backup import BeginBackup
from libhive.problems import InternalError, NoSpace, Unavailable
from libhive.testing.hive import Hive

DISK_BYTES = 12 << 20
SENDS_MAX = 2_000
INDEX_GROWS_BYTES = 4_062 * 4_120
"""Of the log: so many pages, each with its header, fit into the first part of its index."""
BODY = "x" * 20_000


class Disk:
    """A small file system of its own at `path`, and a file on it that takes what is left."""

    def __init__(self, path: Path) -> None:
        self.path, self.filler = path, path / "filler"

    def fill(self) -> None:
        with self.filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def free(self) -> None:
        self.filler.unlink()

    def left(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def mounted(path: Path, size: int = DISK_BYTES) -> Iterator[Disk]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can mount a small file system")
    path.mkdir(mode=0o700)
    options = f"size={size},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hive-test", str(path)], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class Rig:
    def __init__(self, hive: Hive, disk: Disk) -> None:
        self.hive, self.disk, self.acknowledged = hive, disk, list[str]()

    async def send(self, body: str = BODY) -> None:
        self.acknowledged.append(await self.hive.send("operator", "alice", body))

    async def send_until_refused(self) -> None:
        with pytest.raises(NoSpace):
            for _ in range(SENDS_MAX):
                await self.send()

    async def stored(self) -> list[str]:
        """Every message to alice, oldest first, as the broker says."""
        found: list[str] = []
        before = ""
        while page := await self.hive.operator.history(agent="alice", before=before, limit=200):
            found += [receipt.id for receipt in page]
            before = page[-1].id
        return found[::-1]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Hive({"HIVE_SNAPSHOT_HOURS": "0"}) as hive:
        with mounted(hive.paths.state) as disk:
            await hive.start("broker")
            await hive.open_mailbox("alice")
            yield Rig(hive, disk)
            for service in list(hive.processes):
                await hive.stop(service)


async def test_on_a_full_disk_sends_are_refused_and_all_else_goes_on(rig: Rig) -> None:
    hive = rig.hive
    alice = await hive.join("alice")
    await rig.send("first")
    pid = await hive.pid_of("broker")
    rig.disk.fill()
    await rig.send_until_refused()

    with pytest.raises(NoSpace, match="not stored"):
        await alice.send("operator", BODY)
    assert await rig.stored() == rig.acknowledged
    assert (await hive.operator.message_status(rig.acknowledged[0]))[0].body == "first"
    assert [peer.name for peer in await hive.operator.peers()] == ["alice"]
    assert await hive.operator.questions() == []

    rig.disk.free()
    await rig.send("after")
    assert [mail.body for mail in await alice.recv(limit=1)] == ["first"]
    assert await hive.pid_of("broker") == pid
    assert await rig.stored() == rig.acknowledged

    rig.disk.fill()
    await rig.send_until_refused()
    assert await hive.stop("broker") == 0


@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_on_a_full_disk_the_broker_comes_up_again(rig: Rig, ending: str) -> None:
    """What a clean stop gives back is taken by somebody else: the reserve is what is left for the start."""
    hive = rig.hive
    assert reserve.reserve_of(hive.paths.database("broker")).exists()
    await rig.send("first")
    rig.disk.fill()
    await rig.send_until_refused()
    await (hive.kill("broker") if ending == "killed" else hive.stop("broker"))
    rig.disk.fill()
    assert rig.disk.left() == 0

    await hive.start("broker")
    assert await rig.stored() == rig.acknowledged
    rig.disk.fill()
    await rig.send_until_refused()
    rig.disk.free()
    await rig.send("after")
    assert await rig.stored() == rig.acknowledged


async def test_when_the_index_of_the_log_cannot_grow_the_broker_ends_and_comes_up_on_the_full_disk() -> None:
    """SQLite grows it once in four thousand pages. What it is writing then may be stored or not, so that is no
    `no-space`; and the start has to make the larger index where nothing is left but the reserve."""
    async with Hive({"HIVE_SNAPSHOT_HOURS": "0"}) as hive:
        with mounted(hive.paths.state, 64 << 20) as disk:
            rig = Rig(hive, disk)
            await hive.start("broker")
            await hive.open_mailbox("alice")
            log = hive.paths.database("broker").with_name("broker.sqlite-wal")
            while log.stat().st_size < INDEX_GROWS_BYTES - (1 << 20):
                await rig.send(BODY)
            disk.fill()
            while hive.processes["broker"].poll() is None:
                assert log.stat().st_size < 2 * INDEX_GROWS_BYTES
                with contextlib.suppress(NoSpace, InternalError, Unavailable):
                    await rig.send(BODY)
                    continue
                os.truncate(disk.filler, disk.filler.stat().st_size - 2 * 4096)
            disk.fill()
            assert disk.left() == 0
            await hive.stop("broker")
            await hive.start("broker")
            assert set(rig.acknowledged) <= set(await rig.stored())
            disk.free()
            await rig.send("after")
            await hive.stop("broker")


FAULTS = {
    "syncs fail": "fsync,fdatasync:error=EIO",
    "one sync fails": "fsync,fdatasync:error=EIO:when=1",
    "writes fail": "pwrite64:error=EIO",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_a_failed_write_the_broker_ends_and_loses_nothing_that_it_confirmed(fault: str) -> None:
    async with Hive({"HIVE_SNAPSHOT_HOURS": "0"}) as hive:
        await hive.start("broker")
        await hive.open_mailbox("alice")
        rig = Rig(hive, Disk(hive.paths.state))
        for number in range(20):
            await rig.send(f"before {number}")
        async with failing(hive.processes["broker"].pid, FAULTS[fault]):
            said = await asyncio.gather(*(rig.send("during") for _ in range(5)), return_exceptions=True)
            assert any(isinstance(outcome, InternalError) for outcome in said), said
            assert await asyncio.to_thread(hive.processes["broker"].wait, 20) == 1
        hive.processes.pop("broker")
        await hive.start("broker")
        assert set(rig.acknowledged) <= set(await rig.stored())
        await rig.send("after")


@contextlib.asynccontextmanager
async def failing(pid: int, injected: str) -> AsyncIterator[None]:
    """System calls of the process and its threads fail, by the hand of strace."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed: deploy/setup has it among the packages for tests"
    tracer = await asyncio.create_subprocess_exec(
        *(
            strace,
            "-f",
            "-p",
            str(pid),
            "-e",
            f"trace={injected.partition(':')[0]}",
            "-e",
            f"inject={injected}",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    while b"attached" not in (line := await tracer.stderr.readline()):
        assert line, "strace could not attach"
    eating = asyncio.create_task(tracer.stderr.read())
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.send_signal(signal.SIGTERM)
        await tracer.wait()
        eating.cancel()


async def test_a_damaged_database_is_replaced_and_the_operator_gets_the_ids_of_what_is_missing() -> None:
    async with Hive() as hive:
        await hive.start("broker")
        await hive.open_mailbox("alice")
        rig = Rig(hive, Disk(hive.paths.state))
        await rig.send("kept")
        await hive.operator_link.call("broker", BeginBackup(), timeout_seconds=30)  # which takes a snapshot
        for number in range(30):
            await rig.send(f"lost {number} {BODY}")
        await hive.stop("broker")
        database = hive.paths.database("broker")
        with database.open("r+b") as file:
            file.seek(-3 * 4096, os.SEEK_END)
            file.write(b"\xa5" * 8192)

        await hive.start("broker")
        (place,) = recovery.set_aside(database)
        (mail,) = [item for item in await hive.operator.inbox() if item.kind == "news"]
        assert "damaged" in mail.body
        assert f"Missing from mail: {len(rig.acknowledged) - 1}" in mail.body
        assert rig.acknowledged[1] in mail.body
        report = (place / "report.json").read_text()
        assert all(id in report for id in rig.acknowledged[1:])
        pong = await hive.operator.ping()
        assert str(place) in pong.details["damaged"]
        assert await rig.stored() == rig.acknowledged[:1]

        await hive.kill("broker")
        await hive.start("broker")
        assert len([item for item in await hive.operator.inbox() if item.kind == "news"]) == 1
