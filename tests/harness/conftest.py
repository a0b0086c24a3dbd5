from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.rig import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    try:
        await rig.start()
        yield rig
    finally:
        await rig.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    """A failed test shows what the processes logged."""
    outcome = yield
    report, rig = outcome.get_result(), getattr(item, "funcargs", {}).get("rig")
    for log in sorted(rig.root.glob("*.log")) if report.failed and rig is not None else ():
        report.sections.append((log.name, log.read_text(errors="replace")[-8_000:]))
