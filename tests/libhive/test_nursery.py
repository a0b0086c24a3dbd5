"""A process that was born by fork is, to the test that started it, one that was started by exec."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from libhive.testing import nursery

PROGRAM = """
import os, sys, time
from libhive import faults
if __name__ == "__main__":
    faults.reach("here")
    if sys.argv[1:] == ["stay"]:
        time.sleep(60)
    files = sorted(os.listdir("/proc/self/fd"))
    print(__name__, sys.argv[1:], os.environ.get("WHO"), files, os.getsid(0) == os.getpid())
    sys.exit(3)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "a_program.py").write_text(PROGRAM)
    here = str(Path(__file__).parents[2])
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{here}:{tmp_path}", "PYTHONSAFEPATH": "1"}


def test_it_runs_as_a_program_of_its_own(environ: dict[str, str]) -> None:
    for who in ("iris", "ben"):
        with tempfile.TemporaryFile() as output:
            process = nursery.start("a_program", ["x"], environ=environ | {"WHO": who}, output=output)
            assert process.wait(10) == 3
            output.seek(0)
            # the fourth is the directory that is being listed
            assert output.read().decode() == f"__main__ ['x'] {who} ['0', '1', '2', '3'] True\n"


def test_it_is_killed_by_its_fault_and_by_signals(environ: dict[str, str]) -> None:
    with tempfile.TemporaryFile() as output:
        faulty = nursery.start("a_program", environ=environ | {"HIVE_FAULT": "here"}, output=output)
        assert faulty.wait(10) == -signal.SIGKILL
        stays = nursery.start("a_program", ["stay"], environ=environ, output=output)
        with pytest.raises(subprocess.TimeoutExpired):
            stays.wait(0.01)
        assert stays.poll() is None
        stays.terminate()
        assert stays.wait(10) == stays.poll() == -signal.SIGTERM


def test_its_pid_is_its_own_until_it_is_dropped_and_then_it_is_gone(environ: dict[str, str]) -> None:
    with tempfile.TemporaryFile() as output:
        ended = nursery.start("a_program", environ=environ, output=output)
        ended.wait(10)
        os.kill(ended.pid, 0)  # a zombie
        stays = nursery.start("a_program", ["stay"], environ=environ, output=output)
        gone = os.pidfd_open(stays.pid)
        del stays
        watch = select.poll()
        watch.register(gone, select.POLLIN)
        assert watch.poll(10_000)
        os.close(gone)
