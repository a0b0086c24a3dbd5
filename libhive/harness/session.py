"""Which conversation of the CLI is this agent's, kept in /state, and the lock that keeps it to one process.

Two processes on one session are not stopped by the CLI: each writes, and one branch is lost.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import uuid
from pathlib import Path
from typing import IO

import msgspec

from libhive.problems import AlreadyExists


class _Kept(msgspec.Struct, kw_only=True):
    id: str
    handover: str = ""


class Session:
    def __init__(self, state: Path) -> None:
        self._file = state / "session.json"
        self._transcripts = state / "claude" / "projects"
        self._kept = self._load() or self._new("")

    @property
    def id(self) -> str:
        return self._kept.id

    @property
    def handover(self) -> str:
        """What the first prompt of a session that replaces another begins with, until a turn has taken it."""
        return self._kept.handover

    def exists(self) -> bool:
        """Whether the CLI has written any of it; else it must be begun, not resumed."""
        return any(path.stat().st_size for path in self._files())

    def mend(self) -> None:
        """Before it is resumed. A CLI that is told to end while it retries a request notes where the conversation
        stood; one that is killed later notes nothing, and 2.1.330 then goes on from the old note and forgets every
        turn since. Without a note it finds the newest turn by itself."""
        for path in self._files():
            lines = path.read_bytes().splitlines(keepends=True)
            kinds = [_kind(line) for line in lines]
            last_note = max((n for n, kind in enumerate(kinds) if kind == "last-prompt"), default=len(kinds))
            if any(kind in ("user", "assistant") for kind in kinds[last_note:]):
                write_whole(
                    path,
                    b"".join(line for line, kind in zip(lines, kinds, strict=True) if kind != "last-prompt"),
                )

    def renew(self, handover: str) -> None:
        self._kept = self._new(handover)

    def handed_over(self) -> None:
        if self._kept.handover:
            self._kept.handover = ""
            self._save(self._kept)

    def _files(self) -> list[Path]:
        return list(self._transcripts.glob(f"*/{self.id}.jsonl"))

    def _load(self) -> _Kept | None:
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
            uuid.UUID(kept.id)
        except (OSError, ValueError):  # none yet, or the agent has spoilt its own file
            return None
        return kept

    def _new(self, handover: str) -> _Kept:
        kept = _Kept(id=str(uuid.uuid4()), handover=handover)
        self._save(kept)
        return kept

    def _save(self, kept: _Kept) -> None:
        write_whole(self._file, msgspec.json.encode(kept))


class _Line(msgspec.Struct):
    type: str = ""


def _kind(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Line).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces the file at once and for good: after a power cut it is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


async def hold(state: Path, seconds_max: float) -> IO[bytes]:
    """The state directory is ours until the process ends. Waits a little for one that is just ending."""
    lock = (state / "harness.lock").open("ab")
    try:
        async with asyncio.timeout(seconds_max):
            while not _locked(lock):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # flock has no wait with a time limit
    except TimeoutError:
        lock.close()
        raise AlreadyExists(
            f"another harness runs on {state}", "one cage at a time may hold an agent's state"
        ) from None
    return lock


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
