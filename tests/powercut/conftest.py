from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def traces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a module's recordings lie. They are large, so they are kept only for a failure to be looked at."""
    directory = tmp_path_factory.mktemp("powercut")
    failed = request.session.testsfailed
    yield directory
    if request.session.testsfailed == failed:
        shutil.rmtree(directory)
