"""Where the groups of a cage are made, on trees of plain files: this host has but one kind of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libhive.paths import Paths
from services.lifecycle.cages import cgroups
from services.lifecycle.cages.cgroups import Group

PATHS = Paths(Path("/run/hyperhive"), Path("/var/lib/hyperhive"))
NAME = cgroups.name_of(PATHS, "iris")
ALL = ["cpu", "memory", "tasks"]


class Host:
    """A v2 tree, and a v1 tree of each controller."""

    def __init__(self, root: Path, own: str) -> None:
        self.root, self.proc, self.own = root, root / "proc", own
        self.proc.mkdir()
        mounts, groups = [f"1 1 0:1 / {root}/unified rw - cgroup2 cgroup2 rw"], [f"0::{own}"]
        for number, controller in enumerate(("cpu,cpuacct", "memory", "pids"), 1):
            mounts.append(f"1 1 0:1 / {root}/{controller} rw - cgroup cgroup rw,{controller}")
            groups.append(f"{number}:{controller}:{own}")
            self.group(controller, own)
        (self.proc / "mountinfo").write_text("\n".join(mounts))
        (self.proc / "cgroup").write_text("\n".join(groups))
        self.group("unified", own, "12", "13")

    def group(self, tree: str, path: str, *pids: str, gives: str = "") -> Path:
        directory = self.root / tree / path.strip("/")
        for each in (directory, *directory.parents):
            if each.is_relative_to(self.root / tree):
                each.mkdir(parents=True, exist_ok=True)
                for file in ("cgroup.procs", "cgroup.subtree_control"):
                    (each / file).touch()
        (directory / "cgroup.procs").write_text("\n".join(pids))
        (directory / "cgroup.subtree_control").write_text(gives)
        return directory

    def placed(self) -> list[tuple[str, int, list[str]]]:
        groups = cgroups.place(PATHS, "iris", cgroups.hierarchies(self.proc))
        return [
            (str(group.directory.relative_to(self.root)), group.version, group.limits) for group in groups
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, "/user/app/hive.scope")


V1 = [
    (f"cpu,cpuacct/user/app/hive.scope/{NAME}", 1, ["cpu"]),
    (f"memory/user/app/hive.scope/{NAME}", 1, ["memory"]),
    (f"pids/user/app/hive.scope/{NAME}", 1, ["tasks"]),
]


def test_without_controllers_in_v2_it_is_v1(host: Host) -> None:
    assert host.placed() == V1


def test_what_was_given_to_us_is_used_and_left_by_every_process(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = host.root / "unified/user/app/hive.scope"
    monkeypatch.setattr(cgroups, "_delegated", lambda group: group == own)
    # in the kernel each write adds one; here the last one stays
    monkeypatch.setattr(cgroups, "CONTROLLERS", {"memory": "memory"})
    (own / "cgroup.subtree_control").write_text("")
    cgroups._step_aside(own)
    assert (own / "hive-services/cgroup.procs").read_text() in ("12", "13")
    assert (own / "cgroup.subtree_control").read_text() == "+memory"
    (own / "cgroup.subtree_control").write_text("memory")
    monkeypatch.setattr(cgroups, "_step_aside", lambda group: None)
    assert host.placed() == [(f"unified/user/app/hive.scope/{NAME}", 2, ["memory"])]


def test_root_uses_the_top_and_nothing_of_systemds(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.group("unified", "/", gives="cpu memory pids")
    host.group("unified", "/user/app", gives="cpu memory pids")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host.placed() == [(f"unified/{NAME}", 2, ALL)]


def test_an_ordinary_user_uses_the_nearest_that_is_theirs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.group("unified", "/", gives="cpu memory pids")
    app = host.group("unified", "/user/app", gives="memory pids")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(cgroups, "_writable", lambda group: group if group.is_relative_to(app) else None)
    assert host.placed() == [(f"unified/user/app/{NAME}", 2, ["memory", "tasks"])]


def test_what_v2_does_not_hold_is_held_by_v1(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.group("unified", "/", gives="memory")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host.placed() == [(f"unified/{NAME}", 2, ["memory"]), V1[0], V1[2]]


def test_who_may_write_nowhere_gets_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_writable", lambda group: None)
    assert host.placed() == []


def test_what_is_mounted_elsewhere_than_we_are_is_not_used(host: Host) -> None:
    """As in a container that sees a part of the tree which it is not in."""
    mounts = (host.proc / "mountinfo").read_text().replace("0:1 / ", "0:1 /other ")
    (host.proc / "mountinfo").write_text(mounts)
    assert host.placed() == []


def test_groups_that_nobody_remembers_are_found_by_their_names(host: Host) -> None:
    other = cgroups.name_of(Paths(Path("/run/other"), PATHS.state), "iris")
    for name in (NAME, other, "hive-services", "docker"):
        host.group("memory", f"/elsewhere/{name}")
    found = list(cgroups.left_over(PATHS, cgroups.hierarchies(host.proc)))
    assert found == [("iris", Group(path=f"{host.root}/memory/elsewhere/{NAME}", version=1, limits=[]))]
