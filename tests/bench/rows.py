"""What a measurement is: a value beside a limit of this machine, taken in the same run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is value / reference. Machines differ and are shared: the ratio is what can be compared."""

    name: str
    value: float
    unit: str
    reference: float
    ratio: float
    against: str


def row(name: str, unit: str, values: Sequence[float], references: Sequence[float], against: str) -> Row:
    """Medians over the rounds; the ratio is the median of the rounds' own ratios, each taken side by side."""
    ratios = [value / reference for value, reference in zip(values, references, strict=True) if reference]
    return Row(
        name,
        round(statistics.median(values), 4),
        unit,
        round(statistics.median(references), 4),
        round(statistics.median(ratios), 3) if ratios else 0.0,
        against,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'name':40} {'value':>12} {'unit':9} {'limit':>12} {'ratio':>8}  against"]
    lines += [
        f"{row.name:40} {row.value:12,.4g} {row.unit:9} {row.reference:12,.4g} {row.ratio:8.3f}  {row.against}"
        for row in rows
    ]
    return "\n".join(lines)


def save(rows: Sequence[Row], path: Path) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
