"""The pages in a real browser: every view, every kind of button, and text that would like to be more than text."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect

from libhive.clock import now_ms
from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.paths import Paths
from services.dashboard.settings import Settings
from tests.dashboard.cage import Cage, call, said
from tests.dashboard.chromium import Browsing, go, logged_in, needs_chromium, toast
from tests.dashboard.conftest import Dashboard, running
from tests.dashboard.rich import DIGEST, HOSTILE, Hive, agent, mail_id, proposals, reminders
from tests.dashboard.test_feed import stored

VIEWS = ("agents", "approvals", "messages", "questions", "reminders", "events")

pytestmark = needs_chromium


async def test_the_login_page_explains_and_the_link_works_once(
    dashboard: Dashboard, browsing: Browsing
) -> None:
    token = await dashboard.token()
    async with browsing() as page:
        await page.goto(dashboard.url("/"))
        assert page.url == dashboard.url("/login")
        await expect(page.locator("main")).to_contain_text("hive-admin link")
        await page.goto(dashboard.url(f"/login#{token}"))
        await page.wait_for_url(dashboard.url("/"))
        assert token not in page.url
        await page.click("text=Log out")
        await page.wait_for_url(dashboard.url("/login"))
    async with browsing("403") as page:
        await page.goto(dashboard.url(f"/login#{token}"))
        await expect(page.locator(".refused")).to_contain_text("used up")


async def test_five_views_and_a_click_through(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await expect(page.locator(".banner", has_text="Rehearsal")).to_contain_text("hive-admin login")
        for view in VIEWS:
            await go(page, view)

        await go(page, "agents")
        await page.locator(".card", has_text="iris").get_by_role("button", name="Message").click()
        await page.keyboard.type("good morning")
        await page.keyboard.press("Enter")
        await toast(page, "sent to iris")
        assert hive.broker.last(broker.Send) == broker.Send(to=["iris"], body="good morning")
        await page.locator(".card", has_text="quill").get_by_role("button", name="Resume").click()
        await toast(page, "quill goes on")
        assert hive.broker.last(broker.SetHold) == broker.SetHold(
            agent="quill", reason="operator", held=False
        )

        await go(page, "messages")
        row = page.locator(".message.fresh", has_text="Three sketches")
        await row.get_by_role("button", name="Mark read").click()
        await dashboard.until(lambda: hive.broker.last(broker.AckInbox) == broker.AckInbox(ids=[mail_id(10)]))
        await row.get_by_role("button", name="Reply").click()
        await page.keyboard.type("thank you")
        await page.keyboard.press("Enter")
        await toast(page, "sent to iris")
        answer = broker.Send(to=["iris"], body="thank you", in_reply_to=mail_id(10))
        assert hive.broker.last(broker.Send) == answer

        await go(page, "questions")
        await page.get_by_role("button", name="revert the commit").click()
        await toast(page, "answered atlas")
        assert hive.broker.last(broker.Answer) == broker.Answer(
            question=mail_id(201), text="revert the commit"
        )


async def test_reminders_are_seen_scheduled_and_ended(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "reminders")
        once, weekly = (page.locator(".reminders li", has_text=text) for text in ("the light", "weekly"))
        await expect(once).to_contain_text("look at the light again")
        await expect(once.locator(".countdown")).to_contain_text("in 13m")
        await expect(weekly).to_contain_text("At 09:00 on Monday, Europe/Berlin")
        await expect(weekly).to_contain_text("yours")
        await expect(weekly).to_contain_text("fired 6 times")

        await page.get_by_role("button", name="Schedule a prompt").click()
        await expect(page.get_by_role("button", name="Schedule it")).to_be_disabled()
        await page.locator("form.spawn select").first.select_option("iris")
        await page.get_by_label("Prompt").fill("what is new?")
        await page.get_by_label("How many").fill("1.5")
        await page.get_by_role("button", name="Schedule it").click()
        await toast(page, "iris is reminded")
        assert hive.broker.last(broker.Remind) == broker.Remind(
            agent="iris", text="what is new?", after_seconds=5_400
        )

        await page.get_by_role("button", name="Schedule a prompt").click()
        await page.get_by_label("Prompt").fill("the week?")
        await page.locator("form.spawn select").nth(1).select_option("cron")
        await page.get_by_label("Cron line").fill("0 9 * *")
        await expect(page.locator("form.spawn")).to_contain_text("five fields")
        await page.get_by_label("Cron line").fill("0 9 * * MON")
        await page.get_by_label("Time zone").fill("Asia/Tokyo")
        await page.locator("form.spawn select").last.select_option("all")
        await page.get_by_role("button", name="Schedule it").click()
        await toast(page, "hm1nd is reminded")
        assert hive.broker.last(broker.Remind) == broker.Remind(
            agent="hm1nd", text="the week?", cron="0 9 * * MON", zone="Asia/Tokyo", catch_up="all"
        )

        await page.get_by_role("button", name="Schedule a prompt").click()
        await page.get_by_label("Prompt").fill("happy new year")
        await page.locator("form.spawn select").nth(1).select_option("at")
        await page.get_by_label("At, on").fill("2099-01-01T00:00")
        await page.get_by_role("button", name="Schedule it").click()
        await dashboard.until(
            lambda: getattr(hive.broker.last(broker.Remind), "text", "") == "happy new year"
        )
        at_ms = await page.evaluate("new Date('2099-01-01T00:00').getTime()")
        assert hive.broker.last(broker.Remind) == broker.Remind(
            agent="hm1nd", text="happy new year", at_ms=at_ms
        )

        fired = msgspec.structs.replace(reminders()[1], fired=7, last_ms=now_ms())
        hive.broker.answers[broker.Reminders] = broker.ReminderList(reminders=[reminders()[0], fired])
        hive.broker.publish(broker.ReminderChanged(reminder=fired, what="fired"))
        await expect(weekly).to_contain_text("fired 7 times")
        await weekly.get_by_role("button", name="End").click()
        await page.locator("dialog").get_by_role("button", name="End it").click()
        await toast(page, "the reminder is ended")
        assert hive.broker.last(broker.CancelReminder) == broker.CancelReminder(id=mail_id(302))
        hive.broker.answers[broker.Reminders] = broker.ReminderList(reminders=[])
        hive.broker.publish(broker.ReminderChanged(reminder=fired, what="cancelled"))
        hive.broker.publish(broker.ReminderChanged(reminder=reminders()[0], what="fired"))
        await expect(page.locator(".reminders li")).to_have_count(0)


async def test_an_approval_shows_the_effect_first_and_is_bound_to_it(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "approvals")
        await expect(page.locator(".detail h3")).to_have_text(
            ["1 What it changes", "2 The exact change", "3 In the agent's own words"]
        )
        await expect(page.locator(".effect .risk")).to_have_text(["high", "medium", "medium", "low"])
        await expect(page.locator(".words-note")).to_contain_text("Nobody has checked it")
        await page.get_by_role("button", name="Approve #7").click()
        await expect(page.locator("dialog")).to_contain_text("allowed_recipients")
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_have_count(0)
        assert hive.approvals.last(approvals.Approve) is None
        await page.get_by_role("button", name="Approve #7").click()
        await page.locator("dialog").get_by_role("button", name="Approve").click()
        await toast(page, "proposal 7 is approved")
        assert hive.approvals.last(approvals.Approve) == approvals.Approve(number=7, digest=DIGEST)
        await page.click('.list a[href="#/approvals/6"]')
        await page.get_by_role("button", name="Deny").click()
        await page.locator("dialog textarea").fill("not now")
        await page.locator("dialog").get_by_role("button", name="Deny").click()
        await toast(page, "proposal 6 is denied")
        assert hive.approvals.last(approvals.Deny) == approvals.Deny(number=6, reason="not now")


async def test_what_is_decided_says_by_whom_and_not_that_it_cannot_be(
    dashboard: Dashboard, browsing: Browsing
) -> None:
    async with browsing("404") as page:
        await logged_in(page, dashboard)
        for number, words, state in (
            (5, "approved by operator", "building"),
            (4, "denied by operator", "denied"),
        ):
            await page.goto(dashboard.url(f"/#/approvals/{number}"))
            await expect(page.locator(".detail .num")).to_have_text(f"#{number}")
            await expect(page.locator(".detail > header")).to_contain_text(words)
            await expect(page.locator(".detail h2 .chip")).to_have_text(state)
            await expect(page.locator(".detail")).not_to_contain_text("Cannot be approved")
        for at in ("999", "nothing"):
            await page.evaluate("at => { location.hash = at }", f"#/approvals/{at}")
            await expect(page.locator(".missing")).to_contain_text(f"There is no proposal {at}")
            assert await page.get_by_role("button", name="Approve").count() == 0
        await page.click("text=Show what waits")
        await expect(page.locator(".detail .num")).to_have_text("#7")


async def test_mail_of_every_kind_has_its_body_below_its_header(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "messages")
        for number, kind in enumerate(("question", "answer", "reminder", "news"), 910):
            news = stored(number, f"the body of the {kind}")
            receipt = msgspec.structs.replace(news.receipt, kind=kind, sender="iris", in_reply_to=mail_id(4))
            hive.broker.publish(broker.MessageStored(receipt=receipt))
            row = page.locator(".message", has_text=f"the body of the {kind}")
            await expect(row.locator(".re")).to_have_text(
                "re: hello! please draw the lighthouse at dusk, three variants"
            )
            below = await row.evaluate(
                "row => { const [meta, body] = ['.meta', '.body'].map((one) => row.querySelector(one)"
                ".getBoundingClientRect()); return body.top >= meta.bottom && body.left === meta.left }"
            )
            assert below, kind


async def test_the_banners_stay_in_sight(
    dashboard: Dashboard, hive: Hive, paths: Paths, browsing: Browsing
) -> None:
    """Also on an agent's page, which opens at its end; and nothing that sticks is hidden behind them."""
    cage = await Cage(paths, "iris").start()
    async with browsing() as page:
        await page.set_viewport_size({"width": 1440, "height": 600})
        await logged_in(page, dashboard)
        await go(page, "approvals")
        hive.updater.stop()
        await expect(page.locator(".banner.bad")).to_contain_text("updater does not answer")
        await page.mouse.wheel(0, 300)
        await holds(page, "scrollY > 100")
        await expect(page.locator(".banner.bad")).to_be_in_viewport(ratio=1)
        assert await below_the_banners(page, ".list")
        await page.goto(dashboard.url("/", dashboard.port + 1101))
        await expect(page.locator(".say").first).to_be_attached()
        await holds(page, "scrollY > 100")
        await expect(page.locator(".banner.bad")).to_be_in_viewport(ratio=1)
        assert await below_the_banners(page, ".side")
    await cage.stop()


async def below_the_banners(page: Page, selector: str) -> bool:
    top, stuck = page.locator(".above"), page.locator(selector)
    above, box = await top.bounding_box(), await stuck.bounding_box()
    return bool(above and box and box["y"] >= above["y"] + above["height"] - 1)


async def test_an_agents_page_follows_while_one_reads_at_its_end(
    dashboard: Dashboard, hive: Hive, paths: Paths, browsing: Browsing
) -> None:
    left = "(page => page.scrollHeight - page.scrollTop - page.clientHeight)(document.scrollingElement)"
    cage = await Cage(paths, "iris").start()
    async with browsing() as page:
        await page.set_viewport_size({"width": 390, "height": 844})
        await logged_in(page, dashboard)
        await page.goto(dashboard.url("/", dashboard.port + 1101))
        await holds(page, f"scrollY > 100 && {left} < 2")
        for number in range(3):
            cage.add("assistant", said({"type": "text", "text": f"output {number}\n" * 80}))
            await expect(page.locator(".say").last).to_contain_text(f"output {number}")
            await holds(page, f"{left} < 2")
        await page.get_by_role("button", name="1 question ↑").click()
        await expect(page.locator(".side .question")).to_be_in_viewport()
        cage.add("assistant", said({"type": "text", "text": "the last word"}))
        await expect(page.locator(".say").last).to_contain_text("the last word")
        await expect(page.locator(".side .question")).to_be_in_viewport()
        await page.locator(".side .question textarea").fill("a poster")
        await page.keyboard.press("Enter")
        await toast(page, "answered iris")
    await cage.stop()


async def test_the_events_follow_their_end(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    left = "(log => log.scrollHeight - log.scrollTop - log.clientHeight)(document.querySelector('.log'))"
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "events")
        for round in range(4):
            for number in range(30):
                hive.broker.publish(stored(2000 + 100 * round + number, f"line {round} {number}"))
            await expect(page.locator(".log .text").last).to_contain_text(f"line {round} 29")
            await holds(page, f"{left} < 2")
        await page.evaluate("document.querySelector('.log').scrollTop = 0")
        hive.broker.publish(stored(2900, "while reading above"))
        await expect(page.locator(".log .text").last).to_contain_text("while reading above")
        assert await page.evaluate("document.querySelector('.log').scrollTop") == 0


async def test_destroying_asks_once_for_the_name(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        card = page.locator(".card", has_text="iris")
        await card.locator("summary").click()
        await card.get_by_role("button", name="Destroy").click()
        confirm = page.locator("dialog").get_by_role("button", name="Destroy")
        await expect(confirm).to_be_disabled()
        await page.locator("dialog input").fill("iris")
        await confirm.click()
        await toast(page, "iris is destroyed")
        assert hive.lifecycle.last(lifecycle.Destroy) == lifecycle.Destroy(name="iris")


async def test_what_is_destroyed_can_be_purged_and_goes_from_the_page(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await page.get_by_role("button", name="show destroyed").click()
        card = page.locator(".card", has=page.get_by_text("gone", exact=True))
        await card.locator("summary").click()
        await card.get_by_role("button", name="Purge").click()
        confirm = page.locator("dialog").get_by_role("button", name="Purge")
        await expect(confirm).to_be_disabled()
        await page.locator("dialog input").fill("gone")
        await confirm.click()
        await toast(page, "gone is being purged")
        asked = updater.PurgeAgent(agent="gone", confirm="gone")
        assert hive.updater.last(updater.PurgeAgent) == asked
        hive.broker.publish(broker.MailboxPurged(name="gone"))
        hive.lifecycle.publish(lifecycle.AgentForgotten(name="gone"))
        await expect(card).to_have_count(0)


async def test_it_is_live(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        card = page.locator(".card", has_text="iris")
        await expect(card.locator(".state")).to_have_text("idle")
        busy = broker.Peer(
            name="iris", connected=True, state="running", generation=2, status="mixing <b>blue</b>"
        )
        hive.broker.publish(broker.PeerChanged(peer=busy))
        await expect(card.locator(".state")).to_have_text("running")
        await expect(card.locator(".status")).to_have_text("“mixing <b>blue</b>”")
        hive.lifecycle.publish(lifecycle.AgentChanged(agent=agent("nova", 9, since_ms=now_ms())))
        await expect(page.locator(".card", has_text="nova").locator(".state")).to_have_text("starting")
        await go(page, "messages")
        hive.broker.publish(stored(900, "fresh from the press"))
        row = page.locator(".message", has_text="fresh from the press")
        await expect(row.locator(".track b")).to_have_text("stored")
        hive.broker.publish(
            broker.ReceiptChanged(id=mail_id(900), recipient="atlas", state="acked", at_ms=now_ms())
        )
        await expect(row.locator(".track b")).to_have_text("acked")
        hive.broker.stop()
        await expect(page.locator(".banner.bad")).to_contain_text("broker does not answer")
        hive.broker.start()
        await expect(page.locator(".banner.bad")).to_have_count(0)


async def test_a_page_survives_the_dashboards_restart(
    hive: Hive, paths: Paths, settings: Settings, browsing: Browsing
) -> None:
    async with browsing("ERR_", "Failed to load") as page:
        async with running(paths, settings) as first:
            await first.until(lambda: bool(first.service._snapshot.pages()))
            await logged_in(page, first)
            await expect(page.locator(".conn")).to_have_text("live")
        await expect(page.locator(".banner.bad")).to_contain_text("Connection lost")
        async with running(paths, settings):
            await expect(page.locator(".conn")).to_have_text("live", timeout=15_000)
            await expect(page.locator(".banner", has_text="lost")).to_have_count(0)
            await expect(page.locator(".card", has_text="iris")).to_be_visible()


async def test_it_is_there_after_every_reload(dashboard: Dashboard, browsing: Browsing) -> None:
    """The snapshot may come before the first paint, or long after it."""
    async with browsing() as page:
        await logged_in(page, dashboard)
        for _ in range(15):
            await page.reload()
            await expect(page.locator(".card").first).to_be_visible()
            await expect(page.locator(".conn")).to_have_text("live")


async def test_a_proposal_that_arrives_does_not_slip_under_the_pointer(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        await go(page, "approvals")
        await expect(page.locator(".detail .num")).to_have_text("#7")
        newer = msgspec.structs.replace(proposals()[0], number=8, agent="atlas")
        hive.approvals.publish(approvals.ProposalChanged(proposal=newer))
        await expect(page.locator('.list a[href="#/approvals/8"]')).to_be_visible()
        await expect(page.locator(".detail .num")).to_have_text("#7")
        decided = msgspec.structs.replace(proposals()[0], state="approved")
        hive.approvals.publish(approvals.ProposalChanged(proposal=decided))
        await expect(page.locator(".list .item.on")).to_contain_text("approved")
        await expect(page.locator(".detail .num")).to_have_text("#7")


async def test_a_refusal_is_a_toast_with_its_hint(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing("503") as page:
        await logged_in(page, dashboard)
        hive.broker.stop()
        await page.locator(".composer textarea").fill("is anybody there?")
        await page.keyboard.press("Enter")
        await toast(page, "broker did not answer")
        assert await page.locator(".composer textarea").input_value() == "is anybody there?"


async def holds(page: Page, expression: str) -> None:
    """Soon. Not wait_for_function: that one evaluates a string in the page, which its policy refuses."""
    async with asyncio.timeout(6):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.02)


async def inert(page: Page) -> None:
    assert await page.evaluate("window.pwned") is None
    strange = "document.querySelectorAll('#app script, #app img, #app iframe, #app svg, #app style, #app b b, [onerror]').length"
    assert await page.evaluate(strange) == 0
    text = await page.evaluate("document.body.innerText + document.title")
    assert not set(text) & set("\u202e\u202c\u200b\u2066\x07\x1b")


async def test_hostile_text_is_text_in_every_view(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    evil = HOSTILE + "\x1b]0;owned\x07\u2066" + "</textarea></script>" + "A" * 3000
    async with browsing() as page:
        await logged_in(page, dashboard)
        peer = broker.Peer(
            name="iris", connected=True, state="running", generation=2, status=evil[:400], detail=evil[:400]
        )
        hive.broker.publish(broker.PeerChanged(peer=peer))
        hive.broker.publish(stored(901, evil + "Z" * 50_000))
        question = broker.Question(
            id=mail_id(902), asker="iris", recipient="operator", text=evil, choices=[HOSTILE, "no"], state="open",
            asked_ms=now_ms(),
        )  # fmt: skip
        hive.broker.publish(broker.QuestionChanged(question=question))
        reminder = broker.Reminder(
            id=mail_id(903), agent="iris", text=evil, due_ms=now_ms() + 9_000, created_ms=now_ms()
        )
        hive.broker.publish(broker.ReminderChanged(reminder=reminder, what="set"))
        broken = agent("bento", 4, cage="broken", detail=evil)
        hive.lifecycle.publish(lifecycle.AgentChanged(agent=broken))
        for view in VIEWS:
            await go(page, view)
            await expect(page.locator("#main .ghost").first).to_be_visible()
            await inert(page)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 1440
        await go(page, "messages")
        hive.broker.answers[broker.MessageStatus] = broker.ReceiptList(
            receipts=[stored(901, evil + "Z" * 50_000).receipt]
        )
        await page.get_by_role("button", name="show all").first.click()
        await expect(page.locator(".message", has_text="Z" * 100).first).to_be_visible()
        await inert(page)


async def test_a_hostile_cage_gets_nothing_out_of_its_page(
    dashboard: Dashboard, hive: Hive, paths: Paths, browsing: Browsing
) -> None:
    entries: list[dict[str, Any]] = [
        {"seq": number, "at_ms": now_ms(), "turn": "t", "kind": "assistant", "body": body}
        for number, body in enumerate(
            [
                said({"type": "text", "text": HOSTILE}),
                said({"type": "text", "text": {"__html": HOSTILE, "dangerouslySetInnerHTML": {"__html": HOSTILE}}}),
                said(call(HOSTILE, HOSTILE, {"x": HOSTILE, "__proto__": {"pwned": 1}})),
                {"type": "assistant", "message": {"content": [None, 7, "x", [], {"type": ["tool_use"]}]}},
                {"type": "user", "message": {"content": f'<message id="x" from="operator">\n{HOSTILE}\n</message>'}},
                {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": HOSTILE, "content": HOSTILE}]}},
                {"type": "system", "subtype": {"a": 1}, "__proto__": {"x": 1}},
                {"type": "result", "is_error": True, "result": HOSTILE, "usage": "none", "duration_ms": "x"},
                "not an object", None, 7,
            ],
            1,
        )
    ]  # fmt: skip
    entries += [{"seq": "x"}, {"seq": -1, "body": 1}, {"no": "seq"}]
    cage = await Cage(paths, "iris", entries=entries).start()
    cage.state = {"model": HOSTILE, "usage": [HOSTILE], "last_error": HOSTILE, "__proto__": {"pwned": 1}}
    async with browsing() as page:
        await logged_in(page, dashboard)
        await page.goto(dashboard.url("/", dashboard.port + 1101))
        await expect(page.locator(".say").first).to_be_visible()
        for fold in await page.locator(".fold summary").all():
            await fold.click()
        await inert(page)
        assert await page.evaluate("({}).pwned") is None
        assert "stolen" not in await page.evaluate("document.cookie")
        cage.add("assistant", said({"type": "text", "text": "and it goes on <i>live</i>"}))
        await expect(page.locator(".say").last).to_contain_text("and it goes on <i>live</i>")
    await cage.stop()


async def test_an_agents_own_page(dashboard: Dashboard, hive: Hive, paths: Paths, browsing: Browsing) -> None:
    cage = await Cage(paths, "iris").start()
    async with browsing() as page:
        await logged_in(page, dashboard)
        await page.goto(dashboard.url("/", dashboard.port + 1101))
        await expect(page.locator(".say").first).to_contain_text("ask atlas about the light")
        await expect(page.locator(".fold.failed .chip").first).to_have_text("error")
        await expect(page.locator(".turn-end.bad")).to_contain_text("aborted tools")
        await expect(page.locator(".given").first).to_contain_text("hello! please draw")
        await page.get_by_label("another model").fill("opus")
        await page.get_by_role("button", name="Switch").click()
        await toast(page, "the next request uses it")
        assert ("POST", "/model", b'{"model":"opus"}') in [(m, url, body) for m, url, _, body in cage.heard]
        await page.locator(".composer textarea").fill("a word")
        await page.keyboard.press("Enter")
        await toast(page, "sent to iris")
        assert hive.broker.last(broker.Send) == broker.Send(to=["iris"], body="a word")
        await page.locator(".side .question textarea").fill("a poster")
        await page.get_by_role("button", name="Answer", exact=True).click()
        await toast(page, "answered iris")
        await cage.stop()
        await expect(page.locator("main .refused").first).to_contain_text("harness")
        await page.click("text=← hive")
        await page.wait_for_url(dashboard.url("/"))


async def test_a_newcomer_is_told_what_to_try(paths: Paths, settings: Settings, browsing: Browsing) -> None:
    hive = Hive(paths, empty=True)
    hive.start()
    async with running(paths, settings) as dashboard, browsing() as page:
        await dashboard.until(lambda: bool(dashboard.service._snapshot.pages()))
        await logged_in(page, dashboard)
        await page.click(".try")
        await expect(page.locator(".composer textarea")).to_have_value("spawn an agent called iris who draws")
        await page.keyboard.press("Enter")
        await toast(page, "sent to hm1nd")
        await page.get_by_role("button", name="Spawn an agent", exact=True).click()
        await page.get_by_label("Name").fill("iris")
        await page.get_by_label("Prompt").fill("You are iris.")
        await page.get_by_role("button", name="Propose it").click()
        await toast(page, "proposal 8 waits for you")
        assert isinstance(hive.approvals.last(approvals.Spawn), approvals.Spawn)
        for view in VIEWS[1:]:
            await go(page, view)
            await expect(page.locator(".empty, .log")).to_be_visible()
    hive.stop()


@pytest.mark.parametrize("width", [320, 390, 768, 3840])
async def test_it_fits(dashboard: Dashboard, hive: Hive, width: int, browsing: Browsing) -> None:
    async with browsing() as page:
        await page.set_viewport_size({"width": width, "height": 800})
        await logged_in(page, dashboard)
        for view in VIEWS:
            await go(page, view)
            await asyncio.sleep(0.1)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, view


CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    const over = (below, [r, g, b, a = 1]) => [r, g, b].map((c, at) => c * a + below[at] * (1 - a));
    return layers.reverse().reduce(over, [5, 7, 13]);
  };
  const poor = [];
  for (const element of document.querySelectorAll("#app *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest(":disabled, [aria-hidden], .skip") || !element.checkVisibility()) continue;
    const [ink, paper] = [parse(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) poor.push(`${element.className || element.tagName} ${element.textContent.slice(0, 30)} ${ratio.toFixed(1)}`);
  }
  return poor;
}"""


async def test_everything_can_be_read_and_reached_by_keyboard(
    dashboard: Dashboard, hive: Hive, browsing: Browsing
) -> None:
    async with browsing() as page:
        await logged_in(page, dashboard)
        for view in VIEWS:
            await go(page, view)
            assert await page.evaluate(CONTRASTS) == [], view
        await go(page, "agents")
        await page.reload()
        await page.wait_for_selector(".card")
        reached = []
        for _ in range(24):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(
                "(e => [e.textContent.trim(), getComputedStyle(e).outlineStyle, e.matches(':focus-visible')])"
                "(document.activeElement)"
            )
            reached.append(focused[0])
            assert focused[1:] == ["solid", True], focused
        assert {
            "Skip to the content",
            "Spawn an agent",
            "Message",
            f"Page :{dashboard.port + 1000} ↗",
            "Pause",
        } <= set(reached)


async def test_the_way_out_on_both_pages(dashboard: Dashboard, hive: Hive, browsing: Browsing) -> None:
    async with browsing("503") as page:  # no cage serves this agent's transcript
        await logged_in(page, dashboard)
        card = page.locator(".card", has_text="network: learning")
        await card.get_by_text("More", exact=True).click()
        out = card.locator(".way-out")
        await expect(out.locator(".decisions li")).to_have_count(3)
        await expect(out).to_contain_text("github.com:443")
        await expect(out.locator("li", has_text="metadata.example")).to_contain_text("link-local")
        newest = gateway.EgressDecision(
            at_ms=now_ms(), host="evil.org", port=443, verdict="refused", reason="not-listed"
        )
        seen = gateway.EgressReport(
            agent="iris", known=True, mode="learn", allow=[], open=0, learned=[], decisions=[newest]
        )
        hive.gateway.answers[gateway.EgressStatus] = seen
        hive.gateway.publish(gateway.EgressUsed(agent="iris", allowed=0, refused=1, newest=newest))
        await expect(out.locator(".decisions li")).to_have_count(1)
        await expect(out.locator(".decisions")).to_contain_text("evil.org:443")
        await page.goto(dashboard.url("/", dashboard.port + 1101))
        panel = page.locator(".panel", has=page.get_by_role("heading", name="way out"))
        await expect(panel).to_contain_text("evil.org:443")
        await panel.get_by_role("button", name="Propose exactly this").click()
        await toast(page, "proposal 9 waits for you")
