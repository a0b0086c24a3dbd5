"""The messages view: looking for what was said, page by page, the whole way of a message, and the end of a dead one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from playwright.async_api import expect

from libhive.messages import broker
from libhive.names import HIVE, OPERATOR
from libhive.problems import BadRequest, Conflict
from tests.dashboard.chromium import Browsing, go, logged_in, needs_chromium, toast
from tests.dashboard.conftest import Dashboard
from tests.dashboard.rich import HOSTILE, Hive, mail_id, receipts


def said(number: int, body: str, **more: Any) -> broker.Receipt:
    fields = {
        "id": mail_id(5000 + number),
        "sender": "iris",
        "recipient": "atlas",
        "kind": "message",
        "state": "acked",
        "attempts": 1,
        "stored_ms": 1_795_000_000_000 + number,
        "body": body,
        "seq": number,
    }
    return broker.Receipt(**{**fields, **more})


# ---- what the page asks


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ({}, broker.Search(limit=100)),
        ({"agent": "iris", "before": "77"}, broker.Search(agent="iris", before=77, limit=100)),
        (
            {"agent": OPERATOR, "text": 'light* "at dusk"'},
            broker.Search(agent=OPERATOR, text='light* "at dusk"', limit=100),
        ),
        ({"agent": HIVE, "thread": mail_id(3)}, broker.Search(agent=HIVE, root=mail_id(3), limit=100)),
        ({"since_ms": "5", "until_ms": "9"}, broker.Search(since_ms=5, until_ms=9, limit=100)),
    ],
    ids=str,
)
async def test_a_query_is_a_search(
    dashboard: Dashboard, hive: Hive, query: dict[str, str], asked: broker.Search
) -> None:
    hive.broker.answers[broker.Search] = broker.Found(
        receipts=[said(9, "hello", ended_ms=0, root=mail_id(1), hops=2)], before=9
    )
    browser = await dashboard.browser()
    page = (await browser.get("/api/messages", params=query)).json()
    assert hive.broker.last(broker.Search) == asked
    assert page["before"] == 9
    (message,) = page["messages"]
    assert (message["seq"], message["root"], message["hops"]) == (9, mail_id(1), 2)


@pytest.mark.parametrize(
    "query",
    [
        "before=../x",
        "before=-1",
        "before=1e3",
        "agent=..",
        "thread=x",
        "since_ms=yesterday",
        "until_ms=",
        "text=" + "x" * 501,
    ],
)
async def test_a_query_that_is_none_is_refused(dashboard: Dashboard, hive: Hive, query: str) -> None:
    assert (await (await dashboard.browser()).get(f"/api/messages?{query}")).status_code == 400


# ---- in the browser


@needs_chromium
async def test_a_search_is_shown_with_its_pages_and_cleared_again(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    def found(asked: broker.Search) -> broker.Found:
        if asked.text == '"open':
            raise BadRequest("a quotation mark is missing", "close it")
        if not asked.text and not asked.root:
            return broker.Found(receipts=[])
        if asked.before == 0:  # nothing yet: it takes its time
            return broker.Found(receipts=[], before=90)
        page = [said(asked.before - n, f"sketch {asked.before - n} " + HOSTILE) for n in range(1, 4)]
        return broker.Found(receipts=page, before=page[-1].seq if page[-1].seq > 85 else 0)

    hive.broker.answers[broker.Search] = found
    async with browsing("400") as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        live = await page.locator(".message").count()
        await page.get_by_label("Search messages").fill("sketch")
        await page.keyboard.press("Enter")
        await expect(page.locator(".message")).to_have_count(3)
        await expect(page.locator(".message").first).to_contain_text("sketch 89")
        await page.get_by_role("button", name="Older").click()
        await expect(page.locator(".message")).to_have_count(6)
        await expect(page.get_by_role("button", name="Older")).to_have_count(0)
        assert [
            asked.request.before for asked in hive.broker.heard if isinstance(asked.request, broker.Search)
        ] == [0, 90, 87]  # type: ignore[attr-defined]
        assert await page.evaluate("window.pwned") is None

        await page.locator(".filter a", has_text="iris").click()
        await expect(page.locator(".message")).to_have_count(3)
        asked = hive.broker.last(broker.Search)
        assert (asked.agent, asked.text) == ("iris", "sketch")  # type: ignore[union-attr]
        await page.get_by_label("Since").fill("2026-11-20T10:00")
        await dashboard.until(lambda: getattr(hive.broker.last(broker.Search), "since_ms", 0) > 0)
        since = await page.evaluate("new Date('2026-11-20T10:00').getTime()")
        assert hive.broker.last(broker.Search).since_ms == since  # type: ignore[union-attr]

        await page.get_by_label("Search messages").fill('"open')
        await page.get_by_role("button", name="Search", exact=True).click()
        await expect(page.locator(".refused[role=alert]")).to_contain_text("a quotation mark is missing")
        await page.get_by_role("button", name="Clear").click()
        await page.locator(".filter a", has_text="all").click()
        await expect(page.locator(".message")).to_have_count(live)


@needs_chromium
async def test_a_conversation_is_shown_as_one(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    hive.broker.answers[broker.Search] = lambda asked: broker.Found(
        receipts=[said(8, "and thanks", root=mail_id(5)), said(5, "which way?", root=mail_id(5))]
        if asked.root
        else []
    )
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        hive.broker.publish(broker.MessageStored(receipt=said(98, "a late reply", root=mail_id(5), hops=1)))
        await (
            page.locator(".message", has_text="a late reply")
            .get_by_role("button", name="conversation")
            .click()
        )
        await expect(page.locator(".message")).to_have_count(2)
        assert hive.broker.last(broker.Search) == broker.Search(root=mail_id(5), limit=100)
        await expect(page.locator(".look")).to_contain_text("one conversation")


@needs_chromium
async def test_older_ones_are_fetched_from_where_the_live_copy_ends(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    """Unread mail that is older than the rest must not make the page begin below the hole."""
    newest = [msgspec.structs.replace(one, seq=one.seq + 1000) for one in receipts()]
    old = said(3, "very old and unread", recipient=OPERATOR, state="stored")
    hive.broker.answers[broker.History] = broker.ReceiptList(receipts=newest[::-1])
    hive.broker.answers[broker.Inbox] = broker.ReceiptList(receipts=[old])
    hive.broker.answers[broker.Search] = lambda asked: broker.Found(
        receipts=[said(asked.before - n, f"history {n}") for n in (1, 2)],
        before=asked.before - 2 if asked.before > 998 else 0,
    )
    dashboard.service._snapshot._receipts.clear()
    await dashboard.service._watch.fetch("broker")
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        await page.get_by_role("button", name="Older").click()
        await expect(page.locator(".message", has_text="history 1")).to_have_count(1)
        await page.get_by_role("button", name="Older").click()
        await expect(page.locator(".message", has_text="history 1")).to_have_count(2)
        await page.get_by_role("button", name="Older").click()
        await expect(page.locator("#main")).to_contain_text("this is where it began")
        asked = [one.request.before for one in hive.broker.heard if isinstance(one.request, broker.Search)]  # type: ignore[attr-defined]
        assert asked == [1001, 999, 997]


@needs_chromium
async def test_the_whole_way_of_a_message(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        row = page.locator(".message", has_text="iris would like a bigger model")
        await row.get_by_role("button", name="its way").click()
        way = row.locator(".way")
        await expect(way.locator("dt")).to_have_text(["stored", "offered", "seen"])
        await expect(way).to_contain_text("2 attempts")
        await expect(way.locator("dd").first).to_contain_text("UTC")
        row = page.locator(".message", has_text="stand-up in ten minutes")
        await row.get_by_role("button", name="its way").click()
        await expect(row.locator(".way")).to_have_count(3)
        await row.get_by_role("button", name="hide its way").click()
        await expect(row.locator(".way")).to_have_count(0)


@needs_chromium
async def test_a_dead_message_is_tried_again_or_dropped(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    dead = next(one for one in receipts() if one.state == "dead")
    async with browsing("409") as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        row = page.locator(".message", has_text="are you there?")
        await expect(row.locator(".dead")).to_contain_text("offered 5 times, no turn ended")
        hive.broker.answers[broker.RetryMail] = Conflict("it is stored already", "look again")
        await row.get_by_role("button", name="Retry").click()
        await toast(page, "it is stored already")
        del hive.broker.answers[broker.RetryMail]
        await row.get_by_role("button", name="Retry").click()
        await toast(page, "bento gets it again")
        assert hive.broker.last(broker.RetryMail) == broker.RetryMail(id=dead.id, recipient="bento")

        await row.get_by_role("button", name="Drop").click()
        await expect(page.locator("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_have_count(0)
        assert hive.broker.last(broker.DropMail) is None
        await row.get_by_role("button", name="Drop").click()
        await page.locator("dialog").get_by_role("button", name="Drop it").click()
        await toast(page, "dropped")
        assert hive.broker.last(broker.DropMail) == broker.DropMail(id=dead.id, recipient="bento")
        hive.broker.publish(
            broker.ReceiptChanged(
                id=dead.id,
                recipient="bento",
                state="expired",
                at_ms=1_795_000_000_000,
                reason="dropped by the operator",
            )
        )
        await expect(row.locator(".dead")).to_have_count(0)
        await expect(row).to_contain_text("dropped by the operator")
        await row.get_by_role("button", name="its way").click()
        await expect(row.locator(".way dt").last).to_have_text("expired")


@needs_chromium
async def test_what_a_message_waits_for_is_said(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    reason = "paused: the operator is asked whether this conversation goes on"
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        hive.broker.publish(
            broker.MessageStored(
                receipt=said(99, "one more round", state="stored", attempts=0, reason=reason)
            )
        )
        row = page.locator(".message", has_text="one more round")
        await expect(row.locator(".held")).to_contain_text(reason)
        await row.get_by_role("link", name="Questions").click()
        await expect(page.locator("h1#title")).to_have_text("Questions")
