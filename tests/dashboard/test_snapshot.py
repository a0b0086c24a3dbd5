"""What five services say, put together, and what happens to it when one of them goes away."""

from __future__ import annotations

from typing import Any

import pytest

from libhive.messages import broker, lifecycle
from libhive.messages.base import Ping
from libhive.problems import BadFrame, InternalError
from services.dashboard.views import BODY_SHOWN_MAX
from tests.dashboard.conftest import Dashboard
from tests.dashboard.rich import Hive, agent, mail_id, receipts
from tests.dashboard.test_feed import stored


async def state(dashboard: Dashboard) -> dict[str, Any]:
    said = await (await dashboard.browser()).get("/api/state")
    found: dict[str, Any] = said.json()
    return found


async def one(dashboard: Dashboard, name: str = "iris") -> dict[str, Any]:
    return next(agent for agent in (await state(dashboard))["agents"] if agent["name"] == name)


async def test_an_agent_is_what_four_services_say_of_it(dashboard: Dashboard) -> None:
    iris = await one(dashboard)
    assert (iris["state"], iris["cage"], iris["model"], iris["spec_model"]) == (
        "idle",
        "running",
        "sonnet",
        "sonnet",
    )
    assert iris["page_port"] == 8101 + dashboard.settings.shift
    assert iris["usage"]["requests"] == 40
    assert iris["packages"] == ["imagemagick", "inkscape"]
    assert (await one(dashboard, "atlas"))["deploy_step"] == "drained"
    words = {agent["name"]: agent["state"] for agent in (await state(dashboard))["agents"]}
    assert words == {
        "hm1nd": "running", "iris": "idle", "atlas": "waiting-operator", "quill": "paused", "bento": "broken",
        "mothership-of-the-long-name-27": "stopped", "ghost": "unknown", "gone": "destroyed",
    }  # fmt: skip


async def test_the_manager_comes_first_and_the_newest_of_everything_else(dashboard: Dashboard) -> None:
    found = await state(dashboard)
    assert found["agents"][0]["name"] == "hm1nd"
    assert [proposal["number"] for proposal in found["proposals"]] == [7, 6, 5, 4, 3, 1]
    instants = [message["stored_ms"] for message in found["messages"]]
    assert instants == sorted(instants, reverse=True)
    assert found["gateway"]["mode"] == "rehearsal"
    assert [service["state"] for service in found["services"]] == ["up"] * 5


async def test_a_service_that_goes_away_leaves_unknowns_and_comes_back(
    dashboard: Dashboard, hive: Hive
) -> None:
    snapshot = dashboard.service._snapshot
    hive.broker.stop()
    hive.gateway.stop()
    await dashboard.until(lambda: not snapshot.service_up("broker") and not snapshot.service_up("gateway"))
    found = await state(dashboard)
    assert (await one(dashboard))["state"] == "unknown"
    assert (await one(dashboard))["cage"] == "running"
    assert found["gateway"]["mode"] == "unknown"
    assert found["messages"], "what was known of the mail is still shown"
    hive.broker.start()
    await dashboard.until(lambda: snapshot.state("iris").agents[0].state == "idle")


async def test_a_silent_service_is_down_too(dashboard: Dashboard, hive: Hive) -> None:
    hive.lifecycle.silent = True
    await dashboard.until(lambda: not dashboard.service._snapshot.service_up("lifecycle"))
    assert {(await one(dashboard))[field] for field in ("state", "cage")} == {"unknown"}


async def test_what_changed_while_a_service_was_restarted_is_fetched(
    dashboard: Dashboard, hive: Hive
) -> None:
    hive.lifecycle.stop()
    hive.lifecycle.answers[lifecycle.Agents] = lifecycle.AgentList(agents=[agent("nova", 9)])
    hive.lifecycle._since_ms += 1
    hive.lifecycle.start()
    await dashboard.until(lambda: list(dashboard.service._snapshot.pages()) == ["nova"])
    assert [agent["name"] for agent in (await state(dashboard))["agents"]] == ["nova"]


async def test_nothing_is_published_twice(dashboard: Dashboard, hive: Hive) -> None:
    feed, event = dashboard.service._feed, stored(800)
    hive.broker.publish(event)
    await dashboard.until(lambda: (mail_id(800), "atlas") in dashboard.service._snapshot._receipts)
    await dashboard.service._watch.fetch("broker")
    before = feed.at
    for service in ("broker", "lifecycle", "approvals", "updater", "gateway"):
        await dashboard.service._watch.fetch(service)
    assert feed.at == before


async def test_a_long_body_is_cut_and_says_so(dashboard: Dashboard, hive: Hive) -> None:
    hive.broker.publish(stored(801, "x" * 60_000))
    await dashboard.until(lambda: (mail_id(801), "atlas") in dashboard.service._snapshot._receipts)
    message = next(
        message for message in (await state(dashboard))["messages"] if message["id"] == mail_id(801)
    )
    assert (len(message["body"]), message["body_characters"]) == (BODY_SHOWN_MAX, 60_000)


async def test_only_so_many_messages_are_kept_and_never_the_operators_unread_ones_dropped(
    dashboard: Dashboard,
) -> None:
    snapshot = dashboard.service._snapshot
    unread = [r for r in receipts() if r.recipient == "operator" and r.state == "stored"]
    for number in range(1000, 1600):
        snapshot.apply(stored(number))
    assert len(snapshot._receipts) <= 260
    assert all((receipt.id, "operator") in snapshot._receipts for receipt in unread)


async def test_a_receipts_way_is_followed(dashboard: Dashboard, hive: Hive) -> None:
    snapshot, key = dashboard.service._snapshot, (mail_id(802), "atlas")
    hive.broker.publish(stored(802))
    for step in ("offered", "seen", "acked"):
        hive.broker.publish(
            broker.ReceiptChanged(id=key[0], recipient=key[1], state=step, at_ms=5, attempts=1)
        )  # type: ignore[arg-type]
    await dashboard.until(lambda: key in snapshot._receipts and snapshot._receipts[key].state == "acked")
    assert snapshot._receipts[key].seen_ms == 5


async def test_one_part_of_the_broker_that_fails_leaves_the_others(dashboard: Dashboard, hive: Hive) -> None:
    snapshot = dashboard.service._snapshot
    await dashboard.until(lambda: bool(snapshot._peers))
    hive.broker.answers[broker.History] = BadFrame("the reply is too large")
    hive.broker.answers[broker.Questions] = InternalError("a bug")
    hive.broker.answers[broker.Peers] = broker.PeerList(peers=[])
    await dashboard.service._watch.fetch("broker")
    assert not snapshot._peers
    assert snapshot._questions
    assert snapshot.service_up("broker")


async def test_a_service_that_fails_at_a_ping_is_down_and_ends_nothing(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, call = dashboard.service._watch._link, dashboard.service._watch._link.call

    async def failing(service: str, request: Any, **more: Any) -> Any:
        if service == "updater" and isinstance(request, Ping):
            raise InternalError("a bug")
        return await call(service, request, **more)

    monkeypatch.setattr(link, "call", failing)
    snapshot = dashboard.service._snapshot
    await dashboard.until(lambda: not snapshot.service_up("updater"))
    monkeypatch.undo()
    await dashboard.until(lambda: snapshot.service_up("updater"))
