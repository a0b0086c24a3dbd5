"""`make install` in a Debian booted by systemd, without network; what it leaves, an upgrade, and the way out of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.booted.container import Container
from tests.booted.layer import installed

SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
UNITS = [f"hive-{service}.service" for service in SERVICES]


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with Container(on=installed()) as booted:
        yield booted


def test_it_comes_up(container: Container) -> None:
    container.until(
        "all services",
        lambda: container.run("systemctl", "is-active", *UNITS, status=None).split() == ["active"] * 6,
    )
    print(container.run("hive-admin", "doctor", status=None))
