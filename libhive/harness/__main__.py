"""`hive-harness [--as-pid-1]`: settings, harness, run. Exits 0 when told to stop or replaced by another harness, 1 on a
bug, 2 when it could not start for a reason a person can mend."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from libhive import logs
from libhive.harness import pid1


def main() -> None:
    if "--as-pid-1" in sys.argv[1:]:
        pid1.stay_behind()
    logs.setup("harness")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    from libhive.harness import harness  # after the fork: the process that stays behind needs none of it
    from libhive.harness.settings import Settings
    from libhive.problems import Problem

    try:
        status = asyncio.run(harness.run(Settings.from_environment(os.environ)))
    except Problem as problem:
        logging.getLogger("hive.harness").critical(
            "%s%s", problem.message, f" ({problem.hint})" if problem.hint else ""
        )
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
