"""What of the unsynced changes reached the disk: drawn from a seed, with a taste for what is hard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

from tests.powercut.disk import SECTOR_BYTES, Pending
from tests.powercut.strace import Name, Resize, Write

TORN_RATE = 0.4
"""Images in which some writes are torn."""

Change = Write | Resize | Name


def survivors(random: Random, pending: Sequence[Pending]) -> list[Change]:
    (way,) = random.choices(list(_WAYS), list(_WAYS.values()))
    kept = [one.change for one in way(random, pending)]
    if random.random() >= TORN_RATE:
        return kept
    rate = random.choice((0.1, 0.5, 1.0))
    return [
        piece for change in kept for piece in (_torn(random, change) if random.random() < rate else [change])
    ]


def _nothing(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    return []


def _all(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    return pending


def _some(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    rate = random.choice((0.1, 0.5, 0.9))
    return [one for one in pending if random.random() < rate]


def _all_but_one(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    without = random.choice(pending) if pending else None
    return [one for one in pending if one is not without]


def _only_one(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    return [random.choice(pending)] if pending else []


def _the_first(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    return pending[: random.randint(0, len(pending))]


def _the_last(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    return pending[random.randint(0, len(pending)) :]


def _one_file(random: Random, pending: Sequence[Pending]) -> Sequence[Pending]:
    """All of one file, nothing of the others: a log without its database, or the reverse."""
    files = [None if isinstance(one.change, Name) else one.change.file for one in pending]
    of = random.choice(files) if files else None
    return [one for one, file in zip(pending, files, strict=True) if file == of]


_WAYS: dict[Callable[[Random, Sequence[Pending]], Sequence[Pending]], int] = {
    _nothing: 10,
    _all: 5,
    _some: 35,
    _all_but_one: 12,
    _only_one: 10,
    _the_first: 8,
    _the_last: 12,
    _one_file: 8,
}


def _torn(random: Random, change: Change) -> list[Change]:
    """Some of a write's sectors, and perhaps the file's new size without its bytes."""
    if not isinstance(change, Write):
        return [change]
    edges = _edges(change)
    pieces: list[Change] = [
        Write(change.file, change.offset + start, change.data[start:end])
        for start, end in pairwise(edges)
        if random.random() < 0.5
    ]
    if random.random() < 0.3:
        pieces.append(_grown(change))
    return pieces


def _edges(change: Write) -> list[int]:
    """Where it crosses from one sector of the disk into the next; a long write is cut into a few runs of them."""
    size = len(change.data)
    first = SECTOR_BYTES - change.offset % SECTOR_BYTES
    step = max(SECTOR_BYTES, size // 16 // SECTOR_BYTES * SECTOR_BYTES)
    return [0, *range(first, size, step), size]


def _grown(change: Write) -> Write:
    """Makes the file as long as the write did, and changes nothing in it."""
    return Write(change.file, change.offset + len(change.data), b"")
