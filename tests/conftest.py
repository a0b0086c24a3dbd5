"""What takes long begins first: a file that is begun last keeps one worker busy while the others have nothing to do."""

from __future__ import annotations

import pytest

LONG = (
    "tests/booted/test_services",  # installs what the others boot from; they would wait for it, each with a worker
    "tests/proofs/",
    "tests/door/",
    "tests/powercut/",
    "tests/booted/",
    "tests/system/",
    "tests/embedded/test_up_down",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, part in enumerate(LONG) if part in item.nodeid), len(LONG))
