"""Whether the repositories in a backup are whole, from their bytes alone: nothing of git runs on them."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libhive.admin.archive import Readable

OBJECT_BYTES_MAX = 64 << 20
_LOOSE = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{38})")
_REF = re.compile(r"refs/(heads|tags)/.+")


class Repositories:
    """Objects are compared with their names, and refs with the objects. What git has packed is taken as it is."""

    def __init__(self) -> None:
        self.objects: dict[str, set[str]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.packed: set[str] = set()

    def watched(self, name: str, source: Readable) -> Readable:
        """`source`, looked at as it is read when it is an object or a ref."""
        if not name.startswith("config/"):
            return source
        _, repository, path = name.split("/", 2)
        if found := _LOOSE.fullmatch(path):
            self.objects.setdefault(repository, set()).add(found[1] + found[2])
            return _Whole(source, lambda data: _check_object(name, found[1] + found[2], data))
        if _REF.fullmatch(path):
            return _Whole(source, lambda data: self._keep_ref(repository, path, data))
        if path.startswith("objects/pack/") and path.endswith(".pack"):
            self.packed.add(repository)
        return source

    def check(self) -> None:
        """Raises ValueError for a ref that leads nowhere."""
        for repository, refs in self.refs.items():
            for name, target in refs.items():
                is_there = target in self.objects.get(repository, ())
                if not is_there and repository not in self.packed:
                    raise ValueError(f"{repository}: {name} leads to {target:.40}, which is not there")

    def _keep_ref(self, repository: str, path: str, data: bytes) -> None:
        self.refs.setdefault(repository, {})[path] = data.decode("ascii", "replace").strip()


class _Whole:
    """Reads all at the first read, and has it checked before it hands out any of it."""

    def __init__(self, source: Readable, check: Callable[[bytes], None]) -> None:
        self._source, self._check = source, check
        self._data: bytes | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self._data is None:
            self._data = self._source.read(OBJECT_BYTES_MAX + 1)
            self._check(self._data)
        data, self._data = (self._data, b"") if size < 0 else (self._data[:size], self._data[size:])
        return data


def _check_object(name: str, expected: str, data: bytes) -> None:
    if len(data) > OBJECT_BYTES_MAX:
        raise ValueError(f"{name} is too large for an object of a configuration")
    unpack = zlib.decompressobj()
    plain = unpack.decompress(data, OBJECT_BYTES_MAX)
    if hashlib.sha1(plain, usedforsecurity=False).hexdigest() != expected:
        raise ValueError(f"{name} is not the object of its name")
