"""The services as units: whatever ends one, it is back; a reboot and a restore change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.booted.container import Container
from tests.booted.hive import is_caged
from tests.booted.layer import installed

SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
UNITS = [f"hive-{service}.service" for service in SERVICES]
BOMB = """
import runpy, signal, sys
held = []
signal.signal(signal.SIGUSR2, lambda *_: held.append(bytearray(b"x") * (1 << 30)))
runpy.run_module(f"services.{sys.argv[1]}", run_name="__main__", alter_sys=True)
"""
"""The service itself, that on SIGUSR2 takes more memory than it may have."""
SOONER = """
[Service]
MemoryMax=160M
MemorySwapMax=0
ExecStart=
ExecStart=/opt/hyperhive/venv/bin/python /usr/local/lib/bomb.py {service}
"""


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """Where limits bite, with limits that are soon reached, and Anna, who may use the hive."""
    files = {"/usr/local/lib/bomb.py": BOMB}
    for service in SERVICES:
        place = f"/etc/systemd/system/hive-{service}.service.d/test.conf"
        files[place] = SOONER.format(service=service)
    with Container(on=installed(), limits=True, files=files) as booted:
        booted.run("useradd", "-m", "-G", "hive-admin", "anna")
        booted.run("useradd", "-m", "otto")
        booted.until("six services", lambda: len(pids(booted)) == len(UNITS))
        yield booted


def pids(container: Container) -> dict[str, str]:
    """Of the services that are up."""
    found = container.units(UNITS, "Id", "ActiveState", "MainPID")
    return {about["Id"]: about["MainPID"] for about in found if about["ActiveState"] == "active"}


def all_new(container: Container, before: dict[str, str]) -> bool:
    now = pids(container)
    return len(now) == len(UNITS) and not set(now.values()) & set(before.values())


@pytest.mark.parametrize("unit", UNITS)
def test_one_that_is_killed_comes_back_and_no_other_notices(container: Container, unit: str) -> None:
    before = pids(container)
    assert len(before) == len(UNITS)
    container.run("systemctl", "kill", "--signal=KILL", unit)
    container.until(f"another {unit}", lambda: pids(container).get(unit, before[unit]) != before[unit])
    others = {name: pid for name, pid in pids(container).items() if name != unit}
    assert others == {name: pid for name, pid in before.items() if name != unit}


def test_one_that_hangs_is_ended_by_its_watchdog_and_comes_back(container: Container) -> None:
    before = pids(container)
    container.run("systemctl", "kill", "--signal=STOP", *UNITS)
    container.until("six other services", lambda: all_new(container, before))
    for unit in UNITS:
        assert "Watchdog timeout (limit 10s)" in container.journal(unit), unit


def test_one_that_takes_too_much_memory_is_ended_and_comes_back(container: Container) -> None:
    before = pids(container)
    container.run("systemctl", "kill", "--signal=USR2", *UNITS)
    container.until("six other services", lambda: all_new(container, before))
    for unit in UNITS:
        after = container.journal(unit).rpartition("Sent signal SIGUSR2")[2]
        assert "status=9/KILL" in after, after


def test_only_members_of_the_group_may_use_it(container: Container) -> None:
    assert "hm1nd" in container.run("hive-admin", "status", user="anna")
    refused = container.run("hive-admin", "status", user="otto", status=None)
    assert "sudo adduser otto hive-admin" in refused
    assert "Traceback" not in refused
    assert "Permission denied" in container.run("ls", "/run/hyperhive/bus", user="otto", status=None)
    assert "Permission denied" in container.run("ls", "/var/lib/hyperhive/broker", user="anna", status=None)


def test_one_service_cannot_read_or_replace_what_is_anothers(container: Container) -> None:
    for attempt in (
        "cat /var/lib/hyperhive/gateway/gateway.sqlite",
        "rm /run/hyperhive/bus/broker.sock",
        "mv /run/hyperhive/bus/broker.lock /run/hyperhive/bus/other",
        "cat /run/hyperhive/bus/broker.lock",
        "rm /run/hyperhive/agents/hm1nd/broker.sock",
    ):
        said = container.run("sh", "-c", attempt, user="hive-dashboard", status=None)
        assert "Permission denied" in said or "Operation not permitted" in said, attempt


def test_a_reboot_changes_nothing(container: Container) -> None:
    container.run("hive-admin", "send", "hm1nd", "water the plants", user="anna")
    container.run("hive-admin", "login", "--stdin", input="sk-ant-oat-" + "x" * 40, user="anna")
    container.reboot()
    container.until("six services", lambda: len(pids(container)) == len(UNITS))
    container.until("the manager, in its cage", lambda: is_caged(container, "hm1nd"))
    assert "hm1nd  running" in container.run("hive-admin", "agents", user="anna")
    assert "water the plants" in container.run("hive-admin", "search", "plants", user="anna")
    assert "rehearsal" not in container.run("hive-admin", "status", user="anna")


def test_a_backup_is_restored_to_whom_it_belonged(container: Container) -> None:
    before = owners(container)
    container.run("hive-admin", "backup", "/tmp/hive.tar.gz", user="anna")
    container.run("hive-admin", "send", "hm1nd", "sent after the backup", user="anna")
    refused = container.run("hive-admin", "restore", "/tmp/hive.tar.gz", "--yes", status=None)
    assert "sudo systemctl stop hyperhive.target hive.slice" in refused
    container.run("systemctl", "stop", "hyperhive.target", "hive.slice")
    states = container.run("systemctl", "is-active", *UNITS, "hive-cage@hm1nd.service", status=None).split()
    assert "active" not in states
    container.run("hive-admin", "restore", "/tmp/hive.tar.gz", "--yes")
    container.run("systemctl", "start", "hyperhive.target")
    container.until("six services", lambda: len(pids(container)) == len(UNITS))
    assert "water the plants" in container.run("hive-admin", "search", "plants", user="anna")
    assert "sent after" not in container.run("hive-admin", "search", "backup", user="anna", status=None)
    assert owners(container) == before


def owners(container: Container) -> dict[str, str]:
    script = "find /var/lib/hyperhive -maxdepth 3 -not -path '*before-restore*' -not -path '*backups*' -printf '%p %u:%g %m\\n'"
    found = dict(line.split(" ", 1) for line in container.shell(script).splitlines())
    return {
        path: owner for path, owner in found.items() if path.endswith((".sqlite", "config", "agents", ".git"))
    }
