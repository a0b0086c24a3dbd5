from __future__ import annotations

import gc

import uvloop

from libhive import daemon
from libhive.paths import Paths
from libhive.sqlite import Database
from services.broker.service import Broker
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS

GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""Allocations before the collector looks for cycles, of which the broker makes next to none: at Python's own thresholds it
takes a tenth of the time under load."""


def build(paths: Paths) -> Broker:
    settings = Settings.from_environment()
    database = Database.open(paths.database("broker"), MIGRATIONS, keeps_redo=True)
    database.grow_log()
    broker = Broker(database, settings)
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    return broker


def main() -> None:
    daemon.main(build, uvloop.new_event_loop)


if __name__ == "__main__":
    main()
