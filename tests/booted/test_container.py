"""The fixture itself: what it promises to the tests that use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.booted import cgroups
from tests.booted.container import Container
from tests.booted.root import CHECKOUT

HOG = ["systemd-run", "--pipe", "--wait", "-p", "MemoryMax=64M", "-p", "MemorySwapMax=0"]
ALLOCATE = ["python3", "-c", "print(len(bytearray(b'x') * (200 << 20)))"]


def test_systemd_runs_and_nothing_has_failed(container: Container) -> None:
    assert container.run("systemctl", "is-system-running", "--wait", status=None).strip() == "running"
    assert container.run("cat", "/proc/1/comm").strip() == "systemd"


def test_only_loopback_is_there(container: Container) -> None:
    assert container.run("ls", "/sys/class/net").split() == ["lo"]


def test_the_projects_environment_runs_inside(container: Container) -> None:
    said = container.run(f"{CHECKOUT}/.venv/bin/python", "-c", "import zmq, sys; print(sys.version_info[:2])")
    assert said.strip() == str(tuple(sys.version_info[:2]))


def test_the_state_directory_can_be_idmapped(container: Container) -> None:
    container.run("mkdir", "-p", "/var/lib/probe", "/var/lib/tree/usr", "/var/lib/tree/state")
    bind = "--bind=/var/lib/probe:/state:rootidmap"
    options = ["--quiet", "--pipe", "--private-users=1048576:65536", "--directory=/var/lib/tree", bind]
    for name in ("bin", "lib", "lib64"):
        container.run("ln", "-sfn", f"usr/{name}", f"/var/lib/tree/{name}")
    container.run("systemd-nspawn", *options, "--bind-ro=/usr", "touch", "/state/mine")
    assert container.run("stat", "-c", "%u", "/var/lib/probe/mine").strip() == "0"


def test_what_was_written_survives_a_reboot() -> None:
    with Container() as container:
        container.write("/etc/kept", "etc")
        container.write("/var/lib/kept", "state")
        container.write("/run/gone", "run")
        before = container.leader
        container.reboot()
        assert container.run("cat", "/etc/kept", "/var/lib/kept") == "etcstate"
        assert not container.path("/run/gone").exists()
        assert container.leader != before


def test_limits_bite_where_they_are_asked_for() -> None:
    with Container(limits=True) as container:
        assert container.ended(*HOG, *ALLOCATE).returncode != 0
        assert (
            container.run("systemd-run", "--pipe", "--wait", "-q", *ALLOCATE).strip().endswith(str(200 << 20))
        )


def test_nothing_is_left_when_the_test_is_killed(tmp_path: Path) -> None:
    """The container ends with whoever booted it."""
    script = "import sys, time\nfrom tests.booted.container import Container\n"
    script += "with Container() as c:\n    print(c.name, c.leader, flush=True)\n    time.sleep(60)\n"
    env = {"PATH": "/usr/bin:/usr/sbin", "PYTHONPATH": str(CHECKOUT), "PYTHONSAFEPATH": "1"}
    runner = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)
    assert runner.stdout
    name, leader = runner.stdout.readline().split()
    runner.kill()
    runner.wait()
    for _ in range(200):
        if not Path(f"/proc/{leader}").exists():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    else:
        pytest.fail("the container outlived its test")
    cgroups.remove(name)
    assert not cgroups.left(name)
    subprocess.run(["rm", "-rf", f"/tmp/{name}"], check=True)
