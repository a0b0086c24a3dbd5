"""The vocabulary of backups: what every service answers, whatever else it does, for the operator alone."""

from __future__ import annotations

from typing import Literal

from libhive.messages.base import Count, Done, Reply, Request
from libhive.names import Id

Part = Literal["database", "files"]


class BackupBegun(Reply, frozen=True, kw_only=True):
    """`size_bytes` is 0 for files, whose stream is a tar made while it is read; for a database it is what will come."""

    stream: str
    taken_ms: int
    size_bytes: int = 0
    schema: int = 0
    rows: dict[str, int] = {}


class BackupChunk(Reply, frozen=True, kw_only=True):
    data: bytes
    last: bool = False
    skipped: list[str] = []
    """With the last one: files that were left out, and why."""


class BeginBackup(Request[BackupBegun], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Takes a snapshot of the service's database, or begins with the files that it keeps, and holds it to be read."""

    KIND = "backup.begin"
    REPLY = BackupBegun
    part: Part = "database"


class EndBackup(Request[Done], frozen=True, kw_only=True, forbid_unknown_fields=True):
    KIND = "backup.end"
    REPLY = Done
    stream: Id


class ReadBackup(Request[BackupChunk], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next piece, or the last one again: a reply that was lost is asked for by the same offset."""

    KIND = "backup.read"
    REPLY = BackupChunk
    stream: Id
    offset: Count
