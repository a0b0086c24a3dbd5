from __future__ import annotations

from libhive.link import Link
from libhive.messages import backup as say
from libhive.problems import Problem

BEGIN_SECONDS = 600.0
"""A large database is copied first."""
READ_SECONDS = 60.0


class Backup:
    """One service's database or files, piece by piece."""

    def __init__(self, link: Link, service: str) -> None:
        self.link, self.service = link, service
        self.skipped: list[str] = []

    async def begin(self, part: say.Part) -> say.BackupBegun:
        request = say.BeginBackup(part=part)
        self.begun = await self.link.call(self.service, request, timeout_seconds=BEGIN_SECONDS)
        self.offset, self.ended = 0, False
        return self.begun

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        if self.ended:
            return b""
        request = say.ReadBackup(stream=self.begun.stream, offset=self.offset)
        chunk = await self.link.call(self.service, request, timeout_seconds=READ_SECONDS)
        self.offset, self.ended, self.skipped = self.offset + len(chunk.data), chunk.last, chunk.skipped
        return chunk.data

    async def end(self) -> None:
        """What it holds is also given up when nobody reads it for a while."""
        try:
            await self.link.call(self.service, say.EndBackup(stream=self.begun.stream))
        except Problem:
            return
