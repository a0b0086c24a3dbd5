"""Cages by nspawn in an installed hive: the checks of every kind of cage, who may start one, what holds them and what is
left of them, whoever dies first."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from libhive.names import new_id
from libhive.spec import AGENT_TOML, Egress, with_egress
from tests.bench import cage as bench
from tests.booted import hive
from tests.booted.container import Container
from tests.booted.layer import installed
from tests.booted.root import CHECKOUT
from tests.lifecycle.builders.test_nix import fill

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
    found = hive.agent(container, name)
    return msgspec.to_builtins(found) if found else {"cage": "", "generation": 0, "pid": 0}


def in_checkout(container: Container, *command: str, seconds: float = 200) -> tuple[int, str]:
    """By the tests' own environment, as the user that lifecycle runs as."""
    variables = ["HIVE_TEST_CAGE=nspawn", "HOME=/nonexistent", f"PYTHONPATH={CHECKOUT}", "PYTHONSAFEPATH=1"]
    variables += ["PYTHONDONTWRITEBYTECODE=1", "PATH=/usr/bin:/bin:/usr/sbin"]
    variables += ["HIVE_RUN_DIR=/run/hyperhive", "HIVE_STATE_DIR=/var/lib/hyperhive"]
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


def test_the_bench_of_them_makes_its_rows(container: Container) -> None:
    few = bench.Scale(rounds=1, crowd=2, crowds=1, agents=0, settle_seconds=0.2)
    made = bench.nspawn(container, few)
    assert [row.name for row in made] == ["cage.nspawn.start", "cage.nspawn.start30", "cage.nspawn.memory"]
    assert all(row.value > 0 and row.reference > 0 for row in made)
    assert "bench-" not in container.run("systemctl", "list-units", "--all", "hive-cage@*")


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
        ("start", f"hive-build@debian-{'0' * 24}.service", True),  # which is not wanted, as it finds
        ("start", "hive-build@debian-1.service", False),
        ("start", f"hive-build@debian-{'0' * 24}x.service", False),
        ("start", f"hive-build@..-{'0' * 24}.service", False),
        ("freeze", f"hive-build@debian-{'0' * 24}.service", False),
        ("clean", "hive-cage@hm1nd.service", False),
        ("clean", "hive-lifecycle.service", False),
    ],
)
def test_lifecycle_may_start_cages_and_nothing_else(
    container: Container, verb: str, unit: str, allowed: bool
) -> None:
    done = container.ended(*AS_LIFECYCLE, "systemctl", "--no-ask-password", verb, unit)
    assert done.returncode != 0
    container.ended("systemctl", "reset-failed", unit)
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
        done = hive.executed(container, AGENT, *command)
        return "" if done is None or done.exit_code else done.output

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


# ---- what nobody wants


GHOST = """
for name in ghost spook; do
    mkdir -p /run/hive-cage/$name/root/deep /run/hyperhive/pages/$name
    mount -t tmpfs -o size=256k page /run/hyperhive/pages/$name
    mkdir /run/hyperhive/pages/$name/deep
    chown -R 700000:700000 /run/hyperhive/pages/$name && chmod 700 /run/hyperhive/pages/$name/deep
done
place=/run/systemd/system/hive-cage@ghost.service.d
mkdir -p $place
printf '[Service]\\nType=exec\\nExecStartPre=\\nExecStart=\\nExecStart=sleep 1000\\n' >$place/test.conf
systemctl daemon-reload
systemctl start hive-cage@ghost
touch /run/hive-cage/ghost/root/file
"""
"""Of two agents that no registry knows: one whose unit runs, and one whose unit is gone."""


def test_what_is_left_of_cages_that_nobody_knows_is_listed_and_removed(
    container: Container, vera: str
) -> None:
    container.shell(GHOST)
    kept = (agent(container)["pid"], agent(container, "hm1nd")["pid"])
    listed = json.loads(container.run("hive-admin", "gc", "--json"))["leftovers"]
    found = {(one["kind"], one["agent"], one["path"]) for one in listed if one["agent"] in ("ghost", "spook")}
    assert found == {("unit", "ghost", "hive-cage@ghost.service"), ("unit", "spook", "/run/hive-cage/spook")}
    assert not [one for one in listed if one["agent"] in (AGENT, "hm1nd")]
    assert states(container, "hive-cage@ghost.service") == ["active"]

    said = container.run("hive-admin", "gc", "--apply")
    assert said.count("removed") == len(listed), said
    assert (
        container.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "hive-cage@[gs]*") == ""
    )
    assert (
        container.run(
            "sh", "-c", "ls -d /run/hive-cage/[gs]* /run/hyperhive/pages/[gs]* 2>/dev/null", status=2
        )
        == ""
    )
    assert (agent(container)["pid"], agent(container, "hm1nd")["pid"]) == kept
    assert json.loads(container.run("hive-admin", "gc", "--json"))["leftovers"] == []


# ---- the way out


ADDRESS = "127.0.0.2"
"""Not 127.0.0.1, which is the cage's own loopback and is in NO_PROXY."""
LISTED, OTHER = 8081, 8082
HOSTS = f"{ADDRESS} site.example other.example"
GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"
CONNECT = "import sys, socket; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


@pytest.fixture(scope="module")
def sites(container: Container) -> None:
    """Two on the loopback of the container, that differ by their port."""
    container.shell(f"mkdir -p /srv/site && echo hello >/srv/site/hello && echo '{HOSTS}' >>/etc/hosts")
    for port in (LISTED, OTHER):
        serve = ["/usr/bin/python3", "-P", "-m", "http.server", str(port), "--bind", ADDRESS]
        container.run("systemd-run", "--quiet", f"--unit=site-{port}", *serve, "--directory=/srv/site")
        up = ("curl", "-sS", f"http://{ADDRESS}:{port}/hello")
        container.until("the site", lambda up=up: container.ended(*up).stdout == "hello\n")


async def allow(container: Container, egress: Egress) -> None:
    """By a proposal that is approved, as anything of an agent's configuration."""
    async with hive.InstalledHive(container) as running:
        files = with_egress((await running.approvals.read_config(AGENT)).files, egress)
        made = await running.approvals.propose(AGENT, {AGENT_TOML: files[AGENT_TOML]}, "the way out")
        container.run("hive-admin", "approve", str(made.number))
    wanted = f'"mode": "{egress.mode}"'
    container.until("the way out", lambda: wanted in container.run("hive-admin", "egress", AGENT, "--json"))


def in_cage(container: Container, *commands: Sequence[str]) -> list[tuple[int, str]]:
    """How each ended, and what it said in one line. By one call: `hive-admin exec` takes longer than they do."""
    script = "".join(f"said=$({shlex.join(one)} 2>&1); echo $? $said\n" for one in commands)
    lines = container.run("hive-admin", "exec", AGENT, "--", "sh", "-c", script).splitlines()
    return [(int(code), said) for code, _, said in (line.partition(" ") for line in lines)]


async def test_an_agent_reaches_through_its_proxy_what_its_list_allows_and_nothing_else(
    container: Container, vera: str, sites: None
) -> None:
    before = agent(container)
    site, curl = f"http://site.example:{LISTED}/hello", ("curl", "-sS", "-m", "10")
    ((_, said),) = in_cage(container, (*curl, site))
    assert "lets nothing out" in said
    await allow(container, Egress(mode="allow", allow=[f"site.example:{LISTED}", f"{ADDRESS}:{LISTED}"]))

    def by_proxy(url: str) -> list[tuple[str, ...]]:
        return [(*curl, url), (*curl, "--proxytunnel", url), ("python3", "-c", GET, url)]

    unlisted = [f"site.example:{OTHER}", f"{ADDRESS}:{OTHER}", f"other.example:{LISTED}"]
    past = [(ADDRESS, LISTED), ("127.0.0.1", LISTED), ("192.0.2.1", 80), ("site.example", LISTED)]
    commands = by_proxy(site)
    for place in unlisted:
        commands += by_proxy(f"http://{place}/hello")
    for host, port in past:
        commands += [(*curl, "--noproxy", "*", f"http://{host}:{port}/")]
        commands += [("python3", "-c", CONNECT, host, str(port))]
    ended = iter(in_cage(container, *commands))

    assert [next(ended) for _ in by_proxy(site)] == [(0, "hello")] * 3
    for place in unlisted:
        assert f"{place} is not in the list" in next(ended)[1]
        code, said = next(ended)
        assert (code, "403" in said) == (56, True), said
        code, said = next(ended)
        assert (code, "HTTP Error 403" in said) == (1, True), said
    no_way, no_name = (7, 1), (6, 1)  # of curl, of Python
    assert [(next(ended)[0], next(ended)[0]) for _ in past] == [no_way, no_way, no_way, no_name]

    seen = json.loads(container.run("hive-admin", "egress", AGENT, "--json"))["decisions"]
    assert {(one["host"], one["port"]) for one in seen if one["verdict"] == "allowed"} == {
        ("site.example", LISTED)
    }
    now = agent(container)
    assert (now["generation"], now["pid"]) == (before["generation"], before["pid"])


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


# ---- a root of its own, built without any right


HELD = '{"root": "debian", "packages": ["hive-held"], "inputs": "%s"}'
ROOTS, BUILDS = "/var/lib/hyperhive/roots", "/var/lib/hyperhive/builds"
TOO_SLOW = "/run/systemd/system/hive-build@.service.d/slow.conf"
MIRROR = f"""
python3 {CHECKOUT}/tests/booted/mirror.py /srv/mirror
rm -rf /etc/apt/sources.list.d
echo 'deb [trusted=yes] copy:/srv/mirror ./' >/etc/apt/sources.list
"""


@pytest.fixture(scope="module")
def mirror(container: Container) -> None:
    container.shell(MIRROR)


class Wanted:
    """A root, that somebody waits for outside of lifecycle."""

    def __init__(self, container: Container, spec: str, *agents: str) -> None:
        self.container, self.waiting = container, ThreadPoolExecutor(1)
        command = ["-m", "tests.booted.prepare", new_id(), spec, *agents]
        self.answer = self.waiting.submit(in_checkout, container, *command)
        self.unit = container.until("the build", self._unit)

    def _unit(self) -> str:
        listed = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "hive-build@*"]
        return self.container.run(*listed).partition(" ")[0]

    def became(self) -> str:
        code, said = self.answer.result(60)
        self.waiting.shutdown()
        assert code == 0, said
        return said.strip()


def what_it_says(container: Container, name: str, *command: str) -> str:
    """Once its harness is there."""

    def run() -> str:
        done = hive.executed(container, name, *command)
        return done.output if done else ""

    return container.until(name, run)


def left_of_builds(container: Container) -> list[str]:
    look = f"""
        find {ROOTS} {BUILDS} -mindepth 1 -maxdepth 1
        pgrep -u hive-builder,524288 -l || true
        systemctl list-units --all --plain --no-legend 'hive-build@*'
        """
    return container.shell(look).splitlines()


def test_an_agent_starts_from_a_root_that_a_unit_has_built(container: Container, mirror: None) -> None:
    wanted = Wanted(container, HELD % "", "rita")
    look = f"find {ROOTS}/*/tmp -maxdepth 2 -name held -printf '%h\n' 2>/dev/null || true"
    place = container.until("dpkg", lambda: container.shell(look).strip())
    before = container.unit(wanted.unit, "InvocationID", "MainPID", "StatusText")
    assert before["StatusText"] == "installing remaining packages inside the chroot"
    status = container.run("cat", f"/proc/{before['MainPID']}/status")
    for line in ("NoNewPrivs:\t1", "CapInh:\t0", "CapPrm:\t0", "CapEff:\t0", "CapAmb:\t0"):
        assert f"\n{line}" in status.replace("\t000000000000000", "\t"), status
    pid = container.run("pgrep", "-f", "hive-held.postinst").split()[0]
    assert container.run("stat", "-c", "%u", f"/proc/{pid}").strip() == "524288"

    # lifecycle dies, and whoever waits for the root waits on: for the same unit
    container.run("systemctl", "kill", "-s", "KILL", "hive-lifecycle")
    container.until("lifecycle", lambda: agent(container, "hm1nd")["cage"] == "running")
    container.until("who waits", lambda: "building" in container.run("hive-admin", "roots", status=None))
    assert container.unit(wanted.unit, "InvocationID", "MainPID", "StatusText") == before
    container.run("touch", f"{place}/go")
    assert wanted.became() == "ready"

    tree = f"{ROOTS}/{wanted.unit.removeprefix('hive-build@').removesuffix('.service')}/tree"
    assert set(container.run("find", tree, "-printf", "%u\n").split()) == {"hive-builder"}
    assert container.run("find", tree, "-perm", "/6022", "!", "-type", "l") == ""
    line = "test -e /usr/bin/python3 && ! test -e /usr/bin/git && cat /usr/share/base-passwd/hive"
    assert what_it_says(container, "rita", "sh", "-c", line) == "of the mirror\n"
    container.run("hive-admin", "stop", "rita")


@pytest.mark.parametrize(
    ("spec", "then", "said"),
    [
        ('{"root": "debian", "packages": ["hive-none"]}', "", "E: Unable to locate package hive-none"),
        (HELD % "stopped", "systemctl stop 'hive-build@*'", "it was stopped"),
        (HELD % "slow", "", "it took longer than a build may"),
    ],
    ids=["fails", "is stopped", "is slow"],
)
def test_a_build_that_ends_too_early_says_why_and_leaves_nothing(
    container: Container, mirror: None, spec: str, then: str, said: str
) -> None:
    before = left_of_builds(container)
    if "longer" in said:
        container.write(TOO_SLOW, "[Service]\nRuntimeMaxSec=1\n")
        container.run("systemctl", "daemon-reload")
    wanted = Wanted(container, spec)
    container.shell(then)
    why = wanted.became()
    container.shell(f"rm -f {TOO_SLOW}; systemctl daemon-reload")
    assert why == (
        f"Conflict: the debian root could not be built: {said} (the whole log: journalctl -u {wanted.unit})"
    )
    container.until("no trace of it", lambda: left_of_builds(container) == before)


NIX_SETTINGS = 'HIVE_NIXPKGS=/srv/nixpkgs\nNIX_CONFIG="substituters ="\n'
UNCOVER = """
for place in $(grep -o ' /proc/[^ ]* ' /proc/self/mountinfo | tac); do umount -l $place 2>/dev/null || true; done
ldconfig
cat >>/etc/hyperhive/hive.env
systemctl restart hive-lifecycle
"""
"""The container's own nspawn has covered parts of /proc, which no server has; nobody can then make another one."""


def test_an_agent_starts_with_a_closure_that_a_unit_has_built(container: Container) -> None:
    """By the host's own Nix, in Nix's own sandbox."""
    files = subprocess.run(
        ["dpkg", "-L", "nix-bin"], capture_output=True, text=True, check=True
    ).stdout.split()
    needed = subprocess.run(["ldd", "/usr/bin/nix"], capture_output=True, text=True, check=True).stdout
    files = [name for name in files if Path(name).is_file()] + re.findall(r"=> (/\S+)", needed)
    sent = subprocess.run(["tar", "-C", "/", "-chP", *sorted(set(files))], capture_output=True, check=True)
    place = container.path("/")
    into = ["tar", "-C", str(place), "-x", "--skip-old-files"]
    subprocess.run(into, input=sent.stdout, check=True)
    (place / "srv/nixpkgs").mkdir(mode=0o755)
    fill(place / "srv/nixpkgs")
    container.run("sh", "-ec", UNCOVER, input=NIX_SETTINGS)
    container.until("lifecycle", lambda: agent(container, "hm1nd")["cage"] == "running")
    assert Wanted(container, '{"root": "nix", "packages": ["greeter"]}', "nina").became() == "ready"
    assert what_it_says(container, "nina", "greet") == "hello from a closure\n"


def test_a_root_is_removed_without_any_right(container: Container, mirror: None) -> None:
    """And whatever else is there, as after a build that nobody of us ended."""
    container.shell(f"mkdir -p {ROOTS}/debian-{'1' * 24}/tmp; touch {ROOTS}/debian-{'1' * 24}/tmp/x")
    code, said = in_checkout(container, "-c", REMOVE)
    assert (code, said) == (0, "all removed\n")
    assert left_of_builds(container) == []


REMOVE = """
import asyncio
from libhive.paths import Paths
from services.lifecycle.builders.by_unit import ByUnits
from services.lifecycle.settings import Settings

async def main():
    maker = ByUnits(Paths.from_environment(), Settings(cage="nspawn"))
    (unfinished,) = await maker.unfinished()
    assert maker.roots.newest()
    for place in (unfinished, *(maker.roots.directory / key for key in maker.roots.newest())):
        await maker.remove(place)
    print("all removed" if not list(maker.roots.directory.iterdir()) else "not all removed")

asyncio.run(main())
"""


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
    dies = "import os, time; time.sleep(1); os.kill(os.getpid(), 9)"
    forged = (
        "for n in $(seq 200); do logger -t hive-cage-mallory 'hive-init: out of memory'; sleep 0.05; done"
    )
    container.run("systemd-run", "--quiet", "--uid=nobody", "sh", "-c", forged)
    code, said = in_checkout(container, "-m", "tests.cages.start_one", "nspawn", "--run", dies)
    assert code == 0, said
    assert container.run("journalctl", "-q", "-t", "hive-cage-mallory", "-g", "out of memory", "_UID=65534")
    assert said.startswith("137 "), said
    assert "out of memory" not in said
