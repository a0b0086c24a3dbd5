"""A disk under a page cache: what is durable, what is not yet, and what a power cut may make of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut.strace import Event, Name, Resize, Sync, SyncNames, Write

SECTOR_BYTES = 512


class Content:
    """A file's bytes. Zeros at its end are counted, not kept: a log may be made long before it is full."""

    def __init__(self, data: bytes | bytearray = b"", size: int = 0) -> None:
        self.data, self.size = bytearray(data), size

    def copy(self) -> Content:
        return Content(self.data, self.size)

    def apply(self, change: Write | Resize) -> None:
        if isinstance(change, Write):
            self.write(change.offset, change.data)
        else:
            del self.data[change.size :]
            self.size = change.size

    def write(self, offset: int, data: bytes) -> None:
        end = offset + _length(data)
        if end > max(offset, len(self.data)):
            self.data.extend(bytes(end - len(self.data)))
        kept = data[: max(0, len(self.data) - offset)]
        self.data[offset : offset + len(kept)] = kept
        self.size = max(self.size, offset + len(data))

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self.data)
            file.truncate(self.size)


def _length(data: bytes) -> int:
    """Without the zeros at its end. A megabyte that has nothing else is compared faster than it is stripped."""
    return 0 if data == bytes(len(data)) else len(data.rstrip(b"\0"))


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that no sync has covered. `number` is the event that made it."""

    number: int
    change: Write | Resize | Name


@dataclass(slots=True)
class Image:
    """What is on the disk when the power comes back."""

    names: dict[str, int]
    contents: dict[int, Content]

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            path.unlink()
        for name, file in self.names.items():
            self.contents.get(file, Content()).save(directory / name)


@dataclass
class Disk:
    """Fed with a recording's events, in order."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    settled: int = 0
    """How many changes are durable."""

    def feed(self, number: int, event: Event) -> None:
        if isinstance(event, Write | Resize | Name):
            self.pending.append(Pending(number, event))
        elif isinstance(event, Sync):
            self._settle(
                [one for one in self.pending if _is_of(one, event.file) and one.number < event.since]
            )
        elif isinstance(event, SyncNames):
            self._settle(
                [one for one in self.pending if isinstance(one.change, Name) and one.number < event.since]
            )

    def cut(self, survived: Sequence[Write | Resize | Name]) -> Image:
        """The durable state and, in their order, those of the pending changes that reached the disk."""
        image = Image(dict(self.names), {file: self._content(file).copy() for file in self.files()})
        for change in survived:
            _apply(change, image.names, image.contents)
        return image

    def files(self) -> set[int]:
        return set(self.contents) | {
            one.change.file for one in self.pending if not isinstance(one.change, Name)
        }

    def _content(self, file: int) -> Content:
        return self.contents.setdefault(file, Content())

    def _settle(self, done: Sequence[Pending]) -> None:
        for one in done:
            _apply(one.change, self.names, self.contents)
        self.settled += len(done)
        numbers = {one.number for one in done}
        self.pending = [one for one in self.pending if one.number not in numbers]


def _is_of(pending: Pending, file: int) -> bool:
    return not isinstance(pending.change, Name) and pending.change.file == file


def _apply(change: Write | Resize | Name, names: dict[str, int], contents: dict[int, Content]) -> None:
    if not isinstance(change, Name):
        contents.setdefault(change.file, Content()).apply(change)
        return
    for name, file in change.names:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file
