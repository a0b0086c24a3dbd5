"""Finding and ending real processes; who holds a hive; a supervisor that starts things again at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libhive.embedded import hold, processes
from libhive.paths import Paths
from libhive.problems import AlreadyExists

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
HOLDING = """
import sys, time
from pathlib import Path
from libhive.embedded import hold
from libhive.paths import Paths
with hold.hold(Paths(run=Path(sys.argv[1]), state=Path(sys.argv[2]))):
    print("on", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *argv: str, **environ: str) -> subprocess.Popen[str]:
        environment = {**ENVIRONMENT, **environ}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *argv], env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


Start = Callable[..., subprocess.Popen[str]]


def test_marked_processes_are_found_and_no_others(start: Start) -> None:
    wanted = start(STUBBORN, HIVE_EMBEDDED="/run/of/this/test")
    start(STUBBORN, HIVE_EMBEDDED="/run/of/this/test2")
    start(STUBBORN, OTHER="/run/of/this/test")
    found = processes.marked("HIVE_EMBEDDED", "/run/of/this/test")
    assert [process.pid for process in found] == [wanted.pid]
    assert found[0].argv[1] == "-c"


def test_who_does_not_end_is_made_to(start: Start) -> None:
    stubborn = start(STUBBORN, HIVE_EMBEDDED="/run/of/this/test")
    began = time.monotonic()
    processes.end(processes.marked("HIVE_EMBEDDED", "/run/of/this/test"), within_seconds=0.3)
    assert stubborn.wait(1) == -signal.SIGKILL
    assert time.monotonic() - began < 10


def test_a_pid_that_was_given_to_another_is_left_alone(start: Start) -> None:
    innocent = start(STUBBORN)
    processes.end([processes.Process(innocent.pid, started=1)], within_seconds=0.2)
    assert innocent.poll() is None
    assert not processes.is_alive(processes.Process(innocent.pid, started=1))


def test_a_process_that_has_ended_is_not_alive(start: Start) -> None:
    process = start("print('on')")
    process.wait()
    assert not processes.is_alive(processes.Process(process.pid, started=1))
    assert not processes.is_alive(processes.Process(0, 0))
    assert processes.is_alive(processes.this_process())


def test_a_second_hive_on_the_same_state_or_run_directory_is_told_who_has_it(
    start: Start, tmp_path: Path
) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir()
    state.mkdir()
    first = start(HOLDING, str(run), str(state))
    other = tmp_path / "other"
    other.mkdir()
    for paths in (Paths(run=run, state=state), Paths(run=other, state=state), Paths(run=run, state=other)):
        with pytest.raises(AlreadyExists, match=str(first.pid)), hold.hold(paths):
            pass
        holder = hold.running(paths)
        assert holder is not None
        assert (holder.pid, holder.run, holder.state) == (first.pid, str(run), str(state))
    first.kill()
    first.wait()
    assert hold.running(Paths(run=run, state=state)) is None
    with hold.hold(Paths(run=run, state=state)):
        pass
    assert not run.exists()
    assert state.exists()


def test_a_lock_file_of_nonsense_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "hive.lock").write_bytes(b"\xff{")
    paths = Paths(run=tmp_path, state=tmp_path.parent)
    assert hold.last_holder(tmp_path / "hive.lock") is None
    assert hold.running(paths) is None


SLEEPER = """
import os, time
from pathlib import Path
with Path(__file__).with_name("pids").open("a") as pids:
    pids.write(f"{os.getpid()}\\n")
time.sleep(60)
"""
CONFIG = """
[supervisord]
nodaemon=true
silent=true
logfile={root}/supervisor.log
pidfile={root}/supervisord.pid
minfds=64
minprocs=16
[program:sleeper]
command=setpriv --pdeathsig TERM -- {python} {root}/sleeper.py
autorestart=true
redirect_stderr=true
stdout_logfile={root}/sleeper.log
"""


def pids(root: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = (root / "pids").read_text().split() if (root / "pids").exists() else []
        if len(found) >= count:
            return [int(pid) for pid in found]
        time.sleep(0.01)
    raise AssertionError("it was not started again")


def test_what_is_killed_is_back_within_a_second_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "conf").write_text(CONFIG.format(root=tmp_path, python=sys.executable))
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "libhive.embedded.supervisor", "-c", str(tmp_path / "conf")],
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    try:
        (first,) = pids(tmp_path, 1)
        time.sleep(1.2)  # supervisord takes what ends within a second of its start for a failed start
        began = time.monotonic()
        os.kill(first, signal.SIGKILL)
        second = pids(tmp_path, 2)[1]
        assert time.monotonic() - began < 10
    finally:
        supervisor.kill()
        supervisor.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{second}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
