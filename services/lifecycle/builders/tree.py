"""The tree of files that a cage gets for its `/usr`: what may not be in it is taken out, the rest is for all to read.

Everything here works below a descriptor and follows no link: the tree is what installation scripts have made of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

READABLE_DIRECTORY = 0o755
STATUS_BYTES_MAX = 32 << 20
_NOT_FOR_CAGES = ("etc/gshadow", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/shadow")
"""What was copied from this host, and what would have to be a secret."""
_STORE_ENTRY = re.compile(r"[0-9a-z]{32}-(?P<name>.+?)(?:-(?P<version>[0-9][^/]*))?")


def tidy(directory: int) -> int:
    """No setuid, no device nodes, nothing that is closed to anybody, nothing that anybody may write to. Returns how many
    bytes there are."""
    size = 0
    os.fchmod(directory, READABLE_DIRECTORY)
    for _, folders, files, fd in os.fwalk(".", dir_fd=directory):
        for name in folders:
            if not stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.chmod(name, READABLE_DIRECTORY, dir_fd=fd)
        size += sum(_tidy_file(name, fd) for name in files)
    for path in _NOT_FOR_CAGES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path, dir_fd=directory)
    return size


def packages(directory: int) -> dict[str, str]:
    """What is in it and in which version, as dpkg or the Nix store says; empty where neither says anything."""
    with contextlib.suppress(FileNotFoundError):
        return dpkg_packages(_read(directory, "var/lib/dpkg/status"))
    with contextlib.suppress(FileNotFoundError):
        return store_packages(_names(directory, "nix/store"))
    return {}


def dpkg_packages(status: str) -> dict[str, str]:
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields.get("Version", "")
    return dict(sorted(found.items()))


def store_packages(names: list[str]) -> dict[str, str]:
    entries = (_STORE_ENTRY.fullmatch(name) for name in names if not name.endswith((".drv", ".lock")))
    return {entry["name"]: entry["version"] or "" for entry in sorted(filter(None, entries), key=str)}


def _tidy_file(name: str, fd: int) -> int:
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if stat.S_ISREG(found.st_mode):
        wanted = 0o755 if found.st_mode & 0o111 else 0o644
        if stat.S_IMODE(found.st_mode) != wanted:
            os.chmod(name, wanted, dir_fd=fd)
        return found.st_size // found.st_nlink
    if not stat.S_ISLNK(found.st_mode):
        os.unlink(name, dir_fd=fd)
    return 0


def _names(directory: int, path: str) -> list[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries]
    finally:
        os.close(fd)


def _read(directory: int, path: str) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb") as file:
        return file.read(STATUS_BYTES_MAX).decode(errors="replace")
