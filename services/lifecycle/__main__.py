from __future__ import annotations

from libhive import daemon
from libhive.clock import now_ms
from libhive.link import Link
from libhive.paths import Paths
from libhive.sqlite import Database
from services.lifecycle.cages import cages
from services.lifecycle.service import Lifecycle
from services.lifecycle.settings import Settings
from services.lifecycle.store import MIGRATIONS, Store


def build(paths: Paths, settings: Settings | None = None) -> Lifecycle:
    settings = settings or Settings.from_environment()
    kind = cages(settings.cage, paths)
    kind.check()
    store = Store(Database.open(paths.database("lifecycle"), MIGRATIONS), now_ms)
    return Lifecycle(paths, settings, store, kind, Link(paths))


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
