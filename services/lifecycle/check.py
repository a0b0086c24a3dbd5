"""`python -m services.lifecycle.check`: can this host make the cages that are wanted? Says what mends it if not."""

from __future__ import annotations

import sys

from libhive.paths import Paths
from libhive.problems import Conflict, Problem
from services.lifecycle.cages import cages
from services.lifecycle.settings import Settings


def check(settings: Settings, paths: Paths) -> None:
    """Raises a Problem with one sentence and the command that mends it."""
    cages(settings.cage, paths).check()
    if settings.claude is None:
        raise Conflict(
            "the Claude Code CLI is not installed", "`make up` installs it; or name one: HIVE_CLAUDE=/path"
        )


def main() -> int:
    try:
        check(Settings.from_environment(), Paths.from_environment())
    except Problem as problem:
        sys.stderr.write(f"{problem.message}\n  {problem.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
