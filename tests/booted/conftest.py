from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.booted.container import Container, lacking


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Told apart from a success: in CI a test that cannot run is a failure."""
    reason = lacking()
    if reason and "booted" in item.path.parts:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """A container that the tests of one file share."""
    with Container() as booted:
        yield booted
