"""What every service hands out and looks after, through the daemon's own handlers on real files."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from libhive.backup.custodian import Custodian, Settings
from libhive.backup.streams import CHUNK_BYTES, STREAMS_MAX, Streams
from libhive.backup.trees import DEPTH_MAX, Tree
from libhive.integrity import check, recovery, snapshots
from libhive.messages.backup import BeginBackup, EndBackup, ReadBackup
from libhive.paths import Paths
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, Problem, TooMany
from libhive.sqlite import Database

TABLE = "CREATE TABLE mail (id TEXT PRIMARY KEY, body TEXT)"


@dataclass
class By:
    caller: str = "operator"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(run=tmp_path / "run", state=tmp_path)


def custodian(paths: Paths, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Custodian:
    monkeypatch.setattr(snapshots.take, "__kwdefaults__", {"free_bytes_min": 1})
    return Custodian("broker", paths, {}, Settings(**settings))


async def drained(streams: Streams, stream: str, start: int = 0) -> tuple[bytes, list[str]]:
    gathered = b""
    while True:
        chunk = await streams.on_read(By(), ReadBackup(stream=stream, offset=start + len(gathered)))
        gathered += chunk.data
        if chunk.last:
            return gathered, chunk.skipped


# ---- files of an agent


def tree(root: Path) -> tuple[dict[str, tarfile.TarInfo], dict[str, bytes], list[str]]:
    read = Tree(root)
    content = io.BytesIO(b"".join(read.pieces()))
    with tarfile.open(fileobj=content) as tar:
        members = {member.name: member for member in tar}
        files = {name: tar.extractfile(info).read() for name, info in members.items() if info.isreg()}  # type: ignore[union-attr]
    return members, files, read.skipped


def test_a_tree_is_read_as_it_is_and_nothing_in_it_is_followed(tmp_path: Path) -> None:
    root, secret = tmp_path / "state", tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("sk-ant-secret")
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "empty").touch()
    (root / "notes" / "large").write_bytes(bytes(range(256)) * 5_000)
    (root / "out").symlink_to(secret)
    (root / "notes" / "key").symlink_to(secret / "key")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff")).write_text("a name that is not UTF-8")
    (root / ("n" * 250)).write_text("a long one")
    members, files, skipped = tree(root)
    assert files["notes/large"] == bytes(range(256)) * 5_000
    assert files["notes/empty"] == b""
    assert (members["out"].issym(), members["out"].linkname) == (True, str(secret))
    assert members["notes/key"].issym()
    assert skipped == ["pipe: neither a file nor a directory"]
    assert not [name for name, content in files.items() if b"sk-ant" in content]
    assert set(members) == {
        ".",
        "notes",
        "notes/empty",
        "notes/large",
        "notes/key",
        "out",
        "n" * 250,
        "\udcff",
    }


def test_what_would_never_end_is_left_out_and_said(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(DEPTH_MAX + 5):
        deep = deep / "d"
        deep.mkdir()
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 40)
    members, _, skipped = tree(tmp_path)
    assert "holes" not in members
    assert [sentence.partition(": ")[2] for sentence in skipped] == [
        f"{1 << 40} bytes that are mostly holes",
        f"deeper than {DEPTH_MAX} directories",
    ]


def test_a_directory_that_becomes_a_link_under_our_eyes_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, secret = tmp_path / "state", tmp_path / "secret"
    for place in (root / "b", root / "a", secret):
        place.mkdir(parents=True)
    (secret / "key").write_text("sk-ant-secret")
    real = os.stat

    def swapped(path: Any, **how: Any) -> os.stat_result:
        found = real(path, **how)
        if path == "a":  # after the look at it, before it is opened
            (root / "a").rmdir()
            (root / "a").symlink_to(secret)
        return found

    monkeypatch.setattr(os, "stat", swapped)
    members, files, skipped = tree(root)
    assert (set(members), files) == ({".", "b"}, {})
    assert skipped[0].startswith("a: ")


def test_a_file_that_shrinks_or_grows_meanwhile_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x" * 2_000_000)
    (tmp_path / "a").write_bytes(b"y" * 100)
    read, gathered = Tree(tmp_path), b""
    for piece in read.pieces():
        gathered += piece
        if len(gathered) > 300_000 and (tmp_path / "b").stat().st_size > 400_000:
            os.truncate(tmp_path / "b", 400_000)
            (tmp_path / "a").write_bytes(b"y" * 1_000_000)
    with tarfile.open(fileobj=io.BytesIO(gathered)) as tar:
        sizes = {member.name: member.size for member in tar}
    assert sizes == {".": 0, "b": 2_000_000, "a": 1_000_000}


# ---- streams


async def test_a_database_comes_whole_in_pieces_also_when_a_reply_was_lost(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(paths.database("broker"), [TABLE])
    await database.write(lambda c: c.exec_driver_sql("INSERT INTO mail VALUES ('a', ?)", ("x" * 3_000_000,)))
    keeper = custodian(paths, monkeypatch)
    streams = keeper.streams
    begun = await streams.on_begin(By(), BeginBackup())
    await database.write(lambda c: c.exec_driver_sql("INSERT INTO mail VALUES ('later', '')"))
    assert begun.rows == {"mail": 1}
    first = await streams.on_read(By(), ReadBackup(stream=begun.stream, offset=0))
    assert await streams.on_read(By(), ReadBackup(stream=begun.stream, offset=0)) == first
    for path in snapshots.newest_first(paths.database("broker")):  # pushed out by newer ones meanwhile
        path.unlink()
    rest, _ = await drained(streams, begun.stream, CHUNK_BYTES)
    copy = paths.state / "copy.sqlite"
    copy.write_bytes(first.data + rest)
    assert copy.stat().st_size == begun.size_bytes
    assert check.fault_of(copy, immutable=True) == ""
    with pytest.raises(Conflict):
        await streams.on_read(By(), ReadBackup(stream=begun.stream, offset=5))
    await streams.on_end(By(), EndBackup(stream=begun.stream))
    with pytest.raises(NotFound):
        await streams.on_read(By(), ReadBackup(stream=begun.stream, offset=0))
    database.close()


async def test_backups_are_the_operators_and_of_what_there_is(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = custodian(paths, monkeypatch).streams
    for caller in ("iris", "hive"):
        with pytest.raises(NotAllowed):
            await streams.on_begin(By(caller), BeginBackup())
        with pytest.raises(NotAllowed):
            await streams.on_read(By(caller), ReadBackup(stream="x" * 26, offset=0))
    for part in ("database", "files"):
        with pytest.raises(BadRequest):
            await streams.on_begin(By(), BeginBackup(part=part))  # type: ignore[arg-type]


async def test_streams_that_nobody_reads_are_given_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams("lifecycle", paths, custodian(paths, monkeypatch).snapshot)
    for _ in range(STREAMS_MAX):
        await streams.on_begin(By(), BeginBackup(part="files"))
    with pytest.raises(TooMany):
        await streams.on_begin(By(), BeginBackup(part="files"))
    for stream in streams._open.values():
        stream.used_ms = 0
    begun = await streams.on_begin(By(), BeginBackup(part="files"))
    assert await drained(streams, begun.stream) == (b"", [])


# ---- the custodian


async def test_snapshots_are_taken_when_due_and_something_changed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(paths.database("broker"), [TABLE])
    keeper = custodian(paths, monkeypatch, snapshot_hours=1.0, snapshots_kept=2)
    now = [1_700_000_000_000]
    monkeypatch.setattr("libhive.backup.custodian.now_ms", lambda: now[0])
    path = paths.database("broker")

    async def turns(hours: float, changed_ms: int) -> int:
        now[0] += int(hours * 3_600_000)
        os.utime(path, (changed_ms / 1000, changed_ms / 1000))
        os.utime(path.with_name("broker.sqlite-wal"), (1, 1))
        await keeper._snapshot_when_due()
        return len(snapshots.newest_first(path))

    assert await turns(0, now[0]) == 1
    assert await turns(0.9, now[0] + 1) == 1
    assert await turns(0.2, 5) == 1  # nothing has changed
    assert await turns(0, now[0]) == 2
    assert await turns(2, now[0] + 7_000_000) == 2  # the oldest has gone
    assert "snapshot" in keeper.details
    database.close()


async def test_no_snapshot_is_said_and_then_taken_back(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    Database.open(paths.database("broker"), [TABLE]).close()
    keeper = custodian(paths, monkeypatch)
    with monkeypatch.context() as short:
        short.setattr(snapshots.take, "__kwdefaults__", {"free_bytes_min": 1 << 60})
        await keeper._snapshot_when_due()
    assert "no room" in keeper.details["no_snapshot"]
    await keeper._snapshot_when_due()
    assert "no_snapshot" not in keeper.details


async def test_damage_in_a_large_database_ends_the_process_and_is_remembered(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths.database("broker")
    database = Database.open(path, [TABLE])
    await database.write(lambda c: c.exec_driver_sql("INSERT INTO mail VALUES ('a', ?)", ("x" * 100_000,)))
    database.close()
    keeper = custodian(paths, monkeypatch)
    await keeper.snapshot()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 4096 * 4)
    monkeypatch.setattr(recovery, "SMALL_BYTES_MAX", 1_000)
    Database.open(path, [TABLE]).close()  # it is only glanced at
    with pytest.raises(check.Damaged):
        await keeper.run(None)
    assert recovery.suspicion(path).exists()
    Database.open(path, [TABLE]).close()
    assert recovery.reports(path) == []  # of a large one it is written while it serves
    serving = asyncio.create_task(custodian(paths, monkeypatch).run(None))
    while not recovery.reports(path):
        await asyncio.sleep(0.01)
        assert not serving.done()
    serving.cancel()
    ((_, report),) = recovery.reports(path)
    assert report.missing == {}


async def test_damage_that_a_handler_meets_is_remembered(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths.database("broker")
    Database.open(path, [TABLE]).close()
    keeper = custodian(paths, monkeypatch)
    keeper.noticed(ValueError("a bug"))
    assert not recovery.suspicion(path).exists()
    keeper.noticed(check.Damaged("x"))
    assert recovery.suspicion(path).exists()


async def test_nobody_restores_under_a_service_nor_starts_under_a_restore(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from libhive.admin import replace

    Database.open(paths.database("broker"), [TABLE]).close()
    keeper = custodian(paths, monkeypatch)
    keeper.hold()
    with pytest.raises(Conflict, match="a hive runs"), replace.alone(paths):
        pass
    keeper.let_go()
    with replace.alone(paths), pytest.raises(Conflict, match="being restored"):
        keeper.hold()
    keeper.hold()
    keeper.let_go()


@pytest.mark.parametrize("text", ["x", "-1", "nan", "1e9"])
def test_settings_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(Problem, match="HIVE_SNAPSHOT_HOURS"):
        Settings.from_environment({"HIVE_SNAPSHOT_HOURS": text})
    assert Settings.from_environment({}).snapshots_kept == 3


async def test_the_loop_goes_on_while_a_snapshot_is_taken(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(paths.database("broker"), [TABLE])
    for number in range(8):
        body = ("x" * 4_000_000, f"m{number}")
        await database.write(lambda c, b=body: c.exec_driver_sql("INSERT INTO mail VALUES (?, ?)", b[::-1]))  # type: ignore[misc]
    keeper = custodian(paths, monkeypatch)
    monkeypatch.setattr(snapshots, "BYTES_PER_SECOND_MAX", 64 << 20)
    taking = asyncio.create_task(keeper.snapshot())
    written = 0
    while not taking.done():
        body = ("y", f"n{written}")
        await database.write(lambda c, b=body: c.exec_driver_sql("INSERT INTO mail VALUES (?, ?)", b[::-1]))  # type: ignore[misc]
        written += 1
    assert written > 20
    assert 8 <= check.counts(taking.result())["mail"] < 8 + written
    database.close()
