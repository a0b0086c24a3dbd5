"""Cages by nspawn in an installed hive: the checks of every kind of cage, who may start one, what holds them and what is
left of them, whoever dies first."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.booted.container import Container
from tests.booted.layer import installed
from tests.booted.root import CHECKOUT

SERVICES = [
    f"hive-{name}.service" for name in ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
]
OF_EVERY_KIND = (
    "test_conformance.py",
    "test_lifetime.py::test_another_lifecycle_adopts_it",
    "test_lifetime.py::test_destroy_keeps_the_state_and_follows_no_link",
    "test_lifetime.py::test_stop_asks_first",
    "test_lifetime.py::test_what_an_agent_left_behind_is_reaped",
    "test_lifetime.py::test_who_does_not_listen_is_killed_after_the_grace_time",
)
AS_LIFECYCLE = ["setpriv", "--reuid=hive-lifecycle", "--regid=hive", "--init-groups", "--"]
"""As its unit has it run."""
PYTHON = f"{CHECKOUT}/.venv/bin/python"
AGENT, UNIT, MACHINE = "vera", "hive-cage@vera.service", "h-vera"
DROP_IN = "/run/systemd/system/hive-cage@mallory.service.d/sabotage.conf"


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with Container(on=installed(), limits=True) as booted:
        booted.until("all services", lambda: states(booted, *SERVICES) == ["active"] * 6)
        booted.until("the manager's cage", lambda: agent(booted, "hm1nd")["cage"] == "running")
        yield booted


def states(container: Container, *units: str) -> list[str]:
    return container.run("systemctl", "is-active", *units, status=None).split()


def agent(container: Container, name: str = AGENT) -> dict[str, object]:
    done = container.ended("hive-admin", "agents", "--json")
    found = json.loads(done.stdout)["agents"] if done.returncode == 0 else []
    return next((row for row in found if row["name"] == name), {"cage": "", "generation": 0, "pid": 0})


def in_checkout(container: Container, *command: str, seconds: float = 200) -> tuple[int, str]:
    """By the tests' own environment, as the user that lifecycle runs as."""
    variables = ["HIVE_TEST_CAGE=nspawn", "HOME=/nonexistent", f"PYTHONPATH={CHECKOUT}", "PYTHONSAFEPATH=1"]
    variables += ["PYTHONDONTWRITEBYTECODE=1", "PATH=/usr/bin:/bin:/usr/sbin"]
    done = container.ended(*AS_LIFECYCLE, "env", "-i", *variables, PYTHON, *command, seconds=seconds)
    return done.returncode, done.stdout


# ---- the checks of every kind


def test_what_holds_for_every_kind_of_cage(container: Container) -> None:
    files = [f"{CHECKOUT}/tests/cages/{name}" for name in OF_EVERY_KIND]
    options = ["-q", "-p", "no:cacheprovider", "-c", f"{CHECKOUT}/pyproject.toml", f"--rootdir={CHECKOUT}"]
    options += ["-k", "not bomb"]  # what the broker does meanwhile is no matter of the kind
    code, said = in_checkout(container, "-m", "pytest", *options, *files)
    assert code == 0, said
    assert " passed" in said


# ---- who may


@pytest.mark.parametrize(
    ("verb", "unit", "allowed"),
    [
        (
            "start",
            "hive-cage@mallory.service",
            True,
        ),  # which has no plan: systemd was asked, and hive-cage refused
        ("start", "systemd-timedated.service", False),
        ("stop", "systemd-logind.service", False),
        ("restart", "hive-broker.service", False),
        ("start", "hive-cage@..-x.service", False),
        ("start", "hive-cage@Mallory.service", False),
        ("start", "hive-cage@mallory-.service", False),
        ("start", "hive-cage@mallory.socket", False),
        ("freeze", "hive-cage@hm1nd.service", False),
    ],
)
def test_lifecycle_may_start_cages_and_nothing_else(
    container: Container, verb: str, unit: str, allowed: bool
) -> None:
    done = container.ended(*AS_LIFECYCLE, "systemctl", "--no-ask-password", verb, unit)
    assert done.returncode != 0
    assert ("Access denied" not in done.stdout and "authentication" not in done.stdout) == allowed, (
        done.stdout
    )


def test_lifecycle_may_not_change_what_a_unit_is(container: Container) -> None:
    for command in (["daemon-reload"], ["enable", "hive-broker.service"], ["set-environment", "A=b"]):
        done = container.ended(*AS_LIFECYCLE, "systemctl", "--no-ask-password", *command)
        assert done.returncode != 0, done.stdout


def test_another_user_may_start_none(container: Container) -> None:
    for user in ("hive-broker", "nobody"):
        done = container.ended(
            "systemctl", "--no-ask-password", "start", "hive-cage@mallory.service", user=user
        )
        assert "authentication required" in done.stdout, done.stdout


# ---- what is missing is named


SCRIPT = CHECKOUT / "deploy/systemd/hive-cage"
CHANGED = "/run/hive-cage-changed"
RUN_CHANGED = ("ExecStart=", f"ExecStart=/usr/bin/python3 -I {CHANGED} start %i")
SABOTAGE: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {
    "address-families": (("RestrictAddressFamilies=AF_VSOCK",), ("", "")),
    "ends-whole": (("KillMode=process",), ("", "")),
    "memory:cgroup1": (("MemoryMax=infinity",), ("", "")),
    "no-capabilities": (RUN_CHANGED, ("--drop-capability=all", "--capability=CAP_CHOWN")),
    "no-network": ((*RUN_CHANGED, "PrivateNetwork=no"), ('"--private-network", ', "")),
    "own-page": (
        ("ExecStartPre=", "ExecStartPre=+/usr/bin/mkdir /run/hyperhive/pages/mallory"),
        ("", ""),
    ),
    "own-slice": (("Slice=system.slice",), ("", "")),
    "own-users": (RUN_CHANGED, ("plan['uid_base']}:{UIDS}", "plan['uid_base']}:{UIDS // 2}")),
    "read-only-doors": (
        (*RUN_CHANGED, "ReadWritePaths=/run"),
        ("--bind-ro={place}/doors", "--bind={place}/doors"),
    ),
    "read-only-root": (RUN_CHANGED, (' "--read-only"', ' "--quiet"')),
    "seccomp": (RUN_CHANGED, ("etc/hive/seccomp", "etc/hive/other")),
    "tasks:cgroup1": (("TasksMax=infinity",), ("", "")),
    "uid": (RUN_CHANGED, ('"--user=agent", "--chdir=/state"', '"--chdir=/"')),
}
"""What a drop-in of somebody's says, and what its own copy of hive-cage has instead of what."""


@pytest.mark.parametrize("control", SABOTAGE)
def test_a_cage_without_a_control_is_not_started_and_says_which(container: Container, control: str) -> None:
    lines, (old, new) = SABOTAGE[control]
    assert old in SCRIPT.read_text()
    container.write(CHANGED, SCRIPT.read_text().replace(old, new))
    container.write(DROP_IN, "\n".join(["[Service]", *lines, ""]))
    container.run("ip", "link", "add", "name", "hive0", "type", "veth", "peer", "name", "hive1", status=None)
    try:
        container.run("systemctl", "daemon-reload")
        code, said = in_checkout(container, "-m", "tests.cages.start_one", "nspawn")
    finally:
        container.run("rm", DROP_IN)
        container.run("systemctl", "daemon-reload")
    assert code == 0, said
    assert f"`{control}`" in said, said
    assert states(container, "hive-cage@mallory.service") == ["inactive"]


def test_a_root_that_was_built_takes_the_place_of_the_hosts(container: Container) -> None:
    """Its links are not followed: they would lead into the host."""
    tree = "/var/lib/hyperhive/roots/debian-0123456789abcdef/tree"
    container.shell(
        f"mkdir -p {tree}/usr {tree}/etc/ssl/certs && echo own >{tree}/etc/ssl/certs/own && "
        f"ln -s /etc/passwd {tree}/etc/mime.types && cp -a /usr/bin /usr/lib* {tree}/usr/ && touch {tree}/usr/ours"
    )
    code, said = in_checkout(container, "-m", "tests.cages.start_one", "nspawn", tree)
    container.run("rm", "-r", "/var/lib/hyperhive/roots")
    assert (code, said) == (0, "/usr/ours own no-mime.types\n"), said


# ---- whoever dies first


@pytest.fixture(scope="module")
def vera(container: Container) -> str:
    container.run("hive-admin", "spawn", AGENT, "--prompt", "You are vera.", "--yes")
    container.until("vera", lambda: agent(container)["cage"] == "running")
    return AGENT


def parts(container: Container) -> dict[str, int]:
    nspawn = int(container.unit(UNIT, "MainPID")["MainPID"])
    init = int(container.run("pgrep", "-P", str(nspawn)))
    return {"nspawn": nspawn, "init": init, "program": int(container.run("pgrep", "-P", str(init)))}


@pytest.mark.parametrize("part", ["nspawn", "init", "program"])
def test_sigkill_of_a_part_leaves_nothing_and_ends_in_a_running_agent(
    container: Container, vera: str, part: str
) -> None:
    before, pids = agent(container), parts(container)
    container.run("hive-admin", "exec", vera, "--", "sh", "-c", "setsid sleep 1234 >/dev/null 2>&1 &")
    container.run("kill", "-KILL", str(pids[part]))
    container.until("the next cage", lambda: is_next(agent(container), before))
    assert container.run("pgrep", "-f", "sleep 1234", status=1) == ""
    assert not [pid for pid in pids.values() if container.path(f"/proc/{pid}").exists()]
    assert len(leftovers(container)) == 2, leftovers(container)  # its cgroup, and its machine
    container.run(
        "hive-admin", "start", vera
    )  # a failure is forgiven by it: three in a row would make it wait


def is_next(now: dict[str, object], before: dict[str, object]) -> bool:
    return now["cage"] == "running" and now["generation"] != before["generation"]


def said_in(container: Container, *command: str) -> str:
    """In its cage, as soon as its harness listens."""

    def look() -> str:
        done = container.ended("hive-admin", "exec", AGENT, "--", *command)
        return "" if done.returncode else done.stdout

    return container.until("its harness", look)


def leftovers(container: Container) -> list[str]:
    """All that systemd and the kernel have of its cages."""
    look = f"""
        find /sys/fs/cgroup/systemd -type d -name 'hive-cage@{AGENT}*'
        machinectl list --no-legend | grep {MACHINE} || true
        grep -h hive-cage/{AGENT} /proc/1/mountinfo || true
        """
    return container.shell(look).splitlines()


@pytest.mark.parametrize("service", ["lifecycle", "broker"])
def test_sigkill_of_a_service_leaves_the_cage_as_it_is(container: Container, vera: str, service: str) -> None:
    before, pids = agent(container), parts(container)
    container.run("systemctl", "kill", "-s", "KILL", f"hive-{service}")
    container.until("the service", lambda: states(container, f"hive-{service}") == ["active"])
    container.until("the cage, adopted", lambda: agent(container)["cage"] == "running")
    now = agent(container)
    assert (now["generation"], now["pid"], parts(container)) == (before["generation"], before["pid"], pids)
    assert now["controls"] == before["controls"]
    said = container.run("hive-admin", "send", vera, f"hello after {service}", "--wait", "30")
    assert vera in said


def test_the_journal_has_what_it_says(container: Container, vera: str) -> None:
    assert "harness: up" in container.run("hive-admin", "logs", vera)
    assert "harness: up" in container.journal(UNIT)


def test_machinectl_shows_it(container: Container, vera: str) -> None:
    listed = container.run("machinectl", "list", "--no-legend").split()
    assert MACHINE in listed
    assert "hm1nd" in listed


def test_each_agent_has_a_range_of_users_that_the_registry_keeps(container: Container, vera: str) -> None:
    ranges = [
        container.run(
            "sh", "-c", f"cat /proc/$(systemctl show -p MainPID --value hive-cage@{name})/task/*/children"
        )
        for name in ("hm1nd", vera)
    ]
    maps = [container.run("cat", f"/proc/{pid.strip()}/uid_map").split() for pid in ranges]
    assert maps == [["0", "589824", "65536"], ["0", "655360", "65536"]]
    assert [agent(container, name)["uid"] for name in ("hm1nd", vera)] == [590_824, 656_360]


def test_its_state_is_lifecycles_on_disk(container: Container, vera: str) -> None:
    """So that it can be saved and purged without root."""
    container.run(
        "hive-admin", "exec", vera, "--", "sh", "-c", "echo mine >/state/note; stat -c %u /state/note"
    )
    owners = container.run("find", f"/var/lib/hyperhive/agents/{vera}", "-printf", "%u\n").split()
    assert set(owners) == {"hive-lifecycle"}


def test_nothing_is_left_of_it_when_it_is_stopped(container: Container, vera: str) -> None:
    container.run("hive-admin", "stop", vera)
    assert leftovers(container) == []
    assert container.ended("pgrep", "-u", "656360").returncode == 1
    assert not container.path(f"/run/hive-cage/{vera}").exists()
    assert not container.path(f"/run/hyperhive/pages/{vera}").exists()
    assert container.unit(UNIT, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    container.run("hive-admin", "start", vera)
    container.until("vera", lambda: agent(container)["cage"] == "running")
    assert said_in(container, "cat", "/state/note") == "mine\n"


# ---- what an agent, or another user of the host, tries


def test_an_agent_fills_its_pages_directory_and_nothing_of_the_host(container: Container, vera: str) -> None:
    fill = "import os\nfor n in range(4000): open(f'/run/page/{n}', 'w').close()"
    said = container.run("hive-admin", "exec", vera, "--", "python3", "-c", fill, status=None)
    assert "No space left on device" in said
    said = container.run(
        "hive-admin", "exec", vera, "--", "sh", "-c", "rm /run/page/?; yes >/run/page/x", status=None
    )
    assert "No space left on device" in said
    used = container.run("df", "--output=iused", "/run").split()[1]
    assert int(used) < 2_000
    container.run("hive-admin", "restart", vera)
    container.until("vera, with a new page", lambda: agent(container)["cage"] == "running")
    assert said_in(container, "ls", "/run/page") == "page.sock\n"


def test_what_an_agent_says_is_no_emergency_of_the_hosts(container: Container) -> None:
    """journald shows those on every terminal."""
    says = "import time; time.sleep(1); print('<0>the house is on fire')"
    code, said = in_checkout(container, "-m", "tests.cages.start_one", "nspawn", "--run", says)
    assert (code, said) == (0, "0 '<0>the house is on fire' ''\n")
    told = container.run("journalctl", "-q", "-o", "json", "-t", "hive-cage-mallory").splitlines()
    lines = [json.loads(line) for line in told]
    assert [line["PRIORITY"] for line in lines if "on fire" in line["MESSAGE"]] == ["6"]


def test_nobody_puts_words_into_a_cages_mouth(container: Container) -> None:
    """In the journal anybody may call himself what he likes."""
    dies = "import os, time; time.sleep(3); os.kill(os.getpid(), 9)"
    forged = (
        "for n in 1 2 3 4 5 6 7 8; do logger -t hive-cage-mallory 'hive-init: out of memory'; sleep 0.5; done"
    )
    container.run("systemd-run", "--quiet", "--uid=nobody", "sh", "-c", forged)
    code, said = in_checkout(container, "-m", "tests.cages.start_one", "nspawn", "--run", dies)
    assert code == 0, said
    assert container.run("journalctl", "-q", "-t", "hive-cage-mallory", "-g", "out of memory", "_UID=65534")
    assert said.startswith("137 "), said
    assert "out of memory" not in said
