"""The story by mouse: the dashboard in a real Chromium, over a real hive."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.system.conftest import TOGETHER, Story
from tests.system.test_story import nothing_was_lost_or_doubled

pytestmark = TOGETHER

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Of somebody who has never been here."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield await context.new_page()
    await context.close()


async def test_the_story_by_mouse(story: Story, page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(story.link)
    await expect(page.get_by_role("heading", name="Agents")).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_text("hive-admin login")).to_be_visible()

    await say(page, "hm1nd", "spawn an agent called iris who draws")
    await page.get_by_role("link", name="Approvals").click()
    await page.get_by_role("button", name="Approve #1").click(timeout=PATIENCE_MS)
    await expect(page.get_by_text("deployed/1")).to_be_visible(timeout=PATIENCE_MS)

    await page.get_by_role("link", name="Agents").click()
    await say(page, "iris", "hello")
    await page.get_by_role("link", name="Messages").click()
    await expect(page.get_by_text("Hello, I am iris.").first).to_be_visible(timeout=PATIENCE_MS)

    await say(page, "iris", "ask me which colour you should use: red, green or blue")
    await page.get_by_role("link", name="Questions").click()
    await page.get_by_role("button", name="green").click(timeout=PATIENCE_MS)
    await page.get_by_role("link", name="Events").click()
    await expect(page.get_by_role("heading", name="Events")).to_be_visible()
    await story.mail_to_operator("iris", "green")
    await her_own_page(story, page)
    await nothing_was_lost_or_doubled(story)
    assert errors == []


async def say(page: Page, to: str, text: str) -> None:
    await page.get_by_label("To", exact=True).select_option(to, timeout=PATIENCE_MS)
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_text(f"sent to {to}").last).to_be_visible(timeout=PATIENCE_MS)


async def her_own_page(story: Story, page: Page) -> None:
    """On a port of its own, with a transcript that goes on by itself, and a composer."""
    await page.get_by_role("link", name="Agents").click()
    card = page.locator("article").filter(has_text="iris")
    async with page.context.expect_page() as opened:
        await card.get_by_role("link", name="Page").click()
    own = await opened.value
    assert own.url.split(":")[-1].strip("/") == str(int(story.hive.environ["HIVE_DASHBOARD_PORT"]) + 1_100)
    await expect(own.get_by_text("I greeted you.").first).to_be_visible(timeout=PATIENCE_MS)
    await own.get_by_role("textbox", name="Message").fill("run: echo by $(hostname) herself")
    await own.get_by_role("button", name="Send").click()
    await expect(own.get_by_text("by h-iris herself").first).to_be_visible(timeout=PATIENCE_MS)


async def test_without_a_login_there_is_nothing_to_see(story: Story, page: Page, browser: Browser) -> None:
    port = story.hive.environ["HIVE_DASHBOARD_PORT"]
    await page.goto(f"http://127.0.0.1:{port}/")
    await expect(page.get_by_text("hive-admin link")).to_be_visible(timeout=PATIENCE_MS)
    for path in ("/api/state", "/events/stream", "/api/messages"):
        assert (await page.request.get(f"http://127.0.0.1:{port}{path}")).status == 401
    link = (await story.hive.dashboard.make_link()).url
    await page.goto(link)
    await expect(page.get_by_role("heading", name="Agents")).to_be_visible(timeout=PATIENCE_MS)
    again = await browser.new_context()
    second = await again.new_page()
    await second.goto(link)  # the link is used up
    await expect(second.get_by_text("hive-admin link").first).to_be_visible(timeout=PATIENCE_MS)
    await again.close()
