from __future__ import annotations

from libhive import daemon
from libhive.link import Link
from libhive.paths import Paths
from services.approvals.service import Approvals
from services.approvals.settings import Settings
from services.approvals.store import Store


def build(paths: Paths) -> Approvals:
    return Approvals(paths, Settings(), Store(paths.database("approvals")), Link(paths))


def main() -> None:
    daemon.main(build)


if __name__ == "__main__":
    main()
