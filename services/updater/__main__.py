from __future__ import annotations

from libhive import daemon
from libhive.link import Link
from libhive.paths import Paths
from services.updater.service import Updater
from services.updater.settings import Settings
from services.updater.store import Store


def build(paths: Paths) -> Updater:
    return Updater(Settings(), Store(paths.database("updater")), Link(paths))


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
