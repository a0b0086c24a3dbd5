"""The file of a backup: a tar.gz whose first member says what it is, and whose last has the hash of every other.

    hyperhive-backup.json   databases/<service>.sqlite   config/<agent>.git/...   agents/<agent>/...   manifest.json

There are plain files and directories in it, and nothing else. Symbolic links, which agents do have in their state,
stand in the manifest and are made last of all, so that nothing is ever written through one.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import msgspec

from libhive.admin.gitcheck import Repositories
from libhive.names import agent_name
from libhive.problems import Conflict, NoSpace, Problem, UnsupportedVersion
from libhive.release import package_version

S = TypeVar("S", bound=msgspec.Struct)

FORMAT = 1
HEADER, MANIFEST = "hyperhive-backup.json", "manifest.json"
SERVICES = ("updater", "gateway", "approvals", "lifecycle", "broker")
"""In the order of their snapshots: who calls comes before who is called, so that what a caller has noted as done was done."""
HEADER_BYTES_MAX = 64 << 10
MANIFEST_BYTES_MAX = 512 << 20
PATH_BYTES_MAX = 3_000
COMPRESSION = 1
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    hyperhive: str
    made_ms: int
    as_root: bool
    """Whether the agents' files belong to users of their own."""


def is_roots(state: Path) -> bool:
    """Whether this state is of a hive that gives its agents users of their own: one that root runs, or has installed."""
    try:
        return state.stat().st_uid == 0
    except OSError:
        return os.geteuid() == 0


class Database(msgspec.Struct, frozen=True, kw_only=True):
    schema: int
    taken_ms: int
    rows: dict[str, int]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    files: dict[str, str]
    links: dict[str, str]
    databases: dict[str, Database]
    skipped: list[str]


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


Keep = Callable[[tarfile.TarInfo, Readable], object]
"""Does with a member what it likes; what it leaves unread is read for it."""


class Hashed:
    """Hashes what is read through it, and counts it."""

    def __init__(self, source: Readable, counted: Callable[[int], object] = lambda size: None) -> None:
        self._source, self._hash, self._counted = source, hashlib.sha256(), counted

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._counted(len(data))
        return data

    def digest(self) -> str:
        while self.read(1 << 20):
            pass
        return self._hash.hexdigest()


class Writer:
    def __init__(self, file: IO[bytes], header: Header) -> None:
        self._packed = gzip.GzipFile("", mode="wb", compresslevel=COMPRESSION, fileobj=file, mtime=0)
        self._tar = tarfile.TarFile(fileobj=self._packed, mode="w", format=tarfile.PAX_FORMAT)
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.databases: dict[str, Database] = {}
        self.skipped: list[str] = []
        self._text(HEADER, msgspec.to_builtins(header))

    def database(self, service: str, size: int, about: Database, source: Readable) -> None:
        member = tarfile.TarInfo(f"databases/{service}.sqlite")
        member.size, member.mode = size, 0o600
        self.databases[service] = about
        self.member(member, source)

    def member(self, member: tarfile.TarInfo, source: Readable | None) -> None:
        """A name that could not be restored is left out, and said."""
        if fault := fault_of_name(member.name, is_directory=member.isdir()):
            self.skipped.append(f"{_shown(member.name)}: {fault}")
        elif member.issym():
            self.links[member.name] = member.linkname
        elif member.isdir():
            self._tar.addfile(member)
        else:
            assert source is not None
            hashed = Hashed(source)
            self._tar.addfile(member, hashed)
            self.files[member.name] = hashed.digest()

    def end(self) -> Manifest:
        manifest = Manifest(
            files=self.files, links=self.links, databases=self.databases, skipped=self.skipped
        )
        self._text(MANIFEST, msgspec.to_builtins(manifest))
        self._tar.close()
        self._packed.close()
        return manifest

    def _text(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1).encode()
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(text), 0o600
        self._tar.addfile(member, io.BytesIO(text))


def read(
    path: Path, keep: Keep, counted: Callable[[int], object] = lambda size: None
) -> tuple[Header, Manifest]:
    """The whole of a backup, each file compared with its hash, each object of git with its name.

    Raises Conflict for what is not a whole backup, UnsupportedVersion for a newer one. What `keep` was given before
    that is worth nothing.
    """
    with _explained(path), gzip.open(path) as packed:
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            members = iter(tar)
            header = _header(tar, next(members, None))
            found, directories, repositories = dict[str, str](), set[str](), Repositories()
            for member in members:
                if member.name == MANIFEST:
                    break
                _check_member(member, found, directories)
                if member.isdir():
                    directories.add(member.name)
                    keep(member, io.BytesIO())
                else:
                    hashed = Hashed(_content(tar, member), counted)
                    keep(member, repositories.watched(member.name, hashed))
                    found[member.name] = hashed.digest()
            else:
                raise ValueError("its end is missing")
            manifest = _json(_content(tar, member), MANIFEST_BYTES_MAX, Manifest)
            if next(members, None) is not None:
                raise ValueError("something comes after its end")
        while packed.read(1 << 20):  # to the checksum at the very end
            pass
        _check_manifest(manifest, found, directories)
        repositories.check()
    return header, manifest


def fault_of_name(name: str, *, is_directory: bool = False) -> str:
    """Why nothing of this name can be part of a backup; empty when it can."""
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") or "\0" in part for part in parts)
        or len(os.fsencode(name)) > PATH_BYTES_MAX
    ):
        return "not a path within the hive's state"
    if parts[0] in ("config", "agents") and len(parts) == 1:
        return "" if is_directory else "not a directory"
    if parts[0] == "databases":
        known = len(parts) == 2 and parts[1] in [f"{service}.sqlite" for service in SERVICES]
        return "" if known and not is_directory else "not a database of a hive"
    if parts[0] not in ("config", "agents"):
        return "not a part of the hive's state"
    agent = parts[1].removesuffix(".git") if parts[0] == "config" else parts[1]
    with contextlib.suppress(Problem):
        if agent == agent_name(agent) and (parts[0] == "agents" or parts[1].endswith(".git")):
            return "" if is_directory or len(parts) > 2 else "not a directory"
    return "not of an agent"


def _header(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Header:
    if member is None or member.name != HEADER or member.type not in PLAIN:
        raise ValueError("it does not begin as a backup does")
    header = _json(_content(tar, member), HEADER_BYTES_MAX, Header)
    if header.format > FORMAT or _is_newer(header.hyperhive, package_version()):
        raise UnsupportedVersion(
            f"this backup was made by hyperhive {header.hyperhive}, which is newer than this one",
            "restore it with that version, or a newer one",
        )
    return header


def _check_member(member: tarfile.TarInfo, files: dict[str, str], directories: set[str]) -> None:
    if member.type not in (*PLAIN, tarfile.DIRTYPE) or member.sparse is not None:
        raise ValueError(f"{_shown(member.name)} is neither a file nor a directory")
    if fault := fault_of_name(member.name, is_directory=member.isdir()):
        raise ValueError(f"{_shown(member.name)}: {fault}")
    if member.name in files or member.name in directories:
        raise ValueError(f"{_shown(member.name)} is there twice")
    parent = member.name.rpartition("/")[0]
    if parent not in directories and parent not in ("", "databases"):
        raise ValueError(f"{_shown(member.name)} is in no directory of it")


def _check_manifest(manifest: Manifest, found: dict[str, str], directories: set[str]) -> None:
    for name in sorted(manifest.files.keys() | found.keys()):
        if manifest.files.get(name) != found.get(name):
            raise ValueError(f"{_shown(name)} is not what was saved")
    if set(manifest.databases) != set(SERVICES):
        raise ValueError("a database is missing")
    for name in manifest.links:
        is_agents = name.startswith("agents/") and name.count("/") > 1
        if not is_agents or fault_of_name(name) or name.rpartition("/")[0] not in directories:
            raise ValueError(f"{_shown(name)} cannot be a link")
        if name in found or name in directories:
            raise ValueError(f"{_shown(name)} is there twice")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise Conflict(
            f"{path} is not a whole backup of a hive: {_shown(str(error)) or type(error).__name__}",
            "nothing was changed; use another file",
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left beside {path.name} or where it goes; nothing was changed") from None
        raise Conflict(f"{error.filename or path}: {error.strerror}") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise ValueError(f"{_shown(member.name)} has no content")
    return content


def _json(source: Readable, bytes_max: int, kind: type[S]) -> S:
    """By Python's own reader, which keeps a file's name that is not UTF-8 as it is."""
    data = source.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ValueError("what it says of itself is too long")
    return msgspec.convert(json.loads(data), kind)


def _is_newer(version: str, ours: str) -> bool:
    """Of two releases; what runs from a bare checkout has no number to compare."""
    if "+source" in (version + ours):
        return False
    numbers = ([int(part) for part in text.split(".") if part.isdigit()] for text in (version, ours))
    return next(numbers) > next(numbers)


def _shown(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()[:300]
