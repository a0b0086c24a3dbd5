"""Structured logs: one line a person can read on a terminal, one JSON object under journald."""

from __future__ import annotations

import json
import logging
import os
import sys
import unicodedata

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_KEEP = frozenset("\n\t")


def setup(service: str, level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(service) if "JOURNAL_STREAM" in os.environ else _Readable(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def safe_text(text: str, *, keep: frozenset[str] = _KEEP) -> str:
    """`text` with every character that could act on a terminal or hide (controls, escapes, bidi, zero-width) spelt out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _acts(char) else f"<U+{ord(char):04X}>" for char in text)


def _acts(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _fields(record: logging.LogRecord) -> dict[str, str]:
    return {key: str(value) for key, value in vars(record).items() if key not in _PLAIN}


class _Readable(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__("%(asctime)s", "%H:%M:%S")
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(
            f"{key}={safe_text(value, keep=frozenset())}" for key, value in _fields(record).items()
        )
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {self.service}: "
        line += safe_text(record.getMessage()) + (f"  {fields}" if fields else "")
        return f"{line}\n{safe_text(self.formatException(record.exc_info))}" if record.exc_info else line


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "service": self.service,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
