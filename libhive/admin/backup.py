"""hive-admin backup: what is durable of the hive, in one file, while the hive runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tarfile
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import msgspec

from libhive.admin import archive
from libhive.admin.session import Session
from libhive.clients.backup import Backup
from libhive.clock import now_ms
from libhive.integrity import check, snapshots
from libhive.messages.backup import BackupBegun
from libhive.problems import AlreadyExists, Conflict, NoSpace, NotAllowed, Problem
from libhive.release import package_version

LEFT_OUT = "the model's credential (hive-admin login), browsers' sessions, logs"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    size_bytes: int
    made_ms: int
    databases: dict[str, archive.Database]
    files: int
    links: int
    skipped: list[str]
    left_out: str = LEFT_OUT


async def backup(session: Session, given: Namespace) -> int:
    target: Path = given.file
    header = archive.Header(
        format=archive.FORMAT,
        hyperhive=package_version(),
        made_ms=now_ms(),
        as_root=archive.is_roots(session.paths.state),
    )
    with session.screen.progress(session.as_json) as step, _in_place_of_nothing(target) as (part, file):
        fetcher = Fetcher(session, step)
        await asyncio.to_thread(fetcher.write, file, header)
        manifest = await asyncio.to_thread(verify, part, lambda size: step("reading it back", size))
    saved = _saved(target, header, manifest)
    if not session.show(saved):
        _render(session, saved)
    return 0


class Fetcher:
    """Writes in a thread what the services hand out in the loop."""

    def __init__(self, session: Session, step: Callable[[str, int], None]) -> None:
        self._link, self._step, self._loop = session.link, step, asyncio.get_running_loop()

    def write(self, file: IO[bytes], header: archive.Header) -> None:
        """The snapshots first, callers before the called, and the repositories right after the rows that speak of
        them. An agent's own files last: they are of no instant anyway."""
        begun: list[tuple[Backup, BackupBegun]] = []
        with _explained():
            writer = archive.Writer(file, header)
            for service in archive.SERVICES:
                source = Backup(self._link, service)
                self._step(f"{service}: taking a snapshot", 0)
                begun.append((source, self._wait(source.begin("database"))))
                if service == "approvals":
                    self._tree(writer, service, "config")
            for source, found in begun:
                about = archive.Database(schema=found.schema, taken_ms=found.taken_ms, rows=found.rows)
                writer.database(source.service, found.size_bytes, about, self._pieces(source))
                self._wait(source.end())
            self._tree(writer, "lifecycle", "agents")
            writer.end()
            file.flush()
            os.fsync(file.fileno())

    def _tree(self, writer: archive.Writer, service: str, prefix: str) -> None:
        source = Backup(self._link, service)
        self._wait(source.begin("files"))
        pieces = self._pieces(source, prefix)
        with tarfile.open(fileobj=pieces, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                member.pax_headers = {}  # they would win over the name that it gets here
                member.name = prefix if member.name == "." else f"{prefix}/{member.name}"
                if not _left_out(member.name):
                    writer.member(member, tar.extractfile(member) if member.isreg() else None)
        while pieces.read(1 << 20):
            pass
        writer.skipped += [f"{prefix}/{sentence}" for sentence in source.skipped]
        self._wait(source.end())

    def _pieces(self, source: Backup, what: str = "database") -> _Pieces:
        def fetch() -> bytes:
            data: bytes = self._wait(source.read())
            self._step(f"{source.service}: {what}", len(data))
            return data

        return _Pieces(fetch)

    def _wait(self, coroutine: Any) -> Any:
        waiting: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return waiting.result()


class _Pieces:
    def __init__(self, fetch: Callable[[], bytes]) -> None:
        self._fetch, self._buffer, self._ended = fetch, b"", False

    def read(self, size: int = -1, /) -> bytes:
        """As much as was asked for, except at the end."""
        while not self._ended and (size < 0 or len(self._buffer) < size):
            piece = self._fetch()
            self._ended = not piece
            self._buffer += piece
        cut = len(self._buffer) if size < 0 else size
        data, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return data


def verify(path: Path, counted: Callable[[int], object] = lambda size: None) -> archive.Manifest:
    """Reads all of it back: hashes, objects of git, and each database as SQLite sees it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".hive-backup-") as place:

        def keep(member: tarfile.TarInfo, content: archive.Readable) -> None:
            if member.name.startswith("databases/"):
                with (Path(place) / member.name.rpartition("/")[2]).open("wb") as copy:
                    while data := content.read(1 << 20):
                        copy.write(data)

        _, manifest = archive.read(path, keep, counted)
        for service, about in manifest.databases.items():
            check_database(Path(place) / f"{service}.sqlite", about)
    return manifest


def check_database(path: Path, about: archive.Database) -> None:
    """Raises Conflict when it is not what the manifest says."""
    fault = check.fault_of(path, immutable=True)
    if not fault and (check.counts(path), check.schema(path)) != (about.rows, about.schema):
        fault = "it has not the rows that it was saved with"
    if fault:
        raise Conflict(
            f"{path.name} in this backup is damaged: {fault}", "nothing was changed; use another file"
        )


@contextlib.contextmanager
def _in_place_of_nothing(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file beside it that only its owner can read; it gets its name when the block ends well, else it is gone."""
    if target.exists() or target.is_symlink():
        raise AlreadyExists(f"{target} is there already", "give another name, or remove it first")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = f"cannot write {target}: {error.strerror}"
        raise NotAllowed(why, "give a file in a directory of yours") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield part, file
        part.rename(target)
        snapshots.sync_directory(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _saved(target: Path, header: archive.Header, manifest: archive.Manifest) -> Saved:
    return Saved(
        file=str(target),
        size_bytes=target.stat().st_size,
        made_ms=header.made_ms,
        databases=manifest.databases,
        files=len(manifest.files) - len(manifest.databases),
        links=len(manifest.links),
        skipped=manifest.skipped,
    )


def _render(session: Session, saved: Saved) -> None:
    screen = session.screen
    rows = sum(sum(found.rows.values()) for found in saved.databases.values())
    screen.say(f"saved and read back: {saved.file}  ({saved.size_bytes / (1 << 20):.1f} MiB)", "green")
    screen.say(f"{len(saved.databases)} databases with {rows} rows, {saved.files} files, {saved.links} links")
    for sentence in saved.skipped:
        screen.head(f"left out: {sentence}", "yellow")
    screen.say(f"not in it: {saved.left_out}", "dim")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, Problem) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            "the disk is full where the backup goes: nothing was kept", "give a file elsewhere"
        ) from None
    except tarfile.TarError as error:
        raise Conflict(f"a service did not send what was expected: {error}", "try again") from None


def _left_out(name: str) -> bool:
    """A lock of a write that is under way, and the repositories of agents that are no more."""
    in_config = name.startswith("config/")
    return in_config and (name.endswith(".lock") or name.split("/")[1] == "archive")
