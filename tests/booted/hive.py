"""The clients of a hive that is installed in a container."""

from __future__ import annotations

import shutil
from types import TracebackType

from libhive.paths import Paths
from libhive.testing.hive import Hive
from tests.booted.container import Container


class InstalledHive(Hive):
    """The clients of a hive whose processes are the container's units."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        self.container = container
        self.paths = Paths(run=container.path("/run/hyperhive"), state=container.path("/var/lib/hyperhive"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for link in self._links:
            await link.close()
        shutil.rmtree(self.root)

    def logs(self) -> str:
        return self.container.journal()[-20_000:]
