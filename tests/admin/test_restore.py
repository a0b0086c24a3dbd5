"""Backups that are not what they should be, and restores that are broken off: the state is as it was, or as it should be."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from libhive.admin import archive, replace
from libhive.integrity import check, recovery, snapshots
from libhive.paths import Paths
from libhive.problems import Conflict, Problem, UnsupportedVersion
from libhive.sqlite import Database

Members = list[tuple[tarfile.TarInfo, bytes]]
OLD, NEW = "was there before", "is in the backup"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A stopped hive that has something to lose."""
    paths = Paths(run=tmp_path / "run", state=tmp_path / "state")
    paths.state.mkdir(mode=0o700)
    for service in archive.SERVICES:
        made_database(paths.database(service), OLD)
        snapshots.take(paths.database(service), 1_000, free_bytes_min=1)
    (paths.state / "agents" / "iris").mkdir(parents=True)
    (paths.state / "agents" / "iris" / "notes").write_text(OLD)
    (paths.state / "config").mkdir()
    (paths.own("gateway") / "credential.json").write_text("secret")
    return paths


def made_database(path: Path, text: str) -> bytes:
    database = Database.open(path, ["CREATE TABLE mail (id TEXT PRIMARY KEY)"])
    database._writer.exec_driver_sql("INSERT INTO mail VALUES (?)", (text,))
    database.close()
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What hive-admin backup would have made of another hive."""
    monkeypatch.setattr(archive, "package_version", lambda: "0.1.0")
    path = tmp_path / "saved.tar.gz"
    header = archive.Header(format=1, hyperhive="0.1.0", made_ms=5, as_root=os.geteuid() == 0)
    with path.open("wb") as raw:
        writer = archive.Writer(raw, header)
        content = made_database(tmp_path / "new" / "new.sqlite", NEW)
        about = archive.Database(schema=1, taken_ms=5, rows={"mail": 1})
        for service in archive.SERVICES:
            writer.database(service, len(content), about, io.BytesIO(content))
        for member, data in files():
            writer.member(member, io.BytesIO(data))
        writer.end()
    return path


def files() -> Members:
    id, packed = git_object(b"blob 5\0hello")
    return [
        (member("config", tarfile.DIRTYPE), b""),
        *((member(f"config/{name}", tarfile.DIRTYPE), b"") for name in ("iris.git", "iris.git/refs")),
        (member("config/iris.git/refs/tags", tarfile.DIRTYPE), b""),
        (member("config/iris.git/refs/tags/deployed-1", data := id.encode() + b"\n"), data),
        (member("config/iris.git/objects", tarfile.DIRTYPE), b""),
        (member(f"config/iris.git/objects/{id[:2]}", tarfile.DIRTYPE), b""),
        (member(f"config/iris.git/objects/{id[:2]}/{id[2:]}", packed), packed),
        (member("agents", tarfile.DIRTYPE), b""),
        (member("agents/iris", tarfile.DIRTYPE, mode=0o700), b""),
        (member("agents/iris/notes", NEW.encode(), mode=0o6750), NEW.encode()),
        (member("agents/iris/locked", tarfile.DIRTYPE, mode=0o500), b""),
        (member("agents/iris/locked/" + "x" * 200, b"deep"), b"deep"),
        (member("agents/iris/way-out", tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
    ]


def git_object(plain: bytes) -> tuple[str, bytes]:
    return hashlib.sha1(plain).hexdigest(), zlib.compress(plain)


def member(name: str, what: bytes, *, mode: int = 0o644, linkname: str = "") -> tarfile.TarInfo:
    """`what` is the content of a plain file, or the type of something else."""
    made = tarfile.TarInfo(name)
    made.mode, made.uid, made.gid, made.linkname = mode, os.geteuid(), os.getegid(), linkname
    if len(what) == 1 and what not in (b"0", b""):
        made.type = what
    else:
        made.size = len(what)
    return made


def restored(paths: Paths, file: Path, now_ms: int = 1_700_000_000_000) -> replace.Restored:
    return replace.restore(paths, file, now_ms, lambda size: None)


def everything(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else b""
        for path in place.rglob("*")
    }


def text_of(paths: Paths, service: str = "broker") -> str:
    with check.connected(paths.database(service)) as connection:
        return str(connection.execute("SELECT id FROM mail").fetchone()[0])


def test_it_is_in_place_and_what_was_there_is_kept(paths: Paths, file: Path) -> None:
    said = restored(paths, file)
    assert [text_of(paths, service) for service in archive.SERVICES] == [NEW] * 5
    notes = paths.state / "agents" / "iris" / "notes"
    assert (notes.read_text(), notes.stat().st_mode & 0o7777) == (NEW, 0o750)
    assert (notes.parent / "locked").stat().st_mode & 0o777 == 0o500
    assert (notes.parent / "way-out").readlink() == Path("/etc/passwd")
    assert paths.database("broker").stat().st_mode & 0o777 == 0o600
    assert (paths.own("gateway") / "credential.json").read_text() == "secret"
    assert not snapshots.newest_first(paths.database("broker"))  # of the state that was there before
    kept = Path(said.kept)
    assert (kept / "agents" / "iris" / "notes").read_text() == OLD
    with check.connected(kept / "broker" / "broker.sqlite") as connection:
        assert connection.execute("SELECT id FROM mail").fetchone() == (OLD,)
    assert not [
        path for path in paths.state.iterdir() if path.name.startswith(".") or path.name == "restoring"
    ]


def test_into_nothing(tmp_path: Path, file: Path) -> None:
    paths = Paths(run=tmp_path / "run", state=tmp_path / "elsewhere" / "state")
    assert restored(paths, file).kept == ""
    assert text_of(paths) == NEW
    assert paths.state.stat().st_mode & 0o777 == 0o700
    assert paths.own("broker").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["broker", "hive.lock"])
def test_never_under_a_running_hive(paths: Paths, file: Path, place: str) -> None:
    (paths.state / "hive.lock").touch()
    held = os.open(paths.state / place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    before = everything(paths.state)
    with pytest.raises(Conflict, match="a hive runs on"):
        restored(paths, file)
    assert everything(paths.state) == before
    os.close(held)
    restored(paths, file)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_changes_nothing(paths: Paths, file: Path, part: float) -> None:
    os.truncate(file, int(file.stat().st_size * part))
    refused(paths, file, "not a whole backup")


def test_a_flipped_bit_changes_nothing(paths: Paths, file: Path) -> None:
    """Some bits of gzip's say the same either way."""
    content, tried = file.read_bytes(), 0
    for position in range(20, len(content), len(content) // 25):
        flipped = bytearray(content)
        flipped[position] ^= 1
        if not same_content(content, bytes(flipped)):
            file.write_bytes(flipped)
            refused(paths, file, "backup")
            tried += 1
    assert tried > 12


def same_content(one: bytes, other: bytes) -> bool:
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (OSError, EOFError, zlib.error):
        return False


def test_something_else_changes_nothing(paths: Paths, file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" * 1000)
    refused(paths, file, "not a whole backup")
    file.write_bytes(gzip.compress(b"hello" * 1000))
    refused(paths, file, "not a whole backup")


Change = Callable[[Members], object]


def at(name: str, change: Callable[[tarfile.TarInfo], object]) -> Change:
    return lambda members: [change(info) for info, _ in members if info.name == name]


def added(info: tarfile.TarInfo, content: bytes = b"") -> Change:
    return lambda members: members.insert(len(members) - 1, (info, content))


def header(**changed: object) -> Change:
    def change(members: Members) -> None:
        text = json.dumps(json.loads(members[0][1]) | changed).encode()
        members[0][0].size = len(text)
        members[0] = members[0][0], text

    return change


def broken_database(members: Members) -> None:
    """Broken before it was saved: its hash is right."""
    index = next(i for i, (info, _) in enumerate(members) if info.name == "databases/broker.sqlite")
    content = members[index][1][:4096] + b"\xa5" * (len(members[index][1]) - 4096)
    members[index] = members[index][0], content
    rehashed(members, "databases/broker.sqlite", content)


def wrong_object(members: Members) -> None:
    index = next(i for i, (info, _) in enumerate(members) if "/objects/" in info.name and info.size)
    content = zlib.compress(b"blob 5\0HELLO")
    members[index][0].size = len(content)
    members[index] = members[index][0], content
    rehashed(members, members[index][0].name, content)


def dangling(members: Members) -> None:
    index = next(i for i, (info, _) in enumerate(members) if "refs/tags/" in info.name)
    content = b"0" * 40 + b"\n"
    members[index] = members[index][0], content
    rehashed(members, members[index][0].name, content)


def rehashed(members: Members, name: str, content: bytes) -> None:
    manifest = json.loads(members[-1][1])
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    text = json.dumps(manifest).encode()
    members[-1][0].size = len(text)
    members[-1] = members[-1][0], text


def links(more: dict[str, str]) -> Change:
    def change(members: Members) -> None:
        manifest = json.loads(members[-1][1])
        manifest["links"] |= more
        text = json.dumps(manifest).encode()
        members[-1][0].size = len(text)
        members[-1] = members[-1][0], text

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "a path upwards": (added(member("agents/iris/../../../x", b"x" * 9), b"x" * 9), "not a path within"),
    "an absolute path": (added(member("/etc/cron.d/x", b"x" * 9), b"x" * 9), "not a path within"),
    "a place that is not the hive's": (added(member("logs/x", b"x" * 9), b"x" * 9), "not a part of"),
    "a database that is not one": (added(member("databases/../x", b"x" * 9), b"x" * 9), "not a path"),
    "a reserved name": (added(member("agents/operator", tarfile.DIRTYPE)), "not of an agent"),
    "a symbolic link": (added(member("agents/iris/x", tarfile.SYMTYPE, linkname="/etc")), "neither a file"),
    "a hard link": (
        added(member("agents/iris/x", tarfile.LNKTYPE, linkname="/etc/passwd")),
        "neither a file",
    ),
    "a device": (added(member("agents/iris/x", tarfile.BLKTYPE)), "neither a file"),
    "a fifo": (added(member("agents/iris/x", tarfile.FIFOTYPE)), "neither a file"),
    "a file in no directory": (added(member("agents/bob/x", b"x" * 9), b"x" * 9), "in no directory"),
    "a file twice": (added(member("agents/iris/notes", b"x" * 9), b"x" * 9), "there twice"),
    "a file that nobody has saved": (
        added(member("agents/iris/x", b"x" * 9), b"x" * 9),
        "not what was saved",
    ),
    "a file missing": (lambda m: m.pop(-2), "not what was saved"),
    "no end": (lambda m: m.pop(), "its end is missing"),
    "something after the end": (
        lambda m: m.append((member("agents/iris/x", b"x" * 9), b"x" * 9)),
        "after its end",
    ),
    "no beginning": (lambda m: m.pop(0), "does not begin"),
    "a newer form": (header(format=2), "newer"),
    "a newer hyperhive": (header(hyperhive="99.0.0"), "newer"),
    "of another kind of user": (header(as_root=os.geteuid() != 0), "hive"),
    "a broken database": (broken_database, "damaged"),
    "an object of another name": (wrong_object, "not the object of its name"),
    "a tag that leads nowhere": (dangling, "not there"),
    "a link through a link": (links({"agents/iris/a": "/etc", "agents/iris/a/b": "x"}), "cannot be a link"),
    "a link in a repository": (links({"config/iris.git/hooks": "/tmp"}), "cannot be a link"),
    "a link upwards": (links({"agents/iris/../x": "/tmp"}), "cannot be a link"),
    "a link in the place of an agent": (links({"agents/bob": "/tmp"}), "cannot be a link"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_nobody_should_trust_changes_nothing(paths: Paths, file: Path, what: str) -> None:
    change, said = CHANGES[what]
    with tarfile.open(file) as tar:
        members = [(info, tar.extractfile(info).read() if info.isreg() else b"") for info in tar]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(file, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    refused(paths, file, said)


def refused(paths: Paths, file: Path, said: str) -> None:
    before = everything(paths.state)
    with pytest.raises(Problem, match=said) as problem:
        restored(paths, file)
    assert isinstance(problem.value, Conflict | UnsupportedVersion)
    assert everything(paths.state) == before


class BrokenOffError(Exception):
    pass


def test_wherever_it_is_broken_off_no_service_starts_until_it_is_finished(
    paths: Paths, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(paths.state)
    monkeypatch.setattr(os, "sync", lambda: None)  # no power is cut here, and it takes its time
    for step in range(200):
        with monkeypatch.context() as broken_off:
            left = broken_after(step, broken_off)
            with contextlib.suppress(BrokenOffError):
                restored(paths, file, step)
        if left():
            break
        if (paths.state / recovery.RESTORING).exists():
            with pytest.raises(Conflict, match="broken off"):
                Database.open(paths.database("broker"), [""])
            with pytest.raises(Conflict, match="finished now"):
                restored(paths, file)
            assert [text_of(paths, service) for service in archive.SERVICES] == [NEW] * 5
            assert (paths.state / "agents" / "iris" / "notes").read_text() == NEW
            assert not (paths.state / recovery.RESTORING).exists()
        else:
            kept = {name: content for name, content in everything(paths.state).items() if name[0] != "."}
            assert step or kept == before
    assert step >= 15


def broken_after(steps: int, patch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Renames go on for so many steps, then none does. Says afterwards whether there were fewer."""
    real, count = Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] > steps:
            raise BrokenOffError
        return real(self, target)

    patch.setattr(Path, "rename", rename)
    return lambda: count[0] <= steps
