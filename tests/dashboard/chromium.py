"""A real browser, and what a test does in it first."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser, Page, expect

if TYPE_CHECKING:
    from tests.dashboard.conftest import Dashboard

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

needs_chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="needs Debian's chromium: apt install chromium"
)

Browsing = Callable[..., contextlib.AbstractAsyncContextManager[Page]]


@contextlib.asynccontextmanager
async def visit(browser: Browser, *complaints: str) -> AsyncIterator[Page]:
    """A page of a fresh context; at the end nothing but `complaints` may stand in its console."""
    errors: list[str] = []
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.set_default_timeout(6_000)
    try:
        yield page
    finally:
        await context.close()
    assert not [error for error in errors if not any(complaint in error for complaint in complaints)]


async def logged_in(page: Page, dashboard: Dashboard) -> None:
    await page.goto(dashboard.url(f"/login#{await dashboard.token()}"))
    await page.wait_for_url(dashboard.url("/"))
    await page.wait_for_selector(".card, .empty")


async def go(page: Page, view: str) -> None:
    await page.click(f'.tabs a[href="#/{view}"]')
    await expect(page.locator("h1#title")).to_have_text(view.capitalize())


async def toast(page: Page, text: str) -> None:
    """Waits for one that says so, and puts it away: whoever waits for the next means a new one."""
    await page.locator(".toast", has_text=text).first.get_by_role("button", name="Dismiss").click()
