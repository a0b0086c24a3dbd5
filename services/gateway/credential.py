"""The model credential's file: 0600, the gateway's alone, replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from pathlib import Path

import msgspec

from libhive.messages.gateway import Login
from libhive.paths import make_private
from libhive.problems import Conflict, NoSpace
from services.gateway.secret import Credential

log = logging.getLogger("hive.gateway")


class Keeper:
    """Holds the one credential; what it says was on disk before."""

    def __init__(self, path: Path, credential: Credential | None) -> None:
        self._path, self.credential = path, credential

    @classmethod
    def open(cls, path: Path) -> Keeper:
        """Raises Conflict when there is a file and it does not hold a credential."""
        make_private(path.parent)
        return cls(path, _read(path))

    def keep(self, credential: Credential) -> None:
        """Replaces the file as a whole, so that a power cut leaves the old one or the new one."""
        text = json.dumps({"kind": credential.kind, "secret": credential.secret}).encode()
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            temporary.unlink(missing_ok=True)
            _write(temporary, text)
            temporary.rename(self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace("the disk is full: the credential was not kept") from None
            raise
        self.credential = credential

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
        _sync_directory(self._path.parent)
        self.credential = None


def _read(path: Path) -> Credential | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            log.warning("the credential could be read by others; it no longer can", extra={"path": str(path)})
            os.fchmod(descriptor, 0o600)
        content = file.read(16_384)
    try:
        kept = msgspec.json.decode(content, type=Login)
    except (msgspec.DecodeError, UnicodeDecodeError):
        hint = f"remove it, then log in again: rm {path}; hive-admin login"
        raise Conflict(f"{path} does not hold a credential", hint) from None
    return Credential(kept.kind, kept.secret)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
