"""`make install` in a Debian booted by systemd, without network: what it leaves, what doctor says when something of it is
broken, an upgrade, and the way out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from libhive.admin import installation
from tests.booted.container import Container
from tests.booted.layer import WHEELS, installed
from tests.booted.root import CHECKOUT

UNITS = installation.UNITS
INSTALL = ("make", "-C", str(CHECKOUT), "install", f"WHEELS={WHEELS}")
COPIED = "Makefile README.md pyproject.toml deploy docs libhive requirements services .claude-cli"


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with Container(on=installed(), limits=True) as booted:
        booted.until("the manager", lambda: manager_runs(booted))
        yield booted


def manager_runs(container: Container) -> bool:
    return "idle" in container.run("hive-admin", "status", status=None)


def to_mend(container: Container, user: str = "root") -> dict[str, str]:
    """What doctor finds wrong, by what it says of it, and what it says mends it."""
    said = container.run("hive-admin", "doctor", "--json", user=user, status=None)
    return {found["detail"]: found["mend"] for found in json.loads(said)["findings"] if not found["ok"]}


def test_it_comes_up_and_doctor_finds_nothing(container: Container) -> None:
    said = installed().said
    for step in ("Python environment", "Claude Code", "users, units and directories", "starting the services"):
        assert f"{step}" in said
    assert "sudo adduser YOU hive-admin" in said
    assert to_mend(container) == {}


def test_systemd_finds_nothing_wrong_with_the_units(container: Container) -> None:
    files = container.shell("cd /etc/systemd/system && ls -d $PWD/hive-*.service $PWD/hive-*.slice $PWD/hyperhive.target")
    assert container.run("systemd-analyze", "verify", *files.split()) == ""


def test_each_service_runs_as_itself_without_rights(container: Container) -> None:
    for unit in UNITS:
        pid = container.unit(unit, "MainPID")["MainPID"]
        status = dict(line.split(":\t", 1) for line in container.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
        assert container.run("id", "-un", status["Uid"].split()[0]).strip() == unit.removesuffix(".service")
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


BREAKS = {
    "a unit is stopped": ("systemctl stop hive-updater", "hive-updater.service inactive", "sudo systemctl start hive-updater.service"),
    "a unit does not start with the machine": (
        "systemctl disable hive-broker",
        "hive-broker.service disabled: it does not start with the machine",
        "sudo systemctl enable hive-broker.service",
    ),
    "a unit was edited": ("echo '# x' >> /etc/systemd/system/hive-gateway.service", "hive-gateway.service was changed", "sudo make install"),
    "the polkit rule is gone": ("rm /etc/polkit-1/rules.d/50-hyperhive.rules; sleep 1", "does not let hive-lifecycle start", "sudo make install"),
    "hive-admin is gone": ("cp /usr/local/bin/hive-admin /tmp; rm /usr/local/bin/hive-admin", "/usr/local/bin/hive-admin is gone", "sudo make install"),
    "the gate is open": ("chmod 755 /run/hyperhive", "and should be 0750 root:hive-admin", "sudo systemd-tmpfiles --create"),
    "the bus can be written by all": ("chmod 1777 /run/hyperhive/bus", "and should be 1775 root:hive", "sudo systemd-tmpfiles --create"),
    "a state can be read by others": ("chmod 755 /var/lib/hyperhive/broker", "should be 0700 hive-broker:hive", "sudo chmod 700 /var/lib/hyperhive/broker"),
    "a state is another's": (
        "chown hive-gateway /var/lib/hyperhive/updater",
        "should be 0700 hive-updater:hive",
        "sudo chown -R hive-updater:hive /var/lib/hyperhive/updater",
    ),
    "a service is no member": ("gpasswd -d hive-gateway hive-admin", "not in the group hive-admin", "sudo adduser hive-gateway hive-admin"),
    "a user is gone": ("userdel hive-builder", "missing: hive-builder", "sudo make install"),
    "the CLI is gone": ("rm /opt/hyperhive/libexec/claude", "there is no program", "sudo make install"),
    "nspawn is gone": ("mv /usr/bin/systemd-nspawn /usr/bin/nspawn", "missing: systemd-container", "sudo apt-get install systemd-container"),
    "another has the port": (
        "systemctl stop hive-dashboard; systemd-run --uid=nobody socat TCP-LISTEN:7000,fork /dev/null; sleep 0.5",
        "7000 is taken by user nobody",
        "HIVE_DASHBOARD_PORT",
    ),
}  # fmt: skip
MENDED = """
cp -n /tmp/hive-admin /usr/local/bin/
mv /usr/bin/nspawn /usr/bin/systemd-nspawn
systemctl stop 'run-*.service'
chown hive-updater /var/lib/hyperhive/updater
chmod 700 /var/lib/hyperhive/broker
rm -rf /opt/hyperhive/versions/*/.whole
"""


def test_doctor_names_each_thing_that_is_broken_and_what_mends_it(container: Container) -> None:
    """All at once; then what it says is done, and it finds nothing any more."""
    for how, _, _ in BREAKS.values():
        container.shell(how)
    found = to_mend_by_module(container)
    for what, (_, detail, mend) in BREAKS.items():
        assert any(detail in said and mend in line for said, line in found.items()), (what, found)


def to_mend_by_module(container: Container) -> dict[str, str]:
    """Where even hive-admin's own file is gone."""
    environment = ["env", "HIVE_RUN_DIR=/run/hyperhive", "HIVE_STATE_DIR=/var/lib/hyperhive", "HIVE_CLAUDE=/opt/hyperhive/libexec/claude"]
    said = container.run(*environment, "/opt/hyperhive/venv/bin/hive-admin", "doctor", "--json", status=None)
    return {found["detail"]: found["mend"] for found in json.loads(said)["findings"] if not found["ok"]}


def test_installing_again_mends_it_and_keeps_the_state(container: Container) -> None:
    container.shell(MENDED, status=None)
    said = container.run(*INSTALL, seconds=200)
    assert "hyperhive is installed and runs" in said
    container.until("the manager", lambda: manager_runs(container))
    assert to_mend(container) == {}


def test_installing_what_is_installed_changes_nothing(container: Container) -> None:
    before = [container.unit(unit, "MainPID") for unit in UNITS]
    container.run(*INSTALL)
    assert [container.unit(unit, "MainPID") for unit in UNITS] == before


def test_an_upgrade_keeps_state_settings_and_cages(container: Container) -> None:
    container.run("hive-admin", "send", "operator", "before the upgrade")
    container.shell("echo HIVE_OPERATOR_PRONOUNS=they/them >> /etc/hyperhive/hive.env")
    cage = container.unit("hive-cage@hm1nd.service", "MainPID")
    container.shell(f"mkdir /root/newer; cd {CHECKOUT}; cp -r {COPIED} /root/newer; cd /root/newer; rm deploy/systemd/hive-services.slice;"
                    " sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml")  # fmt: skip
    container.run("make", "-C", "/root/newer", "install", f"WHEELS={WHEELS}", seconds=200)
    assert "version 9.9.9" in container.run("hive-admin", "doctor", status=None)
    assert container.unit("hive-cage@hm1nd.service", "MainPID") == cage
    assert "before the upgrade" in container.run("hive-admin", "inbox")
    assert "they/them" in container.run("cat", "/etc/hyperhive/hive.env")
    assert not container.path("/etc/systemd/system/hive-services.slice").exists()
    assert len(container.run("ls", "/opt/hyperhive/versions").split()) == 2


LEFT = (
    "ls -d /opt/hyperhive /run/hyperhive /etc/sysusers.d/hyperhive* /etc/tmpfiles.d/hyperhive* /etc/polkit-1/rules.d/*hyperhive*"
    " /usr/local/bin/hive* /etc/systemd/system/*hive* /etc/systemd/system/*.wants/*hive* 2>/dev/null;"
    " ps -eo args | grep -E '[h]ive-|[h]yperhive'; machinectl --no-legend; systemctl list-units --all --no-legend 'hive*' 'hyperhive*'"
)


def test_uninstall_leaves_the_state_and_says_where_it_is(container: Container) -> None:
    said = container.run("make", "-C", str(CHECKOUT), "uninstall")
    assert "/var/lib/hyperhive" in said
    assert "PURGE=yes" in said
    assert container.shell(LEFT, status=None) == ""
    assert container.path("/var/lib/hyperhive/broker/broker.sqlite").exists()


def test_purge_leaves_nothing(container: Container) -> None:
    container.run("make", "-C", str(CHECKOUT), "uninstall", "PURGE=yes")
    assert container.shell(LEFT, status=None) == ""
    for path in ("/var/lib/hyperhive", "/etc/hyperhive", "/var/log/hyperhive-install.log"):
        assert not container.path(path).exists()
    assert "hive" not in container.run("cat", "/etc/passwd", "/etc/group")
