from __future__ import annotations

import json
import logging

import pytest

from libhive import logs


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("two\nlines", "two\nlines"),
        ("\x1b]0;title\x07", "<U+001B>]0;title<U+0007>"),
        ("a\u202eb", "a<U+202E>b"),
        ("a\u200bb", "a<U+200B>b"),
        ("naïve 東京 🐝", "naïve 東京 🐝"),
        ("\r", "<U+000D>"),
    ],
)
def test_nothing_acts_on_a_terminal(text: str, safe: str) -> None:
    assert logs.safe_text(text) == safe


def test_a_line_for_a_person_and_one_for_journald(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.makeLogRecord(
        {"msg": "cage %s", "args": ("up\x1b",), "levelname": "INFO", "agent": "iris\nforged"}
    )
    assert "cage up<U+001B>  agent=iris<U+000A>forged" in logs._Readable("x").format(record)
    assert json.loads(logs._Json("x").format(record)) == {
        "service": "x",
        "level": "info",
        "message": "cage up\x1b",
        "agent": "iris\nforged",
    }
