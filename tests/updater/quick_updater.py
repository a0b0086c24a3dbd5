"""The updater with its waits shortened, so that a test of what happens at their end need not be as long."""

from __future__ import annotations

from libhive import daemon
from libhive.link import Link
from libhive.paths import Paths
from services.updater.service import Updater
from services.updater.settings import Settings
from services.updater.store import Store

QUICK = Settings(
    healthy_seconds_max=2.0,
    quiet_seconds=0.1,
    unsure_seconds_max=1.0,
    poll_seconds=0.1,
    look_seconds=1.0,
    retry_seconds_min=0.1,
    retry_seconds_max=0.5,
)


def build(paths: Paths) -> Updater:
    return Updater(QUICK, Store(paths.database("updater")), Link(paths))


if __name__ == "__main__":
    daemon.main(build)
