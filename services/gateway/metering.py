"""Reads the usage out of an answer that streams past, keeping no more of it than a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

LINE_BYTES_MAX = 1 << 20
ANSWER_BYTES_MAX = 8 << 20
"""An answer in one piece that is longer passes uncounted; the model cannot write that much."""


@dataclass(slots=True)
class Tokens:
    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0

    @property
    def given(self) -> int:
        """All that the model was given to read, cached or not."""
        return self.input + self.cache_write + self.cache_read

    def take(self, usage: object) -> None:
        """The API's own count so far: each number replaces the earlier one of the same answer."""
        if isinstance(usage, dict):
            self.input = _number(usage, "input_tokens", self.input)
            self.cache_write = _number(usage, "cache_creation_input_tokens", self.cache_write)
            self.cache_read = _number(usage, "cache_read_input_tokens", self.cache_read)
            self.output = _number(usage, "output_tokens", self.output)


class Meter:
    """Of one answer. `feed` takes its bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.model = ""
        self.error = ""
        self._streams = False
        self._kept = bytearray()
        self._skipping = False

    def begin(self, content_type: str) -> None:
        self._streams = content_type.startswith("text/event-stream")

    def feed(self, data: bytes) -> None:
        if self._streams:
            *whole, rest = data.split(b"\n")
            for piece in whole:
                self._keep(piece, LINE_BYTES_MAX)
                self._line()
            self._keep(rest, LINE_BYTES_MAX)
        else:
            self._keep(data, ANSWER_BYTES_MAX)

    def end(self) -> None:
        if not self._streams and self._kept and not self._skipping:
            self._understand(bytes(self._kept))
        self._kept.clear()

    def _keep(self, data: bytes, bytes_max: int) -> None:
        self._skipping = self._skipping or len(self._kept) + len(data) > bytes_max
        if self._skipping:
            self._kept.clear()
        else:
            self._kept += data

    def _line(self) -> None:
        line, skipped = bytes(self._kept), self._skipping
        self._kept.clear()
        self._skipping = False
        if not skipped and line.startswith(b"data:") and (b'"usage"' in line or b'"error"' in line):
            self._understand(line[5:])

    def _understand(self, data: bytes) -> None:
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        match said.get("type"):
            case "message_start":
                self._message(said.get("message"))
            case "message":
                self._message(said)
            case "message_delta":
                self.tokens.take(said.get("usage"))
            case "error":
                self._error(said.get("error"))
            case _:
                pass

    def _message(self, message: object) -> None:
        if isinstance(message, dict):
            self.model = str(message.get("model") or "")[:100]
            self.tokens.take(message.get("usage"))

    def _error(self, error: object) -> None:
        if isinstance(error, dict):
            self.error = f"{error.get('type', 'error')}: {error.get('message', '')}"[:400]


def _number(usage: dict[Any, Any], key: str, before: int) -> int:
    value = usage.get(key)
    return value if type(value) is int and 0 <= value < 1 << 40 else before
