"""No cage at all: the harness as a plain process with the right directories. For tests, and only by name."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import libhive
from libhive.problems import Conflict
from services.lifecycle.cages import kernel, limits
from services.lifecycle.cages.keeper import MARK, STATUS_FILE, Command, Kept, Running, mark
from services.lifecycle.cages.plan import Inside, Plan, environment

_KEEP = 'read -r _ || exit 125; out=$1; shift; "$@" </dev/null; code=$?; echo "{\\"exit-code\\": $code}" >>"$out"; exit $code'


class ProcessCage(Kept):
    kind = "process"

    def check(self) -> None:
        for program in ("env", "prlimit", "setpriv"):
            if shutil.which(program) is None:
                raise Conflict(f"{program} is not installed", "sudo apt-get install coreutils util-linux")

    def command(self, plan: Plan, status_fd: int, stack: contextlib.ExitStack) -> Command:
        inside = Inside(
            doors=str(plan.doors),
            page=str(plan.page),
            state=str(plan.state),
            spec=str(plan.spec_file),
            claude=str(plan.claude),
            python_path=str(Path(libhive.__file__).parent.parent) if self.installation.python_path else "",
        )
        variables = environment(plan, inside) | {MARK: mark(self.paths, plan.name)}
        argv = [
            "sh",
            "-c",
            _KEEP,
            "hive-cage",
            str(plan.run / STATUS_FILE),
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
        ]
        argv += [
            "env",
            "-i",
            f"--chdir={plan.state}",
            *(f"{name}={value}" for name, value in variables.items()),
        ]
        return Command(
            [*argv, *limits.prlimit(plan.spec.limits, self.rlimits(plan)), sys.executable, *plan.program]
        )

    def find(self, cage: Running) -> bool:
        for pid in kernel.children(cage.keeper.pid):
            if kernel.command_name(pid) not in ("sh", "setpriv", "env", "prlimit"):
                cage.program = pid
                return True
        return False

    def rlimits(self, plan: Plan) -> list[str]:
        """As root, RLIMIT_NPROC holds nothing; otherwise it counts all that its user runs anywhere."""
        return [limit for limit in super().rlimits(plan) if limit != "tasks"]

    def controls_of(self, cage: Running) -> Mapping[str, bool]:
        return {}
