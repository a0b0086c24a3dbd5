"""`backup.begin`, `backup.read`, `backup.end`: a snapshot or a tree, piece by piece, to the operator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from libhive.backup.trees import Tree
from libhive.clock import now_ms
from libhive.integrity import check, snapshots
from libhive.messages.backup import BackupBegun, BackupChunk, BeginBackup, EndBackup, ReadBackup
from libhive.messages.base import Done
from libhive.names import OPERATOR, new_id
from libhive.paths import Paths
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, TooMany

CHUNK_BYTES = 1 << 20
STREAMS_MAX = 4
IDLE_MS_MAX = 600_000


class Caller(Protocol):
    @property
    def caller(self) -> str: ...


def files_of(service: str, paths: Paths) -> Path | None:
    """What is durable of the hive beside the databases, and whose it is."""
    return {"approvals": paths.state / "config", "lifecycle": paths.state / "agents"}.get(service)


class Stream:
    def __init__(self, pieces: Iterator[bytes], skipped: list[str]) -> None:
        self.pieces, self.skipped = pieces, skipped
        self.offset, self.chunk, self.rest = 0, BackupChunk(data=b""), b""
        self.used_ms = now_ms()
        self.turn = asyncio.Lock()

    async def read(self, offset: int) -> BackupChunk:
        """Raises Conflict for an offset that is neither the next one nor the last one again."""
        async with self.turn:
            self.used_ms = now_ms()
            if offset == self.offset + len(self.chunk.data) and not self.chunk.last:
                self.offset, self.chunk = offset, await asyncio.to_thread(self._next)
            elif offset != self.offset:
                raise Conflict(f"this stream is at {self.offset}, not at {offset}", "begin the backup again")
            return self.chunk

    def _next(self) -> BackupChunk:
        gathered, size = [self.rest], len(self.rest)
        while size < CHUNK_BYTES and (piece := next(self.pieces, None)) is not None:
            gathered.append(piece)
            size += len(piece)
        data = b"".join(gathered)
        data, self.rest = data[:CHUNK_BYTES], data[CHUNK_BYTES:]
        last = len(data) < CHUNK_BYTES
        return BackupChunk(data=data, last=last, skipped=list(self.skipped) if last else [])


class Streams:
    """Of one service. `snapshot` takes one now."""

    def __init__(self, service: str, paths: Paths, snapshot: Callable[[], Awaitable[Path]]) -> None:
        self._database, self._files = paths.database(service), files_of(service, paths)
        self._service, self._snapshot = service, snapshot
        self._open: dict[str, Stream] = {}

    def handlers(self) -> dict[type[Any], Callable[[Any, Any], Any]]:
        return {BeginBackup: self.on_begin, EndBackup: self.on_end, ReadBackup: self.on_read}

    async def on_begin(self, call: Caller, m: BeginBackup) -> BackupBegun:
        _only_for_the_operator(call)
        self._forget_idle()
        if len(self._open) >= STREAMS_MAX:
            raise TooMany("other backups are being read", "wait a minute, and try again")
        return await self._begin_database() if m.part == "database" else self._begin_files()

    async def on_read(self, call: Caller, m: ReadBackup) -> BackupChunk:
        _only_for_the_operator(call)
        if m.stream not in self._open:
            raise NotFound("this backup has been given up, or its service has started anew", "begin again")
        return await self._open[m.stream].read(m.offset)

    async def on_end(self, call: Caller, m: EndBackup) -> Done:
        _only_for_the_operator(call)
        self._open.pop(m.stream, None)
        return Done()

    async def _begin_database(self) -> BackupBegun:
        if not self._database.exists():
            raise BadRequest(f"{self._service} has no database")
        snapshot = await self._snapshot()
        file = snapshot.open("rb", buffering=0)  # it can be read to its end when newer ones push it out
        rows = await asyncio.to_thread(check.counts, snapshot)
        return BackupBegun(
            stream=self._add(Stream(iter(lambda: file.read(CHUNK_BYTES), b""), [])),
            taken_ms=snapshots.taken_ms(snapshot),
            size_bytes=os.fstat(file.fileno()).st_size,
            schema=check.schema(snapshot),
            rows=rows,
        )

    def _begin_files(self) -> BackupBegun:
        if self._files is None:
            raise BadRequest(f"{self._service} keeps no files")
        tree = Tree(self._files)
        return BackupBegun(stream=self._add(Stream(tree.pieces(), tree.skipped)), taken_ms=now_ms())

    def _add(self, stream: Stream) -> str:
        id = new_id()
        self._open[id] = stream
        return id

    def _forget_idle(self) -> None:
        now = now_ms()
        for id, stream in list(self._open.items()):
            if now - stream.used_ms > IDLE_MS_MAX:
                del self._open[id]


def _only_for_the_operator(call: Caller) -> None:
    if call.caller != OPERATOR:
        raise NotAllowed("a backup is the operator's to take")
