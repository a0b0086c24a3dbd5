from __future__ import annotations

from libhive import daemon
from libhive.paths import Paths
from services.broker.service import Broker
from services.broker.settings import Settings
from services.broker.store import Store


def build(paths: Paths) -> Broker:
    return Broker(Store.open(paths.database("broker")), Settings.from_environment())


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
