"""Adds packages to an agent.toml and leaves the rest of it as it is, comments and order included."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

_PACKAGES = re.compile(r"^packages\s*=\s*\[", re.MULTILINE)
_ONE_LINE = re.compile(r"^packages\s*=\s*\[[^\]#\n]*\][ \t]*$", re.MULTILINE)
_TABLE = re.compile(r"^\s*\[", re.MULTILINE)


class CannotEdit(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    """The file is not of a form this knows how to edit."""


def packages_in(text: str) -> list[str]:
    try:
        found = tomllib.loads(text).get("packages", [])
    except tomllib.TOMLDecodeError as error:
        raise CannotEdit(f"it is not TOML: {error}") from error
    return [str(name) for name in found] if isinstance(found, list) else []


def add(text: str, names: Sequence[str]) -> str:
    """Raises CannotEdit rather than change anything else."""
    before = packages_in(text)
    wanted = [*before, *names]
    changed = _edit(text, before, names)
    try:
        after = tomllib.loads(changed)
    except tomllib.TOMLDecodeError:
        after = {}
    if sorted(after.get("packages", [])) != sorted(wanted) or _rest(after) != _rest(tomllib.loads(text)):
        raise CannotEdit("its `packages` are written in a way I do not know")
    return changed


def _edit(text: str, before: Sequence[str], names: Sequence[str]) -> str:
    if one_line := _ONE_LINE.search(text):
        return text[: one_line.start()] + _array([*before, *names]) + text[one_line.end() :]
    if several := _PACKAGES.search(text):
        inserted = "".join(f'\n  "{name}",' for name in names)
        return text[: several.end()] + inserted + text[several.end() :]
    first_table = _TABLE.search(text)
    place = first_table.start() if first_table else len(text)
    head = text[:place]
    line = _array(names) + "\n"
    return head + ("" if head.endswith("\n") or not head else "\n") + line + text[place:]


def _array(names: Sequence[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"packages = [{quoted}]"


def _rest(table: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in table.items() if key != "packages"}
