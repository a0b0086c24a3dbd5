"""Each button asks the one service that it should, as the operator, and says what came of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from libhive.messages import approvals, broker, lifecycle, updater
from libhive.names import new_id
from libhive.problems import PROBLEMS, Conflict, NotFound, UnknownRecipient
from libhive.spec import Egress, resolve
from services.dashboard.replies import STATUS
from tests.dashboard.conftest import Dashboard
from tests.dashboard.rich import DIGEST, Hive, mail_id

PRESSES: list[tuple[str, dict[str, Any], Any]] = [
    ("/api/ack", {"ids": [mail_id(12)]}, broker.AckInbox(ids=[mail_id(12)])),
    ("/api/agents/iris/destroy", {"confirm": "iris"}, lifecycle.Destroy(name="iris")),
    ("/api/agents/iris/purge", {"confirm": "iris"}, updater.PurgeAgent(agent="iris", confirm="iris")),
    ("/api/agents/iris/hold", {"held": True}, broker.SetHold(agent="iris", reason="operator", held=True)),
    ("/api/agents/iris/rebuild", {}, updater.Rebuild(agent="iris")),
    (
        "/api/agents/iris/remind",
        {"text": "look", "cron": "0 9 * * *", "zone": "Asia/Tokyo", "catch_up": "skip"},
        broker.Remind(agent="iris", text="look", cron="0 9 * * *", zone="Asia/Tokyo", catch_up="skip"),
    ),
    ("/api/agents/iris/restart", {}, lifecycle.Restart(name="iris")),
    ("/api/agents/iris/start", {}, lifecycle.Start(name="iris")),
    ("/api/agents/iris/stop", {}, lifecycle.Stop(name="iris")),
    (
        "/api/answer",
        {"question": mail_id(201), "text": "yes"},
        broker.Answer(question=mail_id(201), text="yes"),
    ),
    ("/api/cancel-reminder", {"reminder": mail_id(301)}, broker.CancelReminder(id=mail_id(301))),
    (
        "/api/drop",
        {"message": mail_id(9), "recipient": "bento", "reason": "asked again"},
        broker.DropMail(id=mail_id(9), recipient="bento", reason="asked again"),
    ),
    ("/api/proposals/7/approve", {"digest": DIGEST}, approvals.Approve(number=7, digest=DIGEST)),
    ("/api/proposals/7/deny", {"reason": "no"}, approvals.Deny(number=7, reason="no")),
    (
        "/api/retry",
        {"message": mail_id(9), "recipient": "bento"},
        broker.RetryMail(id=mail_id(9), recipient="bento"),
    ),
    ("/api/send", {"to": ["iris", "atlas"], "body": "hi"}, broker.Send(to=["iris", "atlas"], body="hi")),
    ("/api/spawn", {"agent": "nova", "prompt": "p"}, approvals.Spawn(agent="nova", prompt="p")),
]


@pytest.mark.parametrize(("path", "form", "request_"), PRESSES, ids=[path for path, _, _ in PRESSES])
async def test_a_button(
    dashboard: Dashboard, hive: Hive, path: str, form: dict[str, Any], request_: Any
) -> None:
    browser, id = await dashboard.browser(), new_id()
    said = await browser.post(path, json={"id": id, **form})
    assert said.status_code == 200, said.text
    service = next(peer for peer in hive.all if peer.name == request_.KIND.partition(".")[0])
    assert ("operator", id, request_) in service.heard


async def test_approving_needs_the_digest_that_was_shown(dashboard: Dashboard, hive: Hive) -> None:
    browser = await dashboard.browser()
    shown = (await browser.get("/api/proposals/7")).json()
    assert [line["risk"] for line in shown["effect"]] == ["low", "medium", "medium", "high"]
    said = await browser.post("/api/proposals/7/approve", json={"digest": "another"})
    assert (said.status_code, said.json()["code"]) == (409, "stale")
    assert (await browser.post("/api/proposals/7/approve", json={})).status_code == 400
    assert (
        await browser.post("/api/proposals/7/approve", json={"digest": shown["digest"]})
    ).status_code == 200


@pytest.mark.parametrize("verb", ["destroy", "purge"])
async def test_what_ends_an_agent_asks_for_the_name(dashboard: Dashboard, hive: Hive, verb: str) -> None:
    browser = await dashboard.browser()
    for confirm in ("", "Iris", "atlas"):
        said = await browser.post(f"/api/agents/iris/{verb}", json={"confirm": confirm})
        assert said.status_code == 400
    assert hive.lifecycle.last(lifecycle.Destroy) is None
    assert hive.updater.last(updater.PurgeAgent) is None


@pytest.mark.parametrize("path", [path for path, _, _ in PRESSES if "/agents/" in path])
@pytest.mark.parametrize("name", ["..", "Iris", "a_b", "operator", "x" * 40, "-rf"])
async def test_a_name_is_a_name(dashboard: Dashboard, path: str, name: str) -> None:
    browser = await dashboard.browser()
    form = (
        {"confirm": name}
        if "destroy" in path or "purge" in path
        else {"held": True}
        if "hold" in path
        else {}
    )
    form = {"text": "x", "after_seconds": 1} if "remind" in path else form
    said = await browser.post(path.replace("iris", name.replace("..", "%2e%2e")), json=form)
    assert said.status_code in (400, 404), said.text


async def test_a_refusal_is_told_with_its_hint(dashboard: Dashboard, hive: Hive) -> None:
    def refuse(m: Any) -> Any:
        raise UnknownRecipient("nobody is called nova", "who is there: hive-admin agents")

    hive.broker.answers[broker.Send] = refuse
    said = await (await dashboard.browser()).post("/api/send", json={"to": ["nova"], "body": "x"})
    assert said.status_code == 404
    assert said.json() == {
        "code": "unknown-recipient",
        "message": "nobody is called nova",
        "hint": "who is there: hive-admin agents",
    }


def test_every_problem_has_a_status() -> None:
    assert set(PROBLEMS) <= set(STATUS)


@pytest.mark.parametrize(
    ("peer", "path", "form"),
    [(request.KIND.partition(".")[0], path, form) for path, form, request in PRESSES],
)
async def test_a_service_that_is_down_is_said_within_two_seconds(
    dashboard: Dashboard, hive: Hive, peer: str, path: str, form: dict[str, Any]
) -> None:
    next(one for one in hive.all if one.name == peer).stop()
    browser, begun = await dashboard.browser(), time.monotonic()
    said = await browser.post(path, json=form)
    assert (said.status_code, said.json()["code"]) == (503, "unavailable")
    assert time.monotonic() - begun < 10  # the bound itself is CALL_SECONDS; this only says it is no hang


async def test_one_message_whole(dashboard: Dashboard) -> None:
    browser = await dashboard.browser()
    found = (await browser.get(f"/api/messages/{mail_id(8)}")).json()["messages"]
    assert [message["recipient"] for message in found] == ["quill", "atlas", "iris"]
    assert (await browser.get("/api/messages/nothing-of-the-kind")).status_code == 404


async def test_what_is_not_there(dashboard: Dashboard, hive: Hive) -> None:
    browser = await dashboard.browser()
    assert (await browser.get("/api/proposals/99")).json()["code"] == "not-found"
    for bad in ("x", "-1", "9" * 20, "9" * 5000, "٣", "7.0"):
        assert (await browser.get(f"/api/proposals/{bad}")).json()["code"] == "bad-request"
        assert (await browser.post(f"/api/proposals/{bad}/deny", json={"reason": "x"})).status_code == 400
    assert (await browser.get("/api/nothing")).json()["code"] == "not-found"
    assert (await browser.post("/api/state", json={})).json()["code"] == "wrong-method"
    assert (await browser.get("/static/../settings.py")).status_code == 404
    assert (await browser.get("/static/%2e%2e/settings.py")).status_code == 404

    def refuse(m: Any) -> Any:
        raise NotFound("no")

    hive.approvals.answers[approvals.ReadConfig] = refuse
    assert (await browser.get("/api/agents/iris/config")).status_code == 404


async def test_a_conflict_is_a_conflict(dashboard: Dashboard, hive: Hive) -> None:
    def refuse(m: Any) -> Any:
        raise Conflict("it is already answered")

    hive.broker.answers[broker.Answer] = refuse
    said = await (await dashboard.browser()).post("/api/answer", json={"question": mail_id(201), "text": "x"})
    assert said.status_code == 409


@pytest.mark.parametrize("own", [False, True], ids=["dashboard", "the agent's own page"])
async def test_learning_ends_in_one_proposal(dashboard: Dashboard, hive: Hive, own: bool) -> None:
    browser = await dashboard.browser(dashboard.port + 1101 if own else None)
    base = "/api" if own else "/api/agents/iris"
    shown = (await browser.get(f"{base}/egress")).json()
    assert shown["learned"] == ["github.com:443", "pypi.org:443"]
    assert [one["verdict"] for one in shown["decisions"]] == ["allowed", "allowed", "refused"]
    said = await browser.post(f"{base}/egress-propose", json={})
    assert (said.status_code, said.json()) == (200, {"number": 9}), said.text
    heard = next(heard for heard in hive.approvals.heard if isinstance(heard.request, approvals.Propose))
    assert heard.actor == "operator"
    assert isinstance(heard.request, approvals.Propose)
    wanted = Egress(mode="allow", allow=["github.com:443", "pypi.org:443"])
    assert resolve(heard.request.files).egress == wanted
    if not own:
        refused = await browser.post("/api/agents/atlas/egress-propose", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
