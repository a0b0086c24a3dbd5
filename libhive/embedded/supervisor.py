"""supervisord as it is on PyPI, except that it starts a service again at once, not within a second."""

from __future__ import annotations

import time

import supervisor.poller
from supervisor import supervisord

ATTENTIVE_SECONDS = 0.5
NAP_SECONDS = 0.02


class AttentivePoller(supervisor.poller.Poller):  # type: ignore[misc]
    """supervisord looks for ended processes when its poll returns, each second. Their closed pipes wake it a
    moment before they can be reaped, so after any event it naps for a while instead of sleeping."""

    attentive_until = 0.0

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        if time.monotonic() < self.attentive_until:
            timeout = NAP_SECONDS
        ready: tuple[list[int], list[int]] = super().poll(timeout)
        if any(ready):
            self.attentive_until = time.monotonic() + ATTENTIVE_SECONDS
        return ready


def main() -> None:
    supervisor.poller.Poller = AttentivePoller
    supervisord.main()


if __name__ == "__main__":
    main()
