"""`make install` in a Debian booted by systemd, without network: what it leaves, what doctor says when something of it is
broken, an upgrade, and the way out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from libhive.admin import installation
from tests.booted.container import Container
from tests.booted.hive import is_idle
from tests.booted.layer import INSTALL, installed
from tests.booted.root import CHECKOUT

UNITS = installation.UNITS
PLACES = (
    "HIVE_RUN_DIR=/run/hyperhive",
    "HIVE_STATE_DIR=/var/lib/hyperhive",
    "HIVE_CLAUDE=/opt/hyperhive/libexec/claude",
)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with Container(on=installed(), limits=True) as booted:
        await_manager(booted)
        yield booted


def await_manager(container: Container) -> None:
    container.until("the manager", lambda: is_idle(container, "hm1nd"))
    assert "idle" in container.run("hive-admin", "status")


def to_mend(container: Container) -> dict[str, str]:
    """What doctor finds wrong, by what it says of it, and what it says mends it. Not by /usr/local/bin, which may be what
    is broken."""
    doctor = ["/opt/hyperhive/venv/bin/hive-admin", "doctor", "--json"]
    said = container.run("env", *PLACES, *doctor, status=None)
    return {found["detail"]: found["mend"] for found in json.loads(said)["findings"] if not found["ok"]}


def test_it_comes_up_and_doctor_finds_nothing(container: Container) -> None:
    said = installed().said
    for step in ("Python environment and packages", "users, units and directories", "starting the services"):
        assert f"{step}: done" in said
    assert "sudo adduser YOU hive-admin" in said
    assert to_mend(container) == {}


def test_systemd_finds_nothing_wrong_with_the_units(container: Container) -> None:
    files = container.shell(
        "cd /etc/systemd/system && ls -d $PWD/hive-*.service $PWD/hive-*.slice $PWD/hyperhive.target"
    )
    assert container.run("systemd-analyze", "verify", *files.split()) == ""


def test_each_service_runs_as_itself_without_rights(container: Container) -> None:
    for unit in UNITS:
        pid = container.unit(unit, "MainPID")["MainPID"]
        lines = container.run("cat", f"/proc/{pid}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert container.run("id", "-un", status["Uid"].split()[0]).strip() == unit.removesuffix(".service")
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


INSTALL_IT, TMPFILES = "sudo make install", "sudo systemd-tmpfiles --create"
BREAKS = {
    "a unit is stopped": (
        "systemctl stop hive-updater",
        "hive-updater.service inactive",
        "sudo systemctl start hive-updater.service",
    ),
    "a unit does not start with the machine": (
        "systemctl disable hive-broker",
        "hive-broker.service disabled: it does not start with the machine",
        "sudo systemctl enable hive-broker.service",
    ),
    "a unit was edited": (
        "echo '# x' >> /etc/systemd/system/hive-gateway.service",
        "hive-gateway.service was changed",
        INSTALL_IT,
    ),
    "the polkit rule is gone": (
        "rm /etc/polkit-1/rules.d/50-hyperhive.rules; sleep 1",
        "does not let hive-lifecycle start",
        INSTALL_IT,
    ),
    "hive-admin is gone": ("rm /usr/local/bin/hive-admin", "/usr/local/bin/hive-admin is gone", INSTALL_IT),
    "the gate is open": ("chmod 755 /run/hyperhive", "and should be 0750 root:hive-admin", TMPFILES),
    "all can write the bus": ("chmod 1777 /run/hyperhive/bus", "and should be 1775 root:hive", TMPFILES),
    "others can read a state": (
        "chmod 755 /var/lib/hyperhive/broker",
        "should be 0700 hive-broker:hive",
        "sudo chmod 700 /var/lib/hyperhive/broker",
    ),
    "a state is another's": (
        "chown hive-gateway /var/lib/hyperhive/updater",
        "should be 0700 hive-updater:hive",
        "sudo chown -R hive-updater:hive /var/lib/hyperhive/updater",
    ),
    "a service is no member": (
        "gpasswd -d hive-gateway hive-admin",
        "not in the group hive-admin: hive-gateway",
        "sudo adduser hive-gateway hive-admin",
    ),
    "its ids are gone": (
        "sed -i /hive-builder/d /etc/subuid",
        "/etc/subuid gives hive-builder no range",
        "sudo usermod --add-subuids 524288-589823",
    ),
    "a user is gone": ("userdel hive-builder", "missing: hive-builder", INSTALL_IT),
    "the CLI is gone": ("rm /opt/hyperhive/libexec/claude", "there is no program", INSTALL_IT),
    "nspawn is gone": (
        "mv /usr/bin/systemd-nspawn /usr/bin/nspawn",
        "missing: systemd-container",
        "sudo apt-get install systemd-container",
    ),
    "another has the port": (
        "systemctl stop hive-dashboard; systemd-run --uid=nobody socat TCP-LISTEN:7000,fork /dev/null; sleep 0.5",
        "7000 is taken by user nobody",
        "HIVE_DASHBOARD_PORT",
    ),
}
NOT_BY_INSTALLING = """
mv /usr/bin/nspawn /usr/bin/systemd-nspawn
systemctl stop 'run-*.service'
chown hive-updater /var/lib/hyperhive/updater
chmod 700 /var/lib/hyperhive/broker
"""


def test_doctor_names_each_thing_that_is_broken_and_what_mends_it(container: Container) -> None:
    for how, _, _ in BREAKS.values():
        container.shell(how)
    found = to_mend(container)
    for what, (_, detail, mend) in BREAKS.items():
        assert any(detail in said and mend in line for said, line in found.items()), (what, found)


def test_installing_again_mends_it_and_keeps_the_state(container: Container) -> None:
    container.shell(NOT_BY_INSTALLING)
    said = container.run(*INSTALL, seconds=200)
    assert "hyperhive is installed and runs" in said
    await_manager(container)
    assert to_mend(container) == {}


def test_installing_what_is_installed_changes_nothing(container: Container) -> None:
    before = container.units(UNITS, "MainPID")
    container.run(*INSTALL)
    assert container.units(UNITS, "MainPID") == before


NEWER = f"""
mkdir /root/newer
cd {CHECKOUT}
cp -r Makefile README.md pyproject.toml deploy docs libhive requirements services /root/newer
cd /root/newer
rm deploy/systemd/hive-services.slice
sed -i 's/^version = .*/version = "9.9.9"/' pyproject.toml
"""


def test_an_upgrade_keeps_state_settings_and_cages(container: Container) -> None:
    container.run("hive-admin", "send", "hm1nd", "water the plants")
    container.shell("echo HIVE_OPERATOR_PRONOUNS=they/them >> /etc/hyperhive/hive.env")
    cage = container.unit("hive-cage@hm1nd.service", "MainPID")
    container.shell(NEWER)
    newer = [word if word != str(CHECKOUT) else "/root/newer" for word in INSTALL]
    container.run(*newer, seconds=200)
    assert "version 9.9.9" in container.run("hive-admin", "doctor", status=None)
    assert container.unit("hive-cage@hm1nd.service", "MainPID") == cage
    assert "water the plants" in container.run("hive-admin", "search", "plants")
    assert "they/them" in container.run("cat", "/etc/hyperhive/hive.env")
    assert not container.path("/etc/systemd/system/hive-services.slice").exists()
    assert len(container.run("ls", "/opt/hyperhive/versions").split()) == 2


LEFT = """
ls -d /opt/hyperhive /run/hyperhive /etc/*/hyperhive.conf /etc/*/*/*hyperhive* 2>/dev/null
ls -d /etc/systemd/system.control/*hive* /run/systemd/system.control/*hive* 2>/dev/null
grep /hyperhive/ /proc/1/mountinfo
ls -d /usr/local/bin/hive* /etc/systemd/system/*hive* /etc/systemd/system/*.wants/*hive* 2>/dev/null
ps -eo user,comm --no-headers | grep hive
machinectl --no-legend
systemctl list-units --all --no-legend 'hive*' 'hyperhive*'
"""


def test_uninstall_leaves_the_state_and_says_where_it_is(container: Container) -> None:
    said = container.run("make", "-C", str(CHECKOUT), "uninstall")
    assert "/var/lib/hyperhive" in said
    assert "PURGE=yes" in said
    assert container.run("sh", "-c", LEFT, status=None) == ""
    assert container.path("/var/lib/hyperhive/broker/broker.sqlite").exists()


def test_purge_leaves_nothing(container: Container) -> None:
    container.run("make", "-C", str(CHECKOUT), "uninstall", "PURGE=yes")
    assert container.run("sh", "-c", LEFT, status=None) == ""
    for path in ("/var/lib/hyperhive", "/etc/hyperhive", "/var/log/hyperhive-install.log"):
        assert not container.path(path).exists()
    assert "hive" not in container.run("cat", "/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid")
