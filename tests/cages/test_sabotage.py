"""A cage that does not get one of its controls does not start, and says which one. Each case takes one away, from the
command line or from what the kernel answers; a control whose loss nobody notices is a promise, not a control."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from libhive.problems import Conflict
from services.lifecycle.cages import bubblewrap, cgroups, kernel, limits
from services.lifecycle.cages.cgroups import Group
from tests.cages.conftest import Hutch
from tests.groups import there_are_none

Argv = list[str]
SHARED_ALL_BUT = {
    "no-network": ("user", "ipc", "pid", "uts", "cgroup-try"),
    "own-ipc": ("user", "net", "pid", "uts", "cgroup-try"),
}


def without(*options: str) -> Callable[[Argv], Argv]:
    """An option of bubblewrap and its values left out, up to the next one."""

    def sabotage(argv: Argv) -> Argv:
        at = next(i for i in range(len(argv)) if tuple(argv[i : i + len(options)]) == options)
        return argv[:at] + argv[at + len(options) :]

    return sabotage


def no_filter(argv: Argv) -> Argv:
    at = argv.index("--seccomp")
    return argv[:at] + argv[at + 2 :]


def keeps_capabilities(argv: Argv) -> Argv:
    return ["--cap-add" if word == "--cap-drop" else word for word in argv]


def shares(control: str) -> Callable[[Argv], Argv]:
    """One namespace of the host's, all others its own."""

    def sabotage(argv: Argv) -> Argv:
        at = argv.index("--unshare-all")
        return [*argv[:at], *(f"--unshare-{kind}" for kind in SHARED_ALL_BUT[control]), *argv[at + 1 :]]

    return sabotage


def writable_doors(argv: Argv) -> Argv:
    at = next(i for i, word in enumerate(argv) if word == "--ro-bind" and argv[i + 2] == "/run/hive")
    return [*argv[:at], "--bind", *argv[at + 1 :]]


COMMAND_LINES = {
    "no-capabilities": keeps_capabilities,
    "no-nested-namespaces": without("--disable-userns"),
    "no-network": shares("no-network"),
    "own-ipc": shares("own-ipc"),
    "read-only-doors": writable_doors,
    "read-only-root": without("--remount-ro", "/"),
    "seccomp": no_filter,
}


async def refused(hutch: Hutch, control: str) -> None:
    with pytest.raises(Conflict, match=f"`{control}`"):
        await hutch.start("iris")
    assert not hutch.processes()
    assert not hutch.groups()


@pytest.mark.parametrize("control", sorted(COMMAND_LINES))
async def test_a_command_line_without_a_control(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    real, sabotage = bubblewrap._bwrap, COMMAND_LINES[control]
    monkeypatch.setattr(bubblewrap, "_bwrap", lambda *arguments: sabotage(real(*arguments)))
    await refused(hutch, control)


@pytest.mark.parametrize(
    ("control", "field", "answer"),
    [
        ("no-capabilities", "CapBnd", "1"),
        ("no-new-privileges", "NoNewPrivs", "0"),
        ("seccomp", "Seccomp", "0"),
        ("uid", "Uid", "0 0 0 0"),
    ],
)
async def test_a_kernel_that_answers_otherwise(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch, control: str, field: str, answer: str
) -> None:
    if control == "uid" and os.geteuid() != 0:
        return  # an ordinary user has no other one to give
    real = kernel.status
    monkeypatch.setattr(kernel, "status", lambda pid: real(pid) | {field: answer})
    await refused(hutch, control)


# ---- limits


@pytest.fixture
def versions(hutch: Hutch) -> dict[str, int]:
    """Which version of control groups holds which limit here."""
    groups = cgroups.place(hutch.paths, "iris", cgroups.hierarchies())
    return {limit: group.version for group in groups for limit in group.limits}


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
@pytest.mark.parametrize("limit", ["cpu", "memory", "tasks"])
async def test_a_limit_that_the_kernel_does_not_take(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch, versions: dict[str, int], limit: str
) -> None:
    """The write is answered, and changes nothing."""
    if there_are_none(limit not in versions):
        return  # held by no group here, and promised by none
    real = limits._write
    prefix = {"tasks": "pids"}.get(limit, limit)

    def swallow(file: Path, text: str, *, needed: bool = True) -> None:
        if not file.name.startswith(prefix + "."):
            real(file, text, needed=needed)

    monkeypatch.setattr(limits, "_write", swallow)
    await refused(hutch, f"{limit}:cgroup{versions[limit]}")


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_a_group_that_cannot_be_made(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As below a group that somebody has taken away since."""
    gone = Group(path=str(tmp_path / "gone" / "iris"), version=1, limits=["memory"])
    monkeypatch.setattr(cgroups, "place", lambda *arguments: (gone,))
    await refused(hutch, "memory:cgroup1")


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_a_cage_that_is_not_in_its_group(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch, versions: dict[str, int]
) -> None:
    if there_are_none(not versions):
        return
    real = limits._write

    def outside(file: Path, text: str, *, needed: bool = True) -> None:
        if file.name != "cgroup.procs":
            real(file, text, needed=needed)

    monkeypatch.setattr(limits, "_write", outside)
    await refused(hutch, "`, `".join(f"{limit}:cgroup{versions[limit]}" for limit in sorted(versions)))


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_a_program_without_limits_of_its_own(hutch: Hutch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no groups, and somebody forgot prlimit."""
    monkeypatch.setattr(cgroups, "place", lambda *arguments: ())
    monkeypatch.setattr(limits, "prlimit", lambda wanted, by_rlimit: [])
    wanted = "memory:rlimit" if hutch.cages.kind == "process" else "memory:rlimit`, `tasks:rlimit"
    await refused(hutch, wanted)


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_without_groups_the_programs_have_limits_of_their_own(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side of the case before: no silent downgrade, and none that holds nothing."""
    monkeypatch.setattr(cgroups, "place", lambda *arguments: ())
    cage = await hutch.start("iris")
    by_rlimit: Sequence[str] = [control for control in cage.controls if control.endswith(":rlimit")]
    wanted = {"memory:rlimit"} | ({"tasks:rlimit"} if hutch.cages.kind == "bubblewrap" else set())
    assert set(by_rlimit) == wanted
    done = await hutch.python("iris", "print(len(bytearray(3 << 30)))")
    assert "MemoryError" in done.output
