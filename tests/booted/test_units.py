"""The units' files, without booting anything: what each may do, and that loosening any of it is noticed."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest

from deploy.install import system, versions
from libhive.admin import installation
from libhive.admin.session import SERVICES
from tests.booted.root import CHECKOUT

UNITS = CHECKOUT / "deploy" / "systemd"
EXPOSURE_TENTHS_MAX = {
    "approvals": 5,
    "broker": 5,
    "dashboard": 15,
    "gateway": 15,
    "lifecycle": 6,
    "updater": 5,
}
"""Of ten, as `systemd-analyze security` counts; docs/security.md has the reasons."""
LOOSER = {
    "ProtectSystem=strict": "ProtectSystem=no",
    "NoNewPrivileges=yes": "NoNewPrivileges=no",
    "CapabilityBoundingSet=": "#",
    "PrivateDevices=yes": "PrivateDevices=no",
    "RestrictNamespaces=yes": "RestrictNamespaces=no",
    "SystemCallFilter=@system-service": "#",
}
ALIKE = (
    "CapabilityBoundingSet",
    "LimitCORE",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "NotifyAccess",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProtectHome",
    "ProtectKernelModules",
    "ProtectSystem",
    "Restart",
    "RestrictNamespaces",
    "RestrictSUIDSGID",
    "Slice",
    "SystemCallArchitectures",
    "TimeoutStopSec",
    "Type",
    "UMask",
    "WatchdogSec",
)


def unit(service: str) -> Path:
    return UNITS / f"hive-{service}.service"


def settings(path: Path) -> configparser.SectionProxy:
    """Of [Service]; what may be given more than once is given by its last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser["Service"]


def exposure_tenths(path: Path) -> int:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for .*: ([0-9]+)\.([0-9])", said)
    assert found, said
    return int(found[1]) * 10 + int(found[2])


@pytest.mark.parametrize("service", SERVICES)
def test_exposure_is_what_is_promised(service: str) -> None:
    assert exposure_tenths(unit(service)) <= EXPOSURE_TENTHS_MAX[service]


@pytest.mark.parametrize("line", LOOSER)
@pytest.mark.parametrize("service", ["broker", "lifecycle"])
def test_a_looser_unit_would_be_noticed(service: str, line: str, tmp_path: Path) -> None:
    text = unit(service).read_text()
    assert f"\n{line}\n" in text
    looser = tmp_path / f"hive-{service}.service"
    looser.write_text(text.replace(f"\n{line}\n", f"\n{LOOSER[line]}\n"))
    assert exposure_tenths(looser) > EXPOSURE_TENTHS_MAX[service]


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_is_its_services_own(service: str) -> None:
    own, other = settings(unit(service)), settings(unit("broker"))
    assert own["User"] == f"hive-{service}"
    assert own["Group"] == "hive"
    assert own["ExecStart"] == f"/opt/hyperhive/venv/bin/hive-{service}"
    assert own["StateDirectory"].split()[0] == f"hyperhive/{service}"
    assert own["StateDirectoryMode"] == "0700"
    assert own["WatchdogSec"] == "10s"
    assert own["MemoryDenyWriteExecute"] == "yes"  # too little for the rounded numbers above to show it
    assert {name: own[name] for name in ALIKE} == {name: other[name] for name in ALIKE}


def test_no_unit_leaves_processes_behind() -> None:
    """The cages are units of their own: lifecycle's KillMode has nobody to spare."""
    assert {settings(unit(service))["KillMode"] for service in SERVICES} == {"mixed"}


def test_who_knows_a_door_by_its_user_sees_the_hosts_users() -> None:
    """With PrivateUsers= SO_PEERCRED would call every cage's user nobody. Only the updater has no door."""
    private = [service for service in SERVICES if settings(unit(service)).get("PrivateUsers") == "yes"]
    assert private == ["updater"]


def test_zeromq_may_set_the_scheduling_of_its_threads() -> None:
    """libzmq aborts the process where it may not (booted: with this line gone, no service comes up)."""
    for service in SERVICES:
        assert "\nSystemCallFilter=sched_setscheduler setpriority\n" in unit(service).read_text()


def test_systemd_knows_every_key(tmp_path: Path) -> None:
    """With the programs replaced, which are not here; the booted test verifies the units as they are."""
    for path in [*UNITS.glob("*.service"), *UNITS.glob("*.slice"), *UNITS.glob("*.target")]:
        text = re.sub(r"^(Exec\w+=-?)\S+.*$", r"\1/bin/true", path.read_text(), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text)
    services = [str(tmp_path / unit(service).name) for service in SERVICES]
    command = ["systemd-analyze", "verify", "--man=no", *services, str(tmp_path / "hyperhive.target")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "hive" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_installer_and_doctor_know_the_same_hive() -> None:
    assert tuple(versions.SERVICES) == tuple(sorted(SERVICES))
    assert sorted(system.USERS) == sorted(installation.USERS)
    assert set(system.UNITS) == set(installation.UNITS)
    assert system.TARGET == installation.TARGET
    assert versions.OPT == installation.INSTALLED
    users = (CHECKOUT / "deploy/sysusers/hyperhive.conf").read_text()
    assert sorted(re.findall(r"^u (\S+)", users, re.MULTILINE)) == sorted(system.USERS)
    assert sorted(re.findall(r"^g (\S+)", users, re.MULTILINE)) == sorted(system.GROUPS)


# ---- what doctor reads of the kernel


def test_a_kernel_without_user_namespaces_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user/max_user_namespaces").write_text("0\n")
    found = installation.user_namespaces(tmp_path)
    assert not found.ok
    assert "sysctl -w user.max_user_namespaces" in found.mend
    (tmp_path / "user/max_user_namespaces").write_text("1000\n")
    assert installation.user_namespaces(tmp_path).ok


@pytest.mark.parametrize(("kind", "ok"), [("ext4", True), ("xfs", True), ("overlay", False), ("nfs4", False)])
def test_a_state_that_cannot_be_idmapped_is_noticed(tmp_path: Path, kind: str, ok: bool) -> None:
    (tmp_path / "self").mkdir()
    lines = ["1 0 8:1 / / rw - ext4 /dev/a rw", f"2 1 8:2 / /var/lib rw,noatime shared:1 - {kind} /dev/b rw"]
    (tmp_path / "self/mountinfo").write_text("\n".join(lines))
    assert installation.idmapped_mounts(Path("/var/lib/hyperhive"), tmp_path).ok == ok


def test_missing_controllers_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu pids\n")
    found = installation.controllers(tmp_path)
    assert (found.ok, "memory" in found.detail) == (False, True)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert installation.controllers(tmp_path).ok


def test_files_that_are_not_as_installed_are_noticed(tmp_path: Path) -> None:
    assert not installation.files(tmp_path / "installed.json").ok
    record, file = tmp_path / "installed.json", tmp_path / "file"
    file.write_text("as it was")
    hash = "0a5b5a4e"
    record.write_text(json.dumps({"files": {str(file): hash}}))
    assert f"{file} was changed" in installation.files(record).detail
