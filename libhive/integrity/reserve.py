"""A little room of our own on the disk, given up when a start would not find enough for SQLite's own bookkeeping."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 1 << 20
FREE_BYTES_MIN = 4 << 20
"""With less than this free, the reserve is left alone rather than taken from others."""


def reserve_of(database: Path) -> Path:
    return database.parent / "reserve"


def settle(database: Path) -> None:
    """Gives the reserve up when nothing else is free; has it again once there is room. Never an error of its own."""
    reserve = reserve_of(database)
    with contextlib.suppress(OSError):
        disk = os.statvfs(database.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < RESERVE_BYTES:
            reserve.unlink(missing_ok=True)
        elif free >= FREE_BYTES_MIN + RESERVE_BYTES and not reserve.exists():
            _make(reserve)


def _make(reserve: Path) -> None:
    descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    except OSError:
        reserve.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
