"""What processes cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def with_children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += with_children(int(child))
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Of all threads, by the scheduler's own nanoseconds: ticks would round an idle process to nothing."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


def pss_mb(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
