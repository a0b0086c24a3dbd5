"""The exact change of two texts, nothing cut, with everything made visible that could hide or mislead."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import Final

from libhive.messages.approvals import FileDiff

CONTEXT: Final = 3
LINE_CHARACTERS_USUAL: Final = 1_000
"""A longer line is shown whole, and pointed out: a window may show only its beginning."""
COMPARISONS_MAX: Final = 1_000_000
"""Lines before times lines after, beyond which the changed middle is shown as one block: text can be made
such that finding the shortest difference takes minutes."""

_LOOK_EMPTY: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_GAP: Final = re.compile(r"\S[ \t]{40,}\S")


def visible(text: str) -> str:
    """Every character that is not plainly what it looks like, spelt out: `<U+202E>`. Newline and tab stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"<U+{ord(char):04X}>" if unusual(char) else char for char in text)


def unusual(char: str) -> bool:
    """Controls, bidi and zero-width characters, odd spaces, variation selectors, what nobody has a glyph
    for."""
    if char in "\n\t" or " " <= char <= "~":
        return False
    if char in _LOOK_EMPTY or "\ufe00" <= char <= "\ufe0f" or "\U000e0000" <= char <= "\U000e0fff":
        return True
    return unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs")


def file_diff(path: str, before: str | None, after: str | None) -> FileDiff:
    """None: there is no such file."""
    return FileDiff(
        path=visible(path),
        change="added" if before is None else "removed" if after is None else "changed",
        lines=unified(before or "", after or ""),
        warnings=warnings(after or ""),
    )


def unified(before: str, after: str) -> list[str]:
    """Unified-diff lines with their context, made visible."""
    entries = _compare(_lines(before), _lines(after))
    near = {
        at + step
        for at, (sign, _) in enumerate(entries)
        if sign != " "
        for step in range(-CONTEXT, CONTEXT + 1)
    }
    shown: list[str] = []
    old = new = 0
    for wanted, numbered in groupby(enumerate(entries), key=lambda each: each[0] in near):
        hunk = [entry for _, entry in numbered]
        gone, come = (sum(sign != other for sign, _ in hunk) for other in "+-")
        if wanted:
            shown.append(f"@@ -{_range(old, gone)} +{_range(new, come)} @@")
            shown += chain.from_iterable(_shown(sign, line) for sign, line in hunk)
        old, new = old + gone, new + come
    return shown


def warnings(text: str) -> list[str]:
    """What a reviewer should know of the whole file that would be deployed, also outside the changed
    lines."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), 1):
        for char in sorted({char for char in line if unusual(char)}):
            found[f"{_name(char)} ({_kind(char)})"].append(number)
        if len(line) > LINE_CHARACTERS_USUAL:
            found[f"more than {LINE_CHARACTERS_USUAL} characters"].append(number)
        if _GAP.search(line):
            found["a wide gap with more text behind it"].append(number)
    return [f"{what} on line {_numbers(lines)}" for what, lines in found.items()]


def _compare(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    """Every line of both, signed; the equal beginning and end are taken off first, and the effort is
    bounded."""
    head = _common(lambda n: old[n] == new[n], min(len(old), len(new)))
    tail = _common(lambda n: old[-1 - n] == new[-1 - n], min(len(old), len(new)) - head)
    gone, come = old[head : len(old) - tail], new[head : len(new) - tail]
    return [*_signed(" ", old[:head]), *_middle(gone, come), *_signed(" ", old[len(old) - tail :])]


def _middle(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    if len(old) * len(new) > COMPARISONS_MAX:
        yield from chain(_signed("-", old), _signed("+", new))
        return
    for tag, low, high, new_low, new_high in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            yield from _signed(" ", old[low:high])
        else:
            yield from chain(_signed("-", old[low:high]), _signed("+", new[new_low:new_high]))


def _signed(sign: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((sign, line) for line in lines)


def _common(equal: Callable[[int], bool], limit: int) -> int:
    return next((n for n in range(limit) if not equal(n)), limit)


def _lines(text: str) -> list[str]:
    """At newlines only: the other characters that `str.splitlines` would split at are made visible
    instead."""
    pieces = [piece + "\n" for piece in text.split("\n")]
    pieces[-1] = pieces[-1][:-1]
    return pieces if pieces[-1] else pieces[:-1]


def _shown(sign: str, line: str) -> Iterator[str]:
    yield sign + visible(line.removesuffix("\n"))
    if not line.endswith("\n"):
        yield "\\ No newline at end of file"


def _range(done: int, lines: int) -> str:
    return f"{done + 1 if lines else done},{lines}"


def _name(char: str) -> str:
    return f"U+{ord(char):04X}"


def _kind(char: str) -> str:
    return unicodedata.name(
        char, "a control character" if unicodedata.category(char) == "Cc" else "no name"
    ).lower()


def _numbers(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:12]))
    return f"{shown} and {len(lines) - 12} more" if len(lines) > 12 else shown
