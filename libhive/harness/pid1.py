"""Being the first process of a cage: a parent that reaps what the agent's tools leave behind.

The harness runs in its child. Reaping in the harness itself would take exit codes away from asyncio, which waits for
the processes it has started by their own ids.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stay_behind() -> None:
    """Returns only in the child. Call it before any thread or event loop exists."""
    child = os.fork()
    if child == 0:
        return

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    sys.exit(_reap_until(child))


def _reap_until(child: int) -> int:
    """Waits for everybody; the status of the one that matters is ours. The kernel ends the others with us."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) % 256
