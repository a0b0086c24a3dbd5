"""The system calls a cage may not make, as a classic BPF program for `bwrap --seccomp`.

A deny list on top of what namespaces and the lack of capabilities already forbid: what widens the kernel's surface
(bpf, io_uring, keyctl, perf, userfaultfd), looks into other processes, makes namespaces or mounts, and sockets of any
family but unix, IPv4, IPv6 and netlink. AF_VSOCK is the one that matters most: it crosses network namespaces.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

from libhive.problems import Conflict

_FILTER: Final = struct.Struct("HBBI")  # sock_filter: code, jump if true, jump if false, constant
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data, little endian
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT = 0x40000000
_CLONE_NEW = 0x7E020080
"""NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""


class _Machine(NamedTuple):
    audit: int
    clone: int
    socket: int
    denied: dict[str, int]


_COMMON: Final = {  # numbers that all architectures share since Linux 5.1
    "clone3": 435, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "mount_setattr": 442, "move_mount": 429, "open_tree": 428,
    "pidfd_getfd": 438, "process_madvise": 440,
}  # fmt: skip

_MACHINES: Final = {
    "aarch64": _Machine(0xC00000B7, 220, 198, _COMMON | {
        "acct": 89, "add_key": 217, "bpf": 280, "chroot": 51, "delete_module": 106, "finit_module": 273,
        "init_module": 105, "kcmp": 272, "kexec_file_load": 294, "kexec_load": 104, "keyctl": 219,
        "lookup_dcookie": 18, "mount": 40, "name_to_handle_at": 264, "open_by_handle_at": 265,
        "perf_event_open": 241, "personality": 92, "pivot_root": 41, "process_vm_readv": 270,
        "process_vm_writev": 271, "ptrace": 117, "quotactl": 60, "reboot": 142, "request_key": 218, "setns": 268,
        "settimeofday": 170, "swapoff": 225, "swapon": 224, "syslog": 116, "umount2": 39, "unshare": 97,
        "userfaultfd": 282, "vhangup": 58,
    }),
    "x86_64": _Machine(0xC000003E, 56, 41, _COMMON | {
        "acct": 163, "add_key": 248, "bpf": 321, "chroot": 161, "delete_module": 176, "finit_module": 313,
        "init_module": 175, "kcmp": 312, "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250,
        "lookup_dcookie": 212, "mount": 165, "name_to_handle_at": 303, "open_by_handle_at": 304,
        "perf_event_open": 298, "personality": 135, "pivot_root": 155, "process_vm_readv": 310,
        "process_vm_writev": 311, "ptrace": 101, "quotactl": 179, "reboot": 169, "request_key": 249, "setns": 308,
        "settimeofday": 164, "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272,
        "userfaultfd": 323, "vhangup": 153,
    }),
}  # fmt: skip


def program(machine: str) -> bytes:
    """The filter for `platform.machine()`.

    Raises Conflict for an architecture whose system-call numbers are not in the table.
    """
    if machine not in _MACHINES:
        known = " and ".join(sorted(_MACHINES))
        raise Conflict(f"a cage cannot get the control `seccomp` on {machine}", f"it is known for {known}")
    table = _MACHINES[machine]
    lines = [
        (_LOAD, _ARCHITECTURE), (_IF_EQUAL, table.audit, 1, 0), (_RETURN, _KILL),
        (_LOAD, _NUMBER), (_IF_AT_LEAST, _X32_BIT, 0, 1), (_RETURN, _KILL),
    ]  # fmt: skip
    for name, number in sorted(table.denied.items(), key=lambda item: item[1]):
        # clone3 hides its flags behind a pointer: ENOSYS makes libc fall back to clone, whose flags can be seen
        lines += [(_IF_EQUAL, number, 0, 1), _fails(errno.ENOSYS if name == "clone3" else errno.EPERM)]
    lines += [
        (_IF_EQUAL, table.clone, 0, 4), (_LOAD, _FIRST_ARGUMENT), (_IF_ANY_BIT, _CLONE_NEW, 0, 1),
        _fails(errno.EPERM), (_RETURN, _ALLOW),
    ]  # fmt: skip
    lines += [(_IF_EQUAL, table.socket, 0, 3 + len(_FAMILIES)), (_LOAD, _FIRST_ARGUMENT)]
    lines += [(_IF_EQUAL, family, len(_FAMILIES) - index, 0) for index, family in enumerate(_FAMILIES)]
    lines += [_fails(errno.EAFNOSUPPORT), (_RETURN, _ALLOW), (_RETURN, _ALLOW)]
    return b"".join(_line(*line) for line in lines)


def _fails(number: int) -> tuple[int, int]:
    return _RETURN, _ERRNO | number


def _line(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _FILTER.pack(code, if_true, if_false, constant)
