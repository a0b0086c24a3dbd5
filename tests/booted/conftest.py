from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.booted.container import Container


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Told apart from a success: in CI a test that cannot run is a failure."""
    missing = [name for name in ("mmdebstrap", "systemd-nspawn") if shutil.which(name) is None]
    reason = (
        "only root can boot a container" if os.geteuid() else f"not installed: {missing}" if missing else ""
    )
    if reason and "booted" in item.path.parts:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """A container that the tests of one file share."""
    with Container() as booted:
        yield booted
