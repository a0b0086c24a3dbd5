"""What the cages write on their standard output and error: one file an agent, opened by the host, bounded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from libhive.names import AgentName
from libhive.paths import Paths

LOG_BYTES_MAX = 4 << 20
"""Beyond it a log is put aside at the next start of its cage."""
LOG_BYTES_HARD_MAX = 4 * LOG_BYTES_MAX
"""Beyond it the log of a running cage is cut."""
TAIL_BYTES_MAX = 128 << 10
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def path(paths: Paths, name: AgentName) -> Path:
    return paths.logs / "agents" / f"{name}.log"


def open_for_cage(log: Path) -> int:
    """A descriptor that only appends; a log that has grown big becomes the one before."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.rename(log.with_suffix(".log.1"))
    return os.open(log, _FLAGS, 0o600)


def bound(log: Path) -> None:
    """Cuts the log of a running cage, which goes on appending; what was written last is kept aside."""
    if log.exists() and log.stat().st_size > LOG_BYTES_HARD_MAX:
        log.with_suffix(".log.1").write_bytes(_last_bytes(log, LOG_BYTES_MAX))
        os.truncate(log, 0)


def tail(log: Path, lines: int) -> str:
    """The last lines, of what came in the last TAIL_BYTES_MAX bytes."""
    text = _last_bytes(log, TAIL_BYTES_MAX).decode(errors="replace")
    return "".join(text.splitlines(keepends=True)[-lines:])


def last_line(log: Path) -> str:
    """The last line that says something."""
    return last_line_of(tail(log, 20))


def last_line_of(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return re.sub(r"\s+", " ", next((line for line in reversed(lines) if line), ""))[:300]


def _last_bytes(log: Path, count: int) -> bytes:
    """A cage may have made its log a file of a petabyte with a hole in it: never read from the start."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - count))
            return file.read(count)
    except FileNotFoundError:
        return b""
