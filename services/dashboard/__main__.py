"""hive-dashboard: settings, store, link, service, run."""

from __future__ import annotations

from libhive import daemon
from libhive.link import Link
from libhive.names import OPERATOR
from libhive.paths import Paths
from services.dashboard.service import DashboardService
from services.dashboard.settings import Settings
from services.dashboard.store import Store


def build(paths: Paths) -> DashboardService:
    settings = Settings.from_environment()
    return DashboardService(paths, settings, Store(paths.database("dashboard")), Link(paths, actor=OPERATOR))


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
