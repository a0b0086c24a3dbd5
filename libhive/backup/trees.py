"""A directory as a tar, made while it is read. What is in it may be an agent's, who may change it meanwhile: nothing is
followed, nothing but plain files is opened, and every step is from a directory that is held open.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

READ_BYTES = 1 << 18
DEPTH_MAX = 64
ENTRIES_MAX = 1_000_000
SPARSE_BYTES_MIN = 64 << 20
SPARSE_RATIO = 8
SKIPPED_MAX = 1_000
BLOCK = tarfile.BLOCKSIZE
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tree:
    """`skipped` is whole once `pieces` has come to its end."""

    def __init__(self, root: Path) -> None:
        self.root, self.skipped, self.entries = root, list[str](), 0

    def pieces(self) -> Iterator[bytes]:
        """Names are relative to the root, which itself is `.`; a root that is not there has none."""
        try:
            top = os.open(self.root, _OPEN | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            self.device = os.fstat(top).st_dev
            yield from self._directory(top, ".", 0)
        finally:
            os.close(top)
        yield bytes(2 * BLOCK)

    def _directory(self, descriptor: int, name: str, depth: int) -> Iterator[bytes]:
        yield _header(name, os.fstat(descriptor), tarfile.DIRTYPE)
        for entry in sorted(os.listdir(descriptor), reverse=True):  # refs before the objects they lead to
            path = entry if name == "." else f"{name}/{entry}"
            self.entries += 1
            if self.entries > ENTRIES_MAX:
                self._skip(path, f"more than {ENTRIES_MAX} files")
                return
            try:
                yield from self._entry(descriptor, entry, path, depth + 1)
            except OSError as error:  # it went, or became something else, between two looks
                self._skip(path, error.strerror or "cannot be read")

    def _entry(self, parent: int, entry: str, path: str, depth: int) -> Iterator[bytes]:
        found = os.stat(entry, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            yield _header(path, found, tarfile.SYMTYPE, os.readlink(entry, dir_fd=parent))
        elif stat.S_ISDIR(found.st_mode):
            yield from self._below(parent, entry, path, depth)
        elif stat.S_ISREG(found.st_mode):
            yield from self._file(parent, entry, path)
        else:
            self._skip(path, "neither a file nor a directory")

    def _below(self, parent: int, entry: str, path: str, depth: int) -> Iterator[bytes]:
        if depth > DEPTH_MAX:
            self._skip(path, f"deeper than {DEPTH_MAX} directories")
            return
        descriptor = os.open(entry, _OPEN | os.O_DIRECTORY, dir_fd=parent)
        try:
            if os.fstat(descriptor).st_dev != self.device:
                self._skip(path, "another file system")
            else:
                yield from self._directory(descriptor, path, depth)
        finally:
            os.close(descriptor)

    def _file(self, parent: int, entry: str, path: str) -> Iterator[bytes]:
        descriptor = os.open(entry, _OPEN, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                self._skip(path, "neither a file nor a directory")
            elif found.st_size > SPARSE_BYTES_MIN and found.st_blocks * 512 * SPARSE_RATIO < found.st_size:
                self._skip(path, f"{found.st_size} bytes that are mostly holes")
            else:
                yield _header(path, found, tarfile.REGTYPE)
                yield from _content(descriptor, found.st_size)
        finally:
            os.close(descriptor)

    def _skip(self, path: str, why: str) -> None:
        if len(self.skipped) < SKIPPED_MAX:
            self.skipped.append(f"{os.fsencode(path).decode(errors='backslashreplace')}: {why}")


def _header(name: str, found: os.stat_result, kind: bytes, target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    member.mode, member.uid, member.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    member.mtime = int(found.st_mtime)
    member.size = found.st_size if kind == tarfile.REGTYPE else 0
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(descriptor: int, size: int) -> Iterator[bytes]:
    """Exactly as long as the header has said, also when the file grows or shrinks now."""
    left = size
    while left:
        data = os.read(descriptor, min(left, READ_BYTES)) or bytes(min(left, READ_BYTES))
        left -= len(data)
        yield data
    yield bytes(-size % BLOCK)
