from __future__ import annotations

import os

from libhive import daemon
from libhive.link import Link
from libhive.paths import Paths
from services.gateway.credential import Keeper
from services.gateway.service import GatewayService
from services.gateway.settings import Settings
from services.gateway.store import Store


def build(paths: Paths) -> GatewayService:
    settings = Settings.from_environment(os.environ)
    keeper = Keeper.open(paths.own("gateway") / "credential.json")
    store = Store.open(paths.database("gateway"))
    return GatewayService(paths, settings, keeper, store, Link(paths))


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
