from __future__ import annotations

import random
import re
import time

from services.approvals.diff import COMPARISONS_MAX, file_diff, unified, unusual, visible, warnings


def patched(before: str, lines: list[str]) -> str:
    """`before` with the diff applied, as patch(1) would."""
    old = before.split("\n")
    new: list[str] = []
    at = 0
    for line in lines:
        if heading := re.fullmatch(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", line):
            start = int(heading[1]) - (1 if int(heading[2]) else 0)
            new += old[at:start]
            at = start
        elif line[0] in " -":
            assert old[at] == line[1:]
            at += 1
            new += [line[1:]] if line[0] == " " else []
        elif line[0] == "+":
            new.append(line[1:])
    return "\n".join(new + old[at:])


def text(source: random.Random) -> str:
    return "".join(source.choice("abc") + "\n" for _ in range(source.randrange(30)))


def test_the_diff_makes_the_one_text_out_of_the_other() -> None:
    for seed in range(400):
        source = random.Random(seed)
        before = text(source)
        lines = before.splitlines(keepends=True)
        for _ in range(source.randrange(4)):
            lines.insert(source.randrange(len(lines) + 1), source.choice("abcd") + "\n")
            del lines[source.randrange(len(lines))]
        after = "".join(lines) if seed % 3 else text(source)
        assert patched(before, unified(before, after)) == after, f"seed {seed}"


def test_no_change_no_lines() -> None:
    assert unified("a\nb\n", "a\nb\n") == []


def test_a_missing_newline_at_the_end_is_a_change() -> None:
    assert unified("a\n", "a") == ["@@ -1,1 +1,1 @@", "-a", "+a", "\\ No newline at end of file"]


def test_only_newlines_end_a_line() -> None:
    assert unified("", "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\n") == [
        "@@ -0,0 +1,1 @@",
        "+a<U+000D>b<U+000B>c<U+000C>d<U+001C>e<U+0085>f<U+2028>g",
    ]


def test_everything_unusual_is_visible() -> None:
    """Over all of Unicode: what stays as it is, is a letter, a mark, a digit, a sign, a plain blank, tab or
    newline."""
    shown = [chr(code) for code in range(0x110000) if not unusual(chr(code))]
    assert {char for char in shown if char.isspace()} == {" ", "\t", "\n"}
    assert {char for char in shown if not char.isprintable()} == {"\t", "\n"}
    for hidden in (
        "\u200b\u200d\u200e\u202e\u2066\ufeff\u00ad\u00a0\u3164\u2800\ufe0f\u034f\U000e0041\ue000\x00\x1b\x7f"
    ):
        assert visible(f"a{hidden}b") == f"a<U+{ord(hidden):04X}>b"
    assert visible("Grüße, 你好, мир — „quoted“ 🎨") == "Grüße, 你好, мир — „quoted“ 🎨"


def test_warnings_are_about_the_whole_file_that_would_be_deployed() -> None:
    found = file_diff("prompt.md", "hidden\u200b\n", "hidden\u200b\nmore\n")
    assert found.lines[-1] == "+more"
    assert found.warnings == ["U+200B (zero width space) on line 1"]
    assert warnings("\n".join("\u200b" * 20)).pop().endswith("12 and 8 more")


def test_texts_made_to_be_slow_to_compare_are_not() -> None:
    side = int(COMPARISONS_MAX**0.5)
    for factor, modulus in ((7, 701), (7, 97), (31, 331), (1, 111)):
        before = "".join(f"{n % modulus}\n" for n in range(side))
        after = "".join(f"{n * factor % modulus}\n" for n in range(side, 0, -1))
        started = time.monotonic()
        assert patched(before, unified(before, after)) == after
        assert time.monotonic() - started < 10  # without a limit, minutes
    many = "".join(f"{n}\n" for n in range(10_000))
    started = time.monotonic()
    assert len(unified(many, many[::-1])) > 15_000
    assert time.monotonic() - started < 10  # without a limit, minutes
