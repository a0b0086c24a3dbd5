"""What a measurement is: a value beside a limit, a peer or a budget, taken in the same run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is value / reference. Machines differ and are shared: the ratio is what can be compared, and what a
    `bar` such as ">= 0.5" is about. `met` is None where there is no bar."""

    name: str
    value: float
    unit: str
    reference: float
    ratio: float
    against: str
    ratio_min: float = 0.0
    ratio_max: float = 0.0
    bar: str = ""
    met: bool | None = None


def row(
    name: str, unit: str, values: Sequence[float], references: Sequence[float], against: str, bar: str = ""
) -> Row:
    """Medians over the rounds; the ratio is the median of the rounds' own ratios, each taken side by side. Without
    references there is no ratio, and a bar is not met."""
    ratios = [value / reference for value, reference in zip(values, references, strict=False) if reference]
    if references and len(references) != len(values):
        raise ValueError(f"{name}: {len(values)} values beside {len(references)} references")
    ratio = round(statistics.median(ratios), 3) if ratios else 0.0
    return Row(
        name=name,
        value=round(statistics.median(values), 4),
        unit=unit,
        reference=round(statistics.median(references), 4) if references else 0.0,
        ratio=ratio,
        against=against,
        ratio_min=round(min(ratios, default=0.0), 3),
        ratio_max=round(max(ratios, default=0.0), 3),
        bar=bar,
        met=(bool(ratios) and meets(ratio, bar)) if bar else None,
    )


def meets(ratio: float, bar: str) -> bool:
    sign, number = bar.split()
    wanted = float(number)
    return {"<": ratio < wanted, "<=": ratio <= wanted, ">=": ratio >= wanted}[sign]


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(rows: Sequence[Row]) -> str:
    head = f"{'name':32} {'value':>9} {'unit':8} {'beside':>9} {'ratio':>7} {'(min-max)':>15}  {'bar':8} {'met':4} against"
    return "\n".join([head, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    spread = f"({row.ratio_min:.2f}-{row.ratio_max:.2f})"
    met = "" if row.met is None else "yes" if row.met else "NO"
    return (
        f"{row.name:32} {_short(row.value):>9} {row.unit:8} {_short(row.reference):>9} {row.ratio:7.3f} {spread:>15}  "
        f"{row.bar:8} {met:4} {row.against}"
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def save(rows: Sequence[Row], path: Path) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
