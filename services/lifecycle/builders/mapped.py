"""The users of a build, for one who may not call newuidmap: under NoNewPrivileges, which systemd sets for every unit that
has a user and a filter of system calls, no program of the host gains anything.

systemd lets this process begin with CAP_SETUID and CAP_SETGID. They are used once, for the ids that /etc/subuid says are its
own, and given up before anything else is read or executed.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from libhive.problems import Conflict
from services.lifecycle.builders.users import IDS, Users, subordinate

_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def users(etc: Path = Path("/etc")) -> Users:
    """With a namespace that has them. We have no capability any more."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        uids = [(0, subordinate(etc / "subuid", uid), IDS)]
        gids = [(0, subordinate(etc / "subgid", uid), IDS)]
        return Users(uid, gid, uids, gids, namespace=_namespace(uids, gids))
    finally:
        _give_up()


def _namespace(uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]]) -> int:
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(done[1])
        if _libc.unshare(_CLONE_NEWUSER) == 0:
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.close(ready[1])
    try:
        if not os.read(ready[0], 1):
            raise Conflict("the kernel gives a build no user namespace", "sudo hive-admin doctor")
        for kind, ranges in (("uid", uids), ("gid", gids)):
            table = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
            Path(f"/proc/{pid}/{kind}_map").write_text(table)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    finally:
        for descriptor in (ready[0], *done):
            os.close(descriptor)
        os.waitpid(pid, 0)


def _give_up() -> None:
    """All three sets, and with them the ambient one. Ends the process if any is left."""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _libc.capset(header, none)
    left = re.findall(
        r"^Cap(?:Inh|Prm|Eff|Amb):\s*(\S+)$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    if len(left) != 4 or any(int(mask, 16) for mask in left):
        raise SystemExit("E: the build could not give up its capabilities")
