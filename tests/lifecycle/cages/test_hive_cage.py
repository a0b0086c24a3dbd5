"""The script that runs as root: what it believes of a plan (nothing), and what it then executes, compared with a golden file."""

from __future__ import annotations

import base64
import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.lifecycle.cages import seccomp
from services.lifecycle.cages.nspawn import FAMILIES, plan_file, properties
from tests.lifecycle.cages.test_bubblewrap import GOLDEN, PLAN

SYSTEMD = Path(__file__).parents[3] / "deploy/systemd"
SCRIPT, UNIT = SYSTEMD / "hive-cage", SYSTEMD / "hive-cage@.service"
EXPOSURE_MAX = 4.4
"""Argued for in docs/security.md. Of systemd's own systemd-nspawn@.service it is 9.5."""
NSPAWN = dataclasses.replace(PLAN, uid=590_824)


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    loader = importlib.machinery.SourceFileLoader("hive_cage", str(SCRIPT))
    spec = importlib.util.spec_from_loader("hive_cage", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def plan() -> dict[str, Any]:
    return msgspec.json.decode(
        msgspec.json.encode(plan_file(NSPAWN, seccomp.program("x86_64"))), type=dict[str, Any]
    )


def test_what_lifecycle_writes_is_what_it_reads(script: types.ModuleType) -> None:
    read = script.check(plan(), "iris")
    assert read["uid_base"] == 589_824
    assert base64.b64decode(read["seccomp"]) == seccomp.program("x86_64")
    assert json.loads(read["files"]["hive/spec.json"])["model"] == "sonnet"


def test_the_command_line(script: types.ModuleType) -> None:
    setting = {
        "prefix": "/opt/hyperhive/venv",
        "claude": "/opt/hyperhive/libexec/claude", "etc": {"ssl/certs": "/etc/ssl/certs"}, "own": {},
    }  # fmt: skip
    argv = script.command("iris", script.check(plan(), "iris"), "/run/hive-cage/iris", setting)
    golden = GOLDEN / "nspawn.txt"
    if "UPDATE_GOLDEN" in os.environ:
        golden.write_text("\n".join(argv) + "\n")
    assert "\n".join(argv) + "\n" == golden.read_text()
    assert not any("COLOUR" in word for word in argv)  # the agent's own variables are not for the harness


def test_an_agents_own_root_takes_the_place_of_the_hosts(script: types.ModuleType) -> None:
    made = Path("/var/lib/hyperhive/roots/debian-0123456789abcdef/tree")
    own = plan_file(dataclasses.replace(NSPAWN, root=made), b"")
    assert script.check(own, "iris")["root"] == "debian-0123456789abcdef"
    setting = {"prefix": "/p", "claude": "/c", "etc": {"ssl/certs": "/run/e"}, "own": {"usr": "/run/u"}}
    argv = script.command("iris", own, "/run/hive-cage/iris", setting)
    assert {"--bind-ro=/run/u:/usr", "--bind-ro=/run/e:/etc/ssl/certs"} <= set(argv)
    own = plan_file(dataclasses.replace(NSPAWN, nix=made.parents[1] / "nix-0123456789abcdef/tree/nix"), b"")
    assert script.check(own, "iris")["root"] == "nix-0123456789abcdef"
    argv = script.command("iris", own, "/x", setting | {"own": {"nix": "/run/n"}})
    assert {"--bind-ro=/usr:/usr", "--bind-ro=/run/n:/nix"} <= set(argv)


def test_the_managers_machine_has_its_own_name(script: types.ModuleType) -> None:
    own = plan() | {"name": "hm1nd"}
    setting = {"own": {}, "prefix": "/p", "claude": "/c", "etc": {}}
    argv = script.command("hm1nd", script.check(own, "hm1nd"), "/run/hive-cage/hm1nd", setting)
    assert "--machine=hm1nd" in argv


WITHOUT = object()
HOSTILE: dict[str, dict[str, Any]] = {
    "another agent's name": {"name": "mallory"},
    "no name": {"name": WITHOUT},
    "a name that is a path": {"name": "../iris"},
    "a newer version": {"version": 2},
    "a version that is true": {"version": True},
    "a field it does not know": {"capability": "all"},
    "a path for the root": {"directory": "/"},
    "a bind of its own": {"binds": ["/:/host"]},
    "options of nspawn's": {"options": ["--capability=all"]},
    "a field is missing": {"seccomp": WITHOUT},
    "the host's users": {"uid_base": 0},
    "users of people": {"uid_base": 65_536},
    "a range that begins elsewhere": {"uid_base": 589_825},
    "a range beyond the last": {"uid_base": 524_288 + 65_536 * 901},
    "a negative range": {"uid_base": -65_536},
    "a range that is a text": {"uid_base": "589824"},
    "a range that is a fraction": {"uid_base": 589_824.0},
    "a range that is true": {"uid_base": True},
    "a root that is a path": {"root": "/"},
    "a root that leads out": {"root": "../../etc"},
    "a root of another length": {"root": "debian-" + "a" * 65},
    "a root with a newline": {"root": "debian-" + "a" * 64 + "\n"},
    "a root that is a list": {"root": ["debian-" + "a" * 64]},
    "a CLI that is a path": {"claude": "/bin/sh"},
    "generation zero": {"generation": 0},
    "a program that is one text": {"program": "-c"},
    "no program": {"program": []},
    "a program with a NUL": {"program": ["-c", "\0"]},
    "too long a program": {"program": ["x"] * 65},
    "a variable that is an option": {"environment": {"--capability": "all"}},
    "a variable with an equals sign": {"environment": {"A=B": "c"}},
    "a variable in small letters": {"environment": {"path": "/"}},
    "a variable of two lines": {"environment": {"A": "b\nc"}},
    "a variable that is a number": {"environment": {"A": 1}},
    "a file elsewhere": {"files": {**plan()["files"], "../../root/x": ""}},
    "a file it does not know": {"files": {**plan()["files"], "shadow": ""}},
    "files that are missing": {"files": {}},
    "a file that is no text": {"files": {**plan()["files"], "hosts": 1}},
    "a filter that is a list": {"seccomp": []},
    "a filter of a megabyte": {"seccomp": "A" * (1 << 20)},
    "limits": {"limits": {"MemoryMax": "infinity"}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_plan_is_refused(script: types.ModuleType, what: str) -> None:
    changed = {key: value for key, value in (plan() | HOSTILE[what]).items() if value is not WITHOUT}
    with pytest.raises(SystemExit, match=r"^hive-cage: the plan"):
        script.check(changed, "iris")


@pytest.mark.parametrize("text", [b"[]", b'"x"', b"null", b"7"])
def test_what_is_no_map_is_refused(script: types.ModuleType, text: bytes) -> None:
    with pytest.raises(SystemExit, match="not a map"):
        script.check(json.loads(text), "iris")


TEXTS = {
    "twice": b'{"name": "iris", "name": "mallory"}',
    "NaN": b'{"uid_base": NaN}',
    "half": b'{"name": ',
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"name": "\xff"}',
    "too long": b" " * ((2 << 20) + 1),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_no_plan_is_refused(script: types.ModuleType, tmp_path: Path, what: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(TEXTS[what])
    path.chmod(0o600)
    with pytest.raises(SystemExit, match=r"^hive-cage: the plan"):
        script.read_plan(str(path), {os.geteuid()})


def test_a_file_that_is_not_lifecycles_own_is_refused(script: types.ModuleType, tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "plan.json", tmp_path / "link", tmp_path / "pipe"
    path.write_text("{}")
    path.chmod(0o600)
    assert script.read_plan(str(path), {os.geteuid()}) == {}
    with pytest.raises(SystemExit, match="not a plain file"):
        script.read_plan(str(path), {os.geteuid() + 1})
    path.chmod(0o620)
    with pytest.raises(SystemExit, match="not a plain file"):
        script.read_plan(str(path), {os.geteuid()})
    link.symlink_to(path)
    with pytest.raises(OSError, match="Too many levels"):
        script.read_plan(str(link), {os.geteuid()})
    os.mkfifo(pipe, 0o600)
    with pytest.raises(SystemExit, match="not a plain file"):
        script.read_plan(str(pipe), {os.geteuid()})


def test_no_link_on_the_way_to_a_directory_is_followed(script: types.ModuleType, tmp_path: Path) -> None:
    (tmp_path / "real/iris").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/file").touch()
    own = {os.geteuid()}
    os.close(script.open_directory(f"{tmp_path}/real/iris", own))
    for path in ("link/iris", "real/none", "real/file"):
        with pytest.raises(SystemExit, match=path):
            script.open_directory(f"{tmp_path}/{path}", own)
    with pytest.raises(SystemExit, match="belongs to user"):
        script.open_directory(f"{tmp_path}/real/iris", set())


NAMES = (
    (),
    ("start",),
    ("start", "../x"),
    ("start", "-x"),
    ("stop", "iris"),
    ("start", "iris", "x"),
    ("end", "iris\n"),
    ("page", "a/b"),
    ("start", "a\\x2db"),
    ("start", "Iris"),
    ("start", "iris-"),
    ("start", "i" * 32),
)


@pytest.mark.parametrize("arguments", NAMES)
def test_it_does_nothing_for_a_name_that_is_none(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env={}, check=False)
    assert (done.returncode, done.stderr) == (1, "hive-cage: usage: hive-cage page|start|end NAME\n")


# ---- the unit


def test_the_exposure_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "hive-cage@iris.service"
    unit.write_text(UNIT.read_text())
    analyze = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={EXPOSURE_MAX * 10:.0f}",
    ]
    done = subprocess.run([*analyze, str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] or done.stderr


def test_the_gate_on_exposure_bites(tmp_path: Path) -> None:
    unit = tmp_path / "hive-cage@iris.service"
    unit.write_text(UNIT.read_text().replace("ProtectSystem=strict\n", ""))
    analyze = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={EXPOSURE_MAX * 10:.0f}",
    ]
    assert subprocess.run([*analyze, str(unit)], capture_output=True, check=False).returncode != 0


def test_the_unit_says_what_lifecycle_reads_back() -> None:
    said = [line.partition("=") for line in UNIT.read_text().splitlines()]
    values = {key: value for key, _, value in said}
    assert sorted(values["RestrictAddressFamilies"].split()) == list(FAMILIES)
    assert (values["KillMode"], values["Delegate"], values["Slice"]) == ("mixed", "yes", "hive-cages.slice")
    assert properties(NSPAWN.spec.limits) == {
        "MemoryMax": 2 << 30,
        "TasksMax": int(values["TasksMax"]),
        "CPUQuotaPerSecUSec": 10_000 * int(values["CPUQuota"].rstrip("%")),
    }


def test_the_documents_give_its_length() -> None:
    """Whoever reads docs/security.md is told how much runs as root."""
    lines = len(SCRIPT.read_text().splitlines())
    assert f"`hive-cage` ({lines} lines)" in (SYSTEMD.parents[1] / "docs/security.md").read_text()
