"""python -m tests.booted [--limits] [COMMAND...]: boots a container by hand and runs the command, or a shell, in it."""

from __future__ import annotations

import subprocess
import sys

from tests.booted.container import Container

given = sys.argv[1:]
limits = given[:1] == ["--limits"]
with Container(limits=limits) as container:
    enter = ["nsenter", "-t", str(container.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
    raise SystemExit(subprocess.run([*enter, *(given[limits:] or ["bash"])], cwd="/", check=False).returncode)
