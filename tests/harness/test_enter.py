"""The small init of an nspawn cage: a shell, whose `wait` returns early when a signal comes."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from libhive.harness import enter

GOES_WHEN_ASKED: Final = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("up", flush=True)
while True: signal.pause()
"""


def init(*program: str) -> subprocess.Popen[str]:
    line = ["/bin/sh", "-c", enter.INIT, enter.NAME, *program]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def test_a_program_that_was_asked_to_end_and_did_has_ended_well() -> None:
    codes = []
    for _ in range(30):
        with init(sys.executable, "-I", "-S", "-c", GOES_WHEN_ASKED) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
        codes.append(process.returncode)
    assert set(codes) == {0}, codes


@pytest.mark.parametrize("code", [0, 3, 127])
def test_it_ends_as_its_program_did(code: int) -> None:
    with init("/bin/sh", "-c", f"exit {code}") as process:
        pass
    assert process.returncode == code
