from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.lifecycle import logbook


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logbook, "LOG_BYTES_MAX", 1000)
    monkeypatch.setattr(logbook, "LOG_BYTES_HARD_MAX", 4000)
    return tmp_path / "iris.log"


def test_the_tail_is_the_last_lines(log: Path) -> None:
    assert logbook.tail(log, 3) == ""
    log.write_bytes(b"1\n2\n\xff\n4\n")
    assert logbook.tail(log, 2) == "\ufffd\n4\n"
    assert logbook.last_line(log) == "4"


def test_a_big_log_is_put_aside_at_the_next_start(log: Path) -> None:
    log.write_bytes(b"x" * 1001)
    os.close(logbook.open_for_cage(log))
    assert log.stat().st_size == 0
    assert log.with_suffix(".log.1").stat().st_size == 1001


def test_the_log_of_a_running_cage_is_cut_and_goes_on(log: Path) -> None:
    fd = logbook.open_for_cage(log)
    os.write(fd, b"a" * 4000 + b"b" * 1000)
    logbook.bound(log)
    assert log.with_suffix(".log.1").read_bytes() == b"b" * 1000
    os.write(fd, b"on\n")
    assert log.read_bytes() == b"on\n"
    os.close(fd)


def test_a_log_with_a_hole_of_a_terabyte_is_read_at_its_end(log: Path) -> None:
    os.close(logbook.open_for_cage(log))
    os.truncate(log, 1 << 40)
    with log.open("ab") as file:
        file.write(b"\nend\n")
    assert logbook.tail(log, 1) == "end\n"
    logbook.bound(log)
    assert log.stat().st_size == 0


def test_a_link_in_the_logs_place_is_not_followed(log: Path, tmp_path: Path) -> None:
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        logbook.open_for_cage(log)
