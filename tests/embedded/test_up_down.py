"""`make up` and `make down` with everything real: the supervisor, six services, the manager in its bubblewrap cage."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pty
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libhive.embedded import processes
from libhive.embedded.settings import MARK, SERVICES, bundled_claude
from libhive.names import MANAGER
from libhive.paths import Paths

UP_SECONDS_MAX = 90


def installed() -> bool:
    try:
        importlib.metadata.version("hyperhive")
    except importlib.metadata.PackageNotFoundError:
        return False
    return bundled_claude(Path(sys.prefix)).is_file()


pytestmark = pytest.mark.skipif(
    not installed() and "CI" not in os.environ, reason="the hive runs from its installation: make test"
)


class Place:
    """One hive's directories and port, and the commands that one gives there."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))
        self.paths = Paths(run=self.root / "run", state=self.root / "state")
        self.environment = {
            "HIVE_DASHBOARD_PORT": str(free_port()),
            "HIVE_RUN_DIR": str(self.paths.run),
            "HIVE_STATE_DIR": str(self.paths.state),
            "HOME": str(self.root),
            "PATH": os.environ["PATH"],
            "PYTHONSAFEPATH": "1",
        }
        self.started: list[Up] = []

    def up(self, **environ: str) -> Up:
        self.started.append(Up(self.environment | environ))
        return self.started[-1]

    def run(self, *module_and_arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *module_and_arguments],
            env=self.environment | environ,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=UP_SECONDS_MAX,
            check=False,
        )

    def down(self) -> str:
        ended = self.run("libhive.embedded", "down")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def left(self) -> list[str]:
        """Processes, mounts and files of a hive that is said to be down."""
        here = str(self.root)
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if here in line]
        ours = {os.getpid(), *(up.process.pid for up in self.started)}
        argv = [
            text
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) not in ours
            if here in (text := command_line(entry))
        ]
        marked = [str(process) for process in processes.marked(MARK, str(self.paths.run))]
        return mounts + argv + marked + [str(path) for path in self.root.glob("run/**/*")]


class Up:
    """A running `make up`, and what it has said."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "libhive.embedded", "up"],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as out:
            self.lines += []
            for line in out:
                self.lines.append(line.rstrip("\n"))

    def wait_until_up(self) -> Up:
        return self.wait_for("hive is up: http://127.0.0.1:")

    def wait_for(self, text: str) -> Up:
        deadline = time.monotonic() + UP_SECONDS_MAX
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return self

    def ended(self) -> int:
        status = self.process.wait(UP_SECONDS_MAX)
        self._reader.join(5)
        return status

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def supervisor(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = (
            pid for pid in children if "libhive.embedded.supervisor" in command_line(Path("/proc") / pid)
        )
        return int(pid)


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def free_port() -> int:
    """Free together with the pages of the manager and the first agents, which shift with it."""
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.ExitStack() as probes:
            probing = [probes.enter_context(socket.socket()) for _ in range(3)]
            if all(
                probe.connect_ex(("127.0.0.1", port + shift))
                for probe, shift in zip(probing, (0, 1000, 1100), strict=True)
            ):
                return port


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    for up in place.started:
        up.process.kill()
        up.ended()
    place.down()
    shutil.rmtree(place.root)


def test_up_says_where_it_is_and_neither_down_nor_ctrl_c_leaves_anything_but_the_state(place: Place) -> None:
    first = place.up().wait_until_up()
    assert [f"  {name} is up" in first.lines for name in SERVICES] == [True] * 6
    assert f"  {MANAGER} is awake" in first.lines
    assert re.match(r"Open the link .* within a minute; another one: .* link$", first.lines[-2])
    assert first.lines[-1].startswith("hive is up: ")
    second = place.up()
    assert second.ended() == 1
    assert f"a hive already runs on {place.paths.state} (process {first.process.pid})" in second.said
    status = place.run("libhive.admin", "status")
    assert (status.returncode, "rehearsal model is on" in status.stdout) == (0, True)
    sent = place.run("libhive.admin", "send", MANAGER, "hello", "--wait", "60")
    assert sent.returncode == 0, sent.stderr
    assert "the hive is down" in place.down()
    assert first.ended() == 0
    assert place.left() == []
    assert place.run("libhive.admin", "status").returncode == 3

    second = place.up().wait_until_up()
    assert "hello" in place.run("libhive.admin", "events").stdout
    second.process.send_signal(signal.SIGINT)
    second.process.send_signal(signal.SIGINT)
    assert second.ended() == 0
    assert place.left() == []
    assert (place.paths.state / "broker" / "broker.sqlite").exists()


def test_a_terminal_that_is_closed_ends_the_hive_as_neatly(place: Place) -> None:
    """Closing a window sends SIGHUP, and whatever is written after that fails."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "libhive.embedded", "up"],
        env=place.environment,
        cwd="/",
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while b"hive is up: " not in shown:
        shown += os.read(leader, 4096)
    os.close(leader)
    process.send_signal(signal.SIGHUP)
    assert process.wait(UP_SECONDS_MAX) == 0
    assert place.left() == []


def test_what_a_killed_up_leaves_the_next_one_clears(place: Place) -> None:
    first = place.up().wait_until_up()
    first.process.kill()
    first.ended()
    second = place.up().wait_until_up()
    second.process.terminate()
    assert second.ended() == 0
    assert place.left() == []


def test_a_killed_supervisor_is_replaced_and_down_clears_what_is_left_when_all_of_the_top_is_killed(
    place: Place,
) -> None:
    up = place.up().wait_until_up()
    the_cages_outlive_a_supervisor(place, up)
    supervisor = up.supervisor()
    services = [
        process for process in processes.marked(MARK, str(place.paths.run)) if process.pid != supervisor
    ]
    for pid in (up.process.pid, supervisor, *(process.pid for process in services)):
        os.kill(pid, signal.SIGKILL)
    up.ended()
    place.down()
    assert place.left() == []
    assert "no hive was running" in place.down()


def the_cages_outlive_a_supervisor(place: Place, up: Up) -> None:
    generation = place.run("libhive.admin", "agents", "--json").stdout
    os.kill(up.supervisor(), signal.SIGKILL)
    up.wait_for("starting another")
    deadline = time.monotonic() + UP_SECONDS_MAX
    while place.run("libhive.admin", "status").returncode:
        assert time.monotonic() < deadline
    after = place.run("libhive.admin", "agents", "--json").stdout
    assert '"generation": 1' in generation
    assert '"generation": 1' in after


def test_a_taken_port_is_one_clear_sentence_and_nothing_is_left(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(place.environment["HIVE_DASHBOARD_PORT"])))
        taken.listen()
        up = place.up()
        assert up.ended() == 1
    assert "dashboard does not start" in up.said
    assert place.environment["HIVE_DASHBOARD_PORT"] in up.said
    assert place.left() == []


def test_a_missing_bubblewrap_is_one_clear_sentence_with_what_mends_it(place: Place) -> None:
    programs = place.root / "bin"
    programs.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if program.name != "bwrap" and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    up = place.up(PATH=str(programs))
    assert up.ended() == 1
    assert "bwrap is not installed" in up.said
    assert "apt-get install bubblewrap" in up.said
    assert place.left() == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HIVE_RUN_DIR", "relative"), ("HIVE_RUN_DIR", "/tmp/" + "x" * 90), ("HIVE_CAGE", "paper")],
)
def test_a_bad_setting_is_refused_in_words(place: Place, variable: str, value: str) -> None:
    ended = place.run("libhive.embedded", "up", **{variable: value})
    assert ended.returncode == 1
    assert value[:20] in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
