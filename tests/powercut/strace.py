"""strace's output -> what happened to the files of one directory, and which replies left through a door, in order."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgpack

from libhive import wire

_FILE_CALLS = (
    *("openat", "open", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "lseek", "ftruncate"),
    *("truncate", "fallocate", "fsync", "fdatasync", "unlink", "unlinkat", "rename", "renameat", "renameat2"),
)
_NOT_MODELLED = ("mmap", "sendfile", "copy_file_range", "splice", "sync_file_range", "link", "linkat")
_SENDS = ("write", "writev", "sendto", "sendmsg")
CALLS = ",".join((*_FILE_CALLS, *_NOT_MODELLED, "sendto", "sendmsg"))
STRING_BYTES_MAX = 64 << 20

_LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))", re.DOTALL)
_DONE = re.compile(r"(.*)\) += (-?\d+)[^=\"]*$", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_FD = re.compile(r"(\d+)<([^>]*)>")
_SOCKET = re.compile(r"socket:\[\d+\]")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Write:
    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Covers what had been done to the file when the call began, at event `since`."""

    file: int
    since: int


@dataclass(frozen=True, slots=True)
class Name:
    """A directory entry: `name` is `file` from now on, or nothing; a rename is two of them that go together."""

    names: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class SyncNames:
    since: int


@dataclass(frozen=True, slots=True)
class Said:
    """A reply that left through a door."""

    id: str
    ok: bool
    body: dict[str, object]


Event = Write | Resize | Sync | Name | SyncNames | Said


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    arguments: str
    result: int
    began: int
    ended: int

    def fd(self) -> tuple[int, str]:
        found = _FD.match(self.arguments)
        return (int(found[1]), _text(found[2])) if found else (-1, "")

    def data(self) -> bytes:
        """All strings of the call, one after the other."""
        parts = self.arguments.split('"')
        assert not any(part.startswith("...") for part in parts[2::2]), f"{self.name}: strace cut it short"
        return b"".join(bytes.fromhex(part.replace("\\x", "")) for part in parts[1::2])

    def number(self, position: int) -> int:
        """A numeric argument, counted from the last one (-1)."""
        return int(self.arguments.rsplit(",", -position)[position])


@dataclass
class Reader:
    """Reads the traces of one broker's lives, one after the other; files and names go on from life to life."""

    directory: str
    events: list[Event] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=list)
    _open: dict[int, _Open] = field(default_factory=dict)
    _doors: dict[str, bytearray | None] = field(default_factory=dict)

    def read(self, trace: Path) -> None:
        self._open, self._doors = {}, {}
        places = [(-1, len(self.events))]  # (line of the trace, events when it had been read)
        for call in sorted(_calls(trace, _hex(self.directory)), key=_instant):
            if _says(call):
                self._say(call)
            elif call.result >= 0:
                self._touch(call, _events_at(places, call.began))
            places.append((_instant(call), len(self.events)))

    # ---- doors

    def _say(self, call: _Call) -> None:
        """Reassembles frames; what does not look like one of a door is another kind of socket."""
        _, door = call.fd()
        buffer = self._doors.setdefault(door, bytearray())
        if buffer is None or call.result <= 0:
            return
        buffer += call.data()[: call.result]
        while len(buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer)
            if not 0 < size <= wire.BUS_FRAME_BYTES_MAX:
                self._doors[door] = None
                return
            if len(buffer) < _LENGTH.size + size:
                return
            frame = msgpack.unpackb(bytes(buffer[_LENGTH.size : _LENGTH.size + size]))
            del buffer[: _LENGTH.size + size]
            if "re" in frame:
                self.events.append(Said(frame["re"], "problem" not in frame, frame.get("body") or {}))

    # ---- files

    def _touch(self, call: _Call, since: int) -> None:
        if call.name in ("openat", "open", "creat"):
            self._opened(call)
        elif call.name.startswith(("unlink", "rename")):
            self._named(call)
        elif call.name in ("fsync", "fdatasync"):
            self._synced(call, since)
        elif call.name in _NOT_MODELLED or call.name == "truncate":
            self._refuse(call)
        else:
            self._changed(call)

    def _refuse(self, call: _Call) -> None:
        """A mapping for reading is no change, and the wal-index is not durable anyway."""
        shared = "PROT_WRITE" in call.arguments and "MAP_SHARED" in call.arguments
        if call.name == "mmap" and (not shared or _hex("-shm>") in call.arguments.replace(">", _hex(">"))):
            return
        raise AssertionError(f"{call.name} is not modelled: {call.arguments[:200]}")

    def _opened(self, call: _Call) -> None:
        name = self._own(call.data().decode())
        self._open.pop(call.result, None)
        if not name or name.endswith("-shm"):
            return
        assert not re.search(r"O_(D?SYNC|DIRECT|TMPFILE)", call.arguments), (
            f"not modelled: {call.arguments[-80:]}"
        )
        if name not in self._names:
            assert "O_CREAT" in call.arguments or call.name == "creat", (
                f"{name} was there before the recording"
            )
            self._names[name] = len(self._sizes)
            self._sizes.append(0)
            self.events.append(Name(((name, self._names[name]),)))
        file = self._names[name]
        if "O_TRUNC" in call.arguments and self._sizes[file]:
            self._resize(file, 0)
        self._open[call.result] = _Open(file, appends="O_APPEND" in call.arguments)

    def _changed(self, call: _Call) -> None:
        opened = self._opened_as(call)
        if opened is None:
            return
        if call.name == "lseek":
            opened.position = call.result
        elif call.name == "ftruncate":
            self._resize(opened.file, call.number(-1))
        elif call.name == "fallocate":
            assert re.search(r">, 0, \d+, \d+$", call.arguments), f"not modelled: {call.arguments[-80:]}"
            size = call.number(-2) + call.number(-1)
            if size > self._sizes[opened.file]:
                self._resize(opened.file, size)
        else:
            self._write(opened, call)

    def _write(self, opened: _Open, call: _Call) -> None:
        positioned = call.name.startswith("pwrite")
        assert call.name != "pwritev2", "pwritev2 is not modelled"
        at = (
            call.number(-1) if positioned else self._sizes[opened.file] if opened.appends else opened.position
        )
        data = call.data()[: call.result]
        if not positioned:
            opened.position = at + len(data)
        self._sizes[opened.file] = max(self._sizes[opened.file], at + len(data))
        self.events.append(Write(opened.file, at, data))

    def _resize(self, file: int, size: int) -> None:
        self._sizes[file] = size
        self.events.append(Resize(file, size))

    def _synced(self, call: _Call, since: int) -> None:
        if call.fd()[1] == self.directory:
            self.events.append(SyncNames(since))
        elif opened := self._opened_as(call):
            self.events.append(Sync(opened.file, since))

    def _opened_as(self, call: _Call) -> _Open | None:
        """By path too: we do not follow close, so that a number may mean another file by now."""
        fd, path = call.fd()
        opened = self._open.get(fd)
        return opened if opened and self._own(path.removesuffix(" (deleted)")) else None

    def _named(self, call: _Call) -> None:
        names = [
            self._own(bytes.fromhex(part.replace("\\x", "")).decode())
            for part in call.arguments.split('"')[1::2]
        ]
        if names[0] is None or names[0].endswith("-shm"):
            assert not any(names[1:]), "a file moved in from elsewhere is not modelled"
            return
        file = self._names.pop(names[0])
        changed: list[tuple[str, int | None]] = [(names[0], None)]
        if len(names) == 2 and names[1]:
            self._names[names[1]] = file
            changed.append((names[1], file))
        self.events.append(Name(tuple(changed)))

    def _own(self, path: str) -> str | None:
        """Its name in our directory; None when it is elsewhere, or further down."""
        if path == self.directory:
            return ""
        folder, _, name = path.rpartition("/")
        return name if folder == self.directory else None


@dataclass(slots=True)
class _Open:
    file: int
    position: int = 0
    appends: bool = False


def _calls(trace: Path, ours: str) -> Iterator[_Call]:
    """Every finished call that may concern us, in the order in which they ended."""
    begun: dict[str, tuple[int, str, str]] = {}
    with trace.open() as lines:
        for at, line in enumerate(lines):
            found = _LINE.match(line.rstrip("\n"))
            if not found:
                continue
            thread, name, rest, resumed, more = found.groups()
            if name and rest.endswith(_UNFINISHED):
                begun[thread] = (at, name, rest.removesuffix(_UNFINISHED))
                continue
            began = at
            if resumed:
                began, name, first = begun.pop(thread)
                rest = first + more
            if (name in _SENDS or ours in rest) and (done := _DONE.match(rest)):
                yield _Call(name, done[1], int(done[2]), began, at)


def _says(call: _Call) -> bool:
    return call.name in _SENDS and bool(_SOCKET.fullmatch(call.fd()[1]))


def _instant(call: _Call) -> int:
    """A reply may be read as soon as its call begins; a change is sure only once its call has ended."""
    return call.began if _says(call) else call.ended


def _events_at(places: list[tuple[int, int]], line: int) -> int:
    """How many events there were when the trace had reached `line`."""
    return next(events for at, events in reversed(places) if at <= line)


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def _text(encoded: str) -> str:
    return os.fsdecode(bytes.fromhex(encoded.replace("\\x", "")))
