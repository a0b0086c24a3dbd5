"""What doctor says of one thing, and how it asks a program about it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import msgspec

PROGRAM_SECONDS_MAX = 20.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    check: str
    ok: bool
    detail: str
    mend: str = ""
    """What to type, when it is not ok."""


def run(command: list[str], more: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Its exit status, and what it said on both outputs; `more` is added to the little environment that it gets."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/",
        "PYTHONSAFEPATH": "1",
        **(more or {}),
    }
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"{command[0]} did not answer within {PROGRAM_SECONDS_MAX:g} s"
    return ended.returncode, ended.stdout + ended.stderr
