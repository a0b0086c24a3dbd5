"""What the operator sees of a proposal, and the digest that binds what she decides to what she saw."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from libhive import packages
from libhive.messages.approvals import EffectLine, FileDiff
from libhive.problems import Problem
from libhive.spec import RootKind, resolve
from services.approvals import effect
from services.approvals.diff import file_diff
from services.approvals.repo import Repository
from services.approvals.settings import Settings
from services.approvals.story import Record

TOO_LONG = "it is too long to be reviewed, and so cannot be approved: ask for it in smaller steps"


@dataclass(frozen=True, slots=True)
class Review:
    effect: list[EffectLine]
    diff: list[FileDiff]
    digest: str
    blocked: str = ""
    """Why the change itself can never be approved."""
    root: RootKind = "host"


def review(repo: Repository, record: Record, settings: Settings) -> Review:
    """Computed from the commit alone, each time anew: nothing that was computed before is trusted."""
    try:
        after, before = repo.snapshot(record.commit), repo.snapshot(record.base) if record.base else None
        old = before.files if before else {}
        comes_back = record.kind == "create_agent" and before is not None
        spec = resolve(after.files)
        lines = effect.compare(record.agent, resolve(old) if before else None, spec, comes_back=comes_back)
    except Problem as problem:
        return Review([], [], "", f"it cannot be shown: {problem.message}")
    changed = [path for path in sorted({*old, *after.files}) if old.get(path) != after.files.get(path)]
    diff = [file_diff(path, old.get(path), after.files.get(path)) for path in changed]
    if _too_long(lines, diff, settings):
        return Review([] if _too_long(lines, [], settings) else lines, [], "", TOO_LONG)
    return Review(lines, diff, digest(record, after.tree, lines), root=spec.root)


def digest(record: Record, tree: str, lines: list[EffectLine]) -> str:
    """Over repository, base, commit, tree and effect. A line's note is about this host, not about the
    change."""
    seen = [[line.field, line.risk, line.before, line.after] for line in lines]
    bound = msgspec.json.encode([record.agent, record.base, record.commit, tree, seen])
    return hashlib.sha256(bound).hexdigest()


async def with_host(lines: list[EffectLine], root: RootKind) -> list[EffectLine]:
    """The effect with a note at each package that is missing here, where the agent needs it here."""
    if root != "host":
        return lines
    missing = await packages.missing(line.after for line in lines if line.field == "packages" and line.after)
    return (
        effect.with_missing(lines, frozenset(missing), packages.install_hint(missing)) if missing else lines
    )


def _too_long(lines: list[EffectLine], diff: list[FileDiff], settings: Settings) -> bool:
    shown = [line for each in diff for line in each.lines] + [line.before + line.after for line in lines]
    return len(shown) > settings.diff_lines_max or sum(map(len, shown)) > settings.diff_characters_max
