"""The command line of a cage, compared with a golden file: a change of it is a change of what an agent can reach."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

import pytest

from libhive.names import agent_name
from libhive.problems import Conflict
from libhive.spec import AgentSpec
from services.lifecycle.cages.bubblewrap import Bubblewrap, Line, command_line, staged, staging_place
from services.lifecycle.cages.cgroups import Group
from services.lifecycle.cages.plan import Bind, Installation, Plan

GOLDEN = Path(__file__).parent / "golden"
RUN, STATE = Path("/run/hyperhive"), Path("/var/lib/hyperhive")

PLAN = Plan(
    name=agent_name("iris"),
    generation=3,
    revision=7,
    uid=589_824,
    spec=AgentSpec(
        prompt="You draw.", model="sonnet", allowed_recipients=["hm1nd", "leo"], env={"COLOUR": "red"}
    ),
    doors=RUN / "agents/iris",
    page=RUN / "pages/iris",
    state=STATE / "agents/iris",
    run=RUN / "cages/iris",
    log=STATE / "logs/agents/iris.log",
    claude=Path("/root/hyperhive/.claude-cli/claude_agent_sdk/_bundled/claude"),
    claude_version="2.1.330",
    operator_pronouns="she/her",
    groups=(Group(path="/sys/fs/cgroup/x", version=2, limits=["cpu", "memory", "tasks"]),),
)
CLONE = Installation.laid_out(
    executable=Path("/root/hyperhive/.venv/bin/python"),
    prefix=Path("/root/hyperhive/.venv"),
    base_prefix=Path("/root/.pyenv/versions/3.12.1"),
    package=Path("/root/hyperhive/libhive"),
)


@pytest.fixture(autouse=True)
def staging_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda place: True)


@pytest.mark.parametrize("user", ["root", "user"])
def test_the_command_line(user: str) -> None:
    plan = PLAN if user == "root" else dataclasses.replace(PLAN, uid=1000, groups=())
    line = command_line(plan, CLONE, as_root=user == "root", status_fd=5, filter_fd=6)
    golden = GOLDEN / f"bubblewrap-{user}.txt"
    if "UPDATE_GOLDEN" in os.environ:
        golden.write_text(shown(line))
    assert shown(line) == golden.read_text()


def shown(line: Line) -> str:
    """One option a line."""
    words = [
        f"\n{shlex.quote(word)}" if word.startswith("--") or word in STARTS else shlex.quote(word)
        for word in line.argv
    ]
    return " ".join(words).replace(" \n", "\n") + "\n\n" + line.fstab


STARTS = ("sh", "setpriv", "bwrap", "/opt/hive/venv/bin/python")


@pytest.mark.parametrize("as_root", [True, False])
def test_a_root_of_its_own_takes_the_place_of_the_hosts(as_root: bool) -> None:
    tree = STATE / "roots/debian-1/tree"
    plan = dataclasses.replace(PLAN, root=tree)
    line = command_line(plan, CLONE, as_root=as_root, status_fd=5, filter_fd=6)
    words = " ".join(line.argv)
    seen = words.split("--ro-bind ")[1].split("/usr /usr")[0]
    assert f"{seen}/etc/ssl/certs /etc/ssl/certs" in words
    assert "--ro-bind /usr" not in words
    assert "--ro-bind-try /etc" not in words
    assert str(tree) in (line.fstab if as_root else words)


def test_a_closure_of_nix_is_found_before_the_hosts_programs() -> None:
    plan = dataclasses.replace(PLAN, nix=STATE / "roots/nix-1/tree/nix")
    words = " ".join(command_line(plan, CLONE, as_root=False, status_fd=5, filter_fd=6).argv)
    assert f"--ro-bind {plan.nix} /nix " in words
    assert "--setenv PATH /nix/env/bin:/usr/local/bin" in words
    assert "--ro-bind /usr /usr" in words


def test_neither_the_clone_nor_the_agents_own_variables_are_in_it() -> None:
    for as_root in (True, False):
        line = command_line(PLAN, CLONE, as_root=as_root, status_fd=5, filter_fd=6)
        sources = {words.split()[0] for words in line.fstab.splitlines()} or set(line.argv)
        assert "/root/hyperhive" not in sources
        assert not any("COLOUR" in word for word in line.argv)


def test_an_installed_hyperhive_needs_only_its_environment() -> None:
    installed = Installation.laid_out(
        executable=Path("/opt/hyperhive/bin/python3"),
        prefix=Path("/opt/hyperhive"),
        base_prefix=Path("/usr"),
        package=Path("/opt/hyperhive/lib/python3.11/site-packages/libhive"),
    )
    assert installed.binds == (Bind(Path("/opt/hyperhive"), "/opt/hive/venv"),)
    assert installed.python == "/opt/hive/venv/bin/python3"
    assert installed.python_path == ""


def test_the_stage_hides_no_source() -> None:
    sources = [Path("/mnt/disk/state"), Path("/run/hyperhive")]
    assert staging_place(sources, lambda place: True) == Path("/media")
    assert staging_place(sources, lambda place: place == "/opt") == Path("/opt")
    with pytest.raises(Conflict, match="no room"):
        staging_place(sources, lambda place: False)


def test_a_file_is_staged_by_its_directory_and_each_directory_once() -> None:
    binds = [
        Bind(Path("/a b/x"), "/x", is_file=True),
        Bind(Path("/a b/y"), "/y", is_file=True),
        Bind(Path("/c"), "/c", writable=True),
    ]
    moved, fstab = staged(binds, Path("/mnt"))
    assert fstab == "/a\\040b /mnt/0 none bind,X-mount.mkdir 0 0\n/c /mnt/1 none bind,X-mount.mkdir 0 0\n"
    assert [str(bind.source) for bind in moved] == ["/mnt/0/x", "/mnt/0/y", "/mnt/1"]


@pytest.mark.parametrize("program", ["bwrap", "cat", "nsenter", "prlimit"])
def test_a_program_that_is_not_there_is_named_with_its_package(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == program else f"/usr/bin/{name}")
    with pytest.raises(Conflict, match=f"{program} is not installed"):
        Bubblewrap.__new__(Bubblewrap).check()
