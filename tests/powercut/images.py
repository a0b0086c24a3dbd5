"""Draws cuts and what survived them, builds each image, and has it judged."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.powercut import state
from tests.powercut.disk import Disk, Image
from tests.powercut.draw import Change, survivors
from tests.powercut.judge import Judge
from tests.powercut.record import Recording
from tests.powercut.strace import Event, Name, Said, Sync, SyncNames, Write

DATABASE = "broker.sqlite"
DRAWS_MAX = 8
"""Tries at one cut for an image that was not had before."""
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Case:
    """One power cut: before event `cut` of the recording. `image` is what it leaves."""

    number: int
    cut: int
    pending: int
    survived: Sequence[Change]
    image: Image
    judge: Judge

    def __str__(self) -> str:
        kept = ", ".join(_describe(change) for change in self.survived[:40])
        return f"image {self.number}: cut before event {self.cut}, {self.pending} changes unsynced, survived: {kept}"


@dataclass
class Outcome:
    images: int
    cuts: int
    kinds: Counter[str]
    """How many images have findings of a kind."""
    first: str


def check(recording: Recording, seed: str, count: int) -> Outcome:
    outcome = Outcome(0, 0, Counter(), "")
    cuts: set[int] = set()
    with scratch() as directory:
        for case in cases(recording, seed, count):
            findings = judged(case, directory)
            outcome.images += 1
            cuts.add(case.cut)
            outcome.kinds.update({finding.partition(":")[0] for finding in findings})
            if findings and not outcome.first:
                outcome.first = _report(recording, f"{seed} {count}", case, findings)
    outcome.cuts = len(cuts)
    return outcome


def judged(case: Case, directory: Path) -> list[str]:
    case.image.save(directory)
    return case.judge.findings(state.read(directory / DATABASE))


def cases(recording: Recording, seed: str, count: int) -> Iterator[Case]:
    """Up to `count` different images, in the order of their cuts. Use each before the next: its judge goes on."""
    cuts = _draw_cuts(recording.events, Random(f"{seed} cuts"), count)
    disk, judge, at = Disk(), Judge(recording.ledger), 0
    had: set[object] = set()
    for number, cut in enumerate(cuts):
        for event in recording.events[at:cut]:
            if isinstance(event, Said):
                judge.confirm(event)
            else:
                disk.feed(at, event)
            at += 1
        random = Random(f"{seed} {number}")
        for _ in range(DRAWS_MAX):
            survived = survivors(random, disk.pending)
            key = (disk.settled, *(_describe(change) for change in survived))
            if key not in had:
                had.add(key)
                yield Case(number, cut, len(disk.pending), survived, disk.cut(survived), judge)
                break


def _draw_cuts(events: Sequence[Event], random: Random, count: int) -> list[int]:
    """Cuts come right before a change or a sync, so that all is confirmed which could have been by then."""
    disk = Disk()
    weights: dict[int, int] = {len(events): 1}
    for at, event in enumerate(events):
        if not isinstance(event, Said):
            weights[at] = _weight(disk, event)
            disk.feed(at, event)
    return sorted(random.choices(list(weights), list(weights.values()), k=count))


def _weight(disk: Disk, event: Event) -> int:
    """Hard places: right before a sync; while names, sizes or several files are unsynced, as at a checkpoint."""
    if not disk.pending:
        return 1
    weight = 4 if isinstance(event, Sync | SyncNames) else 2
    kinds = {type(one.change) for one in disk.pending}
    files = {one.change.file for one in disk.pending if not isinstance(one.change, Name)}
    return weight * (6 if Name in kinds else 3 if len(files) > 1 or kinds != {Write} else 1)


def _describe(change: Change) -> str:
    if isinstance(change, Write):
        return f"file {change.file} [{change.offset}:{change.offset + len(change.data)}]"
    if isinstance(change, Name):
        return " and ".join(f"{name} -> {file}" for name, file in change.names)
    return f"file {change.file} has {change.size} bytes"


def _report(recording: Recording, drawn: str, case: Case, findings: Sequence[str]) -> str:
    again = f"again: python -m tests.powercut {recording.directory} {drawn} {case.number}"
    return "\n".join((str(case), *findings[:10], again))


class scratch:  # noqa: N801 - used as a verb
    """A directory in memory where there is one: thousands of images need no disk."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="hive-cut-", dir=MEMORY if MEMORY.is_dir() else None))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
