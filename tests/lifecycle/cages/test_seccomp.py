from __future__ import annotations

import platform
import re
import struct
from pathlib import Path

import pytest

from libhive.problems import Conflict
from services.lifecycle.cages import seccomp

HEADERS = {
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
}
ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("no kernel headers here")
    known = {
        name: int(number) for name, number in re.findall(r"__NR_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    }
    table = seccomp._MACHINES[machine]
    ours = table.denied | {"clone": table.clone, "socket": table.socket}
    assert {name: known.get(name) for name in ours} == ours


@pytest.mark.parametrize("machine", HEADERS)
def test_every_verdict(machine: str) -> None:
    table = seccomp._MACHINES[machine]
    filter_ = seccomp.program(machine)
    for name, number in table.denied.items():
        assert verdict(filter_, table.audit, number) == (ENOSYS if name == "clone3" else EPERM)
    for family in range(50):
        allowed = ALLOW if family in (1, 2, 10, 16) else EAFNOSUPPORT
        assert verdict(filter_, table.audit, table.socket, family) == allowed
    assert verdict(filter_, table.audit, table.clone, 0x01200011) == ALLOW  # as fork does
    for new in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(filter_, table.audit, table.clone, new | 17) == EPERM
    assert verdict(filter_, table.audit, 0) == ALLOW
    assert verdict(filter_, table.audit, 0x40000000) == KILL
    assert verdict(filter_, 0x40000003, 0) == KILL  # 32-bit calls


def test_an_unknown_architecture_gets_no_cage() -> None:
    with pytest.raises(Conflict, match="control `seccomp` on riscv64"):
        seccomp.program("riscv64")


def test_this_machine_is_known() -> None:
    assert seccomp.program(platform.machine())


def verdict(filter_: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """What the kernel's BPF machine would make of it."""
    data = struct.pack("<IIQQ", number, architecture, 0, argument)
    lines = list(struct.iter_unpack("HBBI", filter_))
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, constant = lines[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            return int(constant)
        else:
            holds = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }
            at += if_true if holds[code] else if_false
