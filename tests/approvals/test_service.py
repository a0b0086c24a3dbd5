"""The verbs over the real bus and the manager's real door, beside a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libhive import spec
from libhive.clients.approvals import Approvals
from libhive.door_client import DoorClient
from libhive.messages import approvals as say
from libhive.names import MANAGER, new_id
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, StaleApproval, TooMany
from libhive.testing.hive import Hive
from tests.approvals.conftest import PROMPT, approve, assert_sound, eventually, git, news, spawn_iris, tags


@pytest.fixture(autouse=True)
async def sound(hive: Hive) -> AsyncIterator[None]:
    yield
    assert_sound(hive)


async def test_the_managers_repository_is_there_from_the_first_start(hive: Hive) -> None:
    config = await hive.approvals.read_config(MANAGER)
    assert (config.revision, config.files) == (0, spec.MANAGER_FILES)
    assert tags(hive, MANAGER) == {"deployed/0"}
    assert git(hive, MANAGER, "rev-parse", "main", "deployed/0^{commit}").split() == [config.commit] * 2


async def test_a_spawn_is_shown_approved_and_deployed(hive: Hive, door: DoorClient) -> None:
    manager = await hive.join(MANAGER)
    number = (await door.call(say.Spawn(agent="iris", prompt=PROMPT, rationale="she asked for it"))).number
    detail = await hive.approvals.show(number)
    assert (detail.proposal.requester, detail.proposal.kind, detail.proposal.state) == (
        MANAGER,
        "create_agent",
        "proposed",
    )
    assert detail.effect[0].field == "agent"
    assert [(each.path, each.change) for each in detail.diff] == [
        ("agent.toml", "added"),
        ("prompt.md", "added"),
    ]
    assert detail.diff[1].lines == ["@@ -0,0 +1,1 @@", "+You are iris. You draw."]
    assert (detail.rationale, detail.blocked) == ("she asked for it", "")

    approved = await hive.approvals.approve(number, detail.digest)
    assert (approved.state, approved.decided_by) == ("approved", "operator")
    assert approved.tags == ["approved/1", "proposal/1"]
    (deployable,) = await hive.approvals.deployables()
    assert (deployable.number, deployable.agent, deployable.spec.prompt) == (1, "iris", PROMPT)
    updater = Approvals(hive.hive_link)
    await updater.record_deploy(number, "building")
    await updater.record_deploy(number, "building")
    await updater.record_deploy(number, "deployed")

    assert tags(hive, "iris") == {"proposal/1", "approved/1", "building/1", "deployed/1"}
    assert (
        git(hive, "iris", "log", "--format=%an %ae %cn", "main")
        == f"{MANAGER} {MANAGER}@hive.invalid hyperhive"
    )
    assert await hive.approvals.deployables() == []
    assert (await hive.approvals.read_config("iris")).revision == 1
    told = [mail.details for mail in await news(manager)]
    if len(told) < 2:
        told += [mail.details for mail in await news(manager)]
    assert told == [
        {"what": "proposal_decided", "proposal": "1", "agent": "iris", "decision": "approved", "reason": ""},
        {"what": "deployed", "proposal": "1", "agent": "iris"},
    ]


async def test_a_denial_wakes_whoever_asked_with_the_reason(hive: Hive, door: DoorClient) -> None:
    manager = await hive.join(MANAGER)
    await door.call(say.Spawn(agent="iris", prompt=PROMPT))
    denied = await hive.approvals.deny(1, "not tonight")
    assert (denied.state, denied.reason) == ("denied", "not tonight")
    (mail,) = await news(manager)
    assert (mail.details["decision"], mail.details["reason"]) == ("denied", "not tonight")
    assert "not tonight" in mail.body
    assert git(hive, "iris", "for-each-ref", "refs/heads") == ""
    again = await spawn_iris(hive)
    assert again == 2


async def test_the_operator_as_requester_is_told_as_well(hive: Hive) -> None:
    await approve(hive, await spawn_iris(hive))

    async def told() -> list[str]:
        return [receipt.kind for receipt in await hive.operator.inbox()]

    while not await told():
        await asyncio.sleep(0.02)
    assert await told() == ["news"]


async def test_a_change_replaces_whole_files_and_leaves_the_others(hive: Hive) -> None:
    await approve(hive, await spawn_iris(hive))
    number = (
        await hive.approvals.propose("iris", {"agent.toml": 'model = "sonnet"\n'}, "A better model")
    ).number
    detail = await hive.approvals.show(number)
    assert [(line.field, line.risk, line.before, line.after) for line in detail.effect] == [
        ("model", "low", "haiku", "sonnet")
    ]
    assert detail.diff[0].lines == ["@@ -1,1 +1,1 @@", '-model = "haiku"', '+model = "sonnet"']
    await approve(hive, number)
    config = await hive.approvals.read_config("iris")
    assert (config.spec.model, config.spec.prompt, config.revision) == ("sonnet", PROMPT, number)
    assert git(hive, "iris", "log", "--format=%s", "main").splitlines() == [
        "A better model",
        "A new agent: iris",
    ]


async def test_what_cannot_be_proposed(hive: Hive) -> None:
    with pytest.raises(NotFound):
        await hive.approvals.propose("nobody-yet", {"prompt.md": "x"}, "change")
    await approve(hive, await spawn_iris(hive))
    with pytest.raises(Conflict, match="exists already"):
        await spawn_iris(hive)
    with pytest.raises(BadRequest, match="nothing would change"):
        await hive.approvals.propose("iris", {"prompt.md": PROMPT}, "no change")
    with pytest.raises(BadRequest, match="TOML"):
        await hive.approvals.propose("iris", {"agent.toml": "model = "}, "broken")
    with pytest.raises(BadRequest, match="reserved"):
        await hive.approvals.spawn("all", PROMPT)
    with pytest.raises(BadRequest, match="message is empty"):
        await hive.approvals.propose("iris", {"prompt.md": "x"}, " \n ")
    assert [each.number for each in await hive.approvals.list()] == [1]


async def test_a_second_open_proposal_for_the_same_agent_names_the_first(hive: Hive) -> None:
    first = await spawn_iris(hive)
    with pytest.raises(Conflict, match="proposal 1") as refused:
        await spawn_iris(hive)
    assert refused.value.details == {"proposal": str(first)}
    assert (await hive.approvals.spawn("ben", PROMPT)).number == 2


async def test_six_proposals_an_hour(hive: Hive, door: DoorClient) -> None:
    for number in range(1, 7):
        assert (await door.call(say.Spawn(agent=f"a{number}", prompt=PROMPT))).number == number
    with pytest.raises(TooMany, match="within an hour"):
        await door.call(say.Spawn(agent="a7", prompt=PROMPT))
    assert (await hive.approvals.spawn("a7", PROMPT)).number == 7


async def test_commands_are_done_once(hive: Hive) -> None:
    id = new_id()
    assert (await spawn_iris(hive, id=id)) == (await spawn_iris(hive, id=id)) == 1
    detail = await hive.approvals.show(1)
    id = new_id()
    first = await hive.approvals.approve(1, detail.digest, id=id)
    assert await hive.approvals.approve(1, detail.digest, id=id) == first
    with pytest.raises(Conflict, match="already approved"):
        await hive.approvals.approve(1, detail.digest)
    with pytest.raises(Conflict, match="already approved"):
        await hive.approvals.deny(1, "too late")


async def test_the_door_decides_nothing_and_services_do_not_either(hive: Hive, door: DoorClient) -> None:
    await spawn_iris(hive)
    detail = await door.call(say.ShowProposal(number=1))
    for request in (
        say.Approve(number=1, digest=detail.digest),
        say.Deny(number=1, reason="x"),
        say.Deployables(),
    ):
        with pytest.raises(BadRequest):
            await door.call(request)
    with pytest.raises(NotAllowed):
        await Approvals(hive.hive_link).approve(1, detail.digest)
    with pytest.raises(NotAllowed):
        await hive.approvals.record_deploy(1, "deployed")


async def test_only_the_manager_has_a_door(hive: Hive, door: DoorClient) -> None:
    await hive.open_mailbox("iris")
    await hive.stop("approvals")
    await hive.start("approvals")
    await eventually(door.path.exists)
    assert not hive.paths.door("iris", "approvals").exists()  # type: ignore[arg-type]


async def becomes(hive: Hive, refusal: str) -> None:
    """Proposes until it is refused so: approvals hears of a closed mailbox a moment after it is closed."""
    for turn in range(100):
        try:
            number = (await hive.approvals.propose("iris", {"prompt.md": f"{turn}"}, "change")).number
        except Conflict as problem:
            if refusal in problem.message:
                return
            raise
        await hive.approvals.deny(number, "not yet")
    raise AssertionError(refusal)


async def test_a_destroyed_agent_comes_back_by_a_new_spawn_only(hive: Hive) -> None:
    await approve(hive, await spawn_iris(hive))
    await hive.open_mailbox("iris")
    await hive.broker.close_mailbox("iris")
    await becomes(hive, "iris was destroyed")
    number = await spawn_iris(hive)
    detail = await hive.approvals.show(number)
    assert detail.proposal.base
    assert (detail.effect[0].field, detail.effect[0].before) == ("agent", "destroyed")
    assert not detail.blocked
    await approve(hive, number)


async def test_a_digest_of_something_else_is_stale_and_leaves_the_proposal_open(hive: Hive) -> None:
    await spawn_iris(hive)
    await hive.approvals.spawn("ben", PROMPT)
    other = (await hive.approvals.show(2)).digest
    for digest in ("", other, "0" * 64):
        with pytest.raises(StaleApproval):
            await hive.approvals.approve(1, digest)
    assert (await hive.approvals.show(1)).blocked == ""


async def test_unknown_numbers(hive: Hive) -> None:
    for number in (0, 99, 2**40):
        with pytest.raises(NotFound):
            await hive.approvals.show(number)
    for number in (-1, 2**63, -(2**63)):
        with pytest.raises(BadRequest):
            await hive.approvals.show(number)
