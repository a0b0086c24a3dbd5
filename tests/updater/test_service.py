from __future__ import annotations

import asyncio

import pytest

from libhive.names import new_id
from libhive.problems import Conflict, NotFound
from libhive.spec import AgentSpec, Egress
from tests.updater.conftest import BAD, BETTER, GOOD, Cage, Scene

ROOTED = AgentSpec(prompt="rooted", root="debian", packages=["jq"])


async def test_a_new_agent_is_started_and_recorded(scene: Scene) -> None:
    scene.start()
    scene.approve(1, "iris", GOOD)
    deploy = await scene.ended()
    assert (deploy.step, deploy.agent, deploy.proposal, deploy.detail) == ("recorded", "iris", 1, "")
    assert scene.applied == [("iris", 1, "good")]
    assert scene.story[1] == ["building", "deployed"]
    assert scene.holds == []


async def test_what_was_approved_before_it_started_is_taken_up(scene: Scene) -> None:
    scene.approve(1, "iris", GOOD)
    scene.start()
    assert (await scene.ended()).step == "recorded"


async def test_a_running_turn_is_waited_for_and_never_cut(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, state="running", turn="t1")
    scene.start()
    scene.approve(2, "iris", BETTER)
    await scene.until(lambda deploy: deploy.step == "built" and "running turn" in deploy.detail)
    await asyncio.sleep(1.5)
    assert scene.held("iris")
    assert scene.applied == []
    scene.set("iris", state="idle", turn="")
    await scene.ended()
    assert scene.applied == [("iris", 2, "better")]
    assert scene.cut == []
    assert scene.holds == [("iris", True), ("iris", False)]


async def test_a_turn_that_begins_just_after_the_hold_is_not_cut(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start()
    scene.approve(2, "iris", BETTER)
    async with asyncio.timeout(10):
        while not scene.held("iris"):
            await asyncio.sleep(0)
    scene.set("iris", state="running", turn="t1")
    await asyncio.sleep(0.5)
    assert scene.applied == []
    scene.set("iris", state="idle", turn="")
    await scene.ended()
    assert scene.cut == []


async def test_a_harness_that_does_not_say_what_it_does_is_given_time_to_reconnect(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, connected=False)
    scene.start()
    scene.approve(2, "iris", BETTER)
    await scene.until(lambda deploy: "harness" in deploy.detail)
    scene.set("iris", connected=True, state="running", turn="t1")
    await asyncio.sleep(1.5)
    assert scene.applied == []
    scene.set("iris", connected=False, turn="")
    assert (await scene.ended()).step == "recorded"


async def test_one_that_does_not_get_healthy_goes_back_to_the_last_good_one(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start()
    scene.approve(2, "iris", BAD)
    deploy = await scene.ended()
    assert deploy.step == "failed"
    assert "not healthy within 2 s" in deploy.detail
    assert "went back to revision 1" in deploy.detail
    assert scene.applied == [("iris", 2, "never healthy"), ("iris", 1, "good")]
    assert scene.story[2] == ["building", "failed"]
    assert not scene.held("iris")


async def test_a_new_agent_that_never_gets_healthy_is_stopped_and_runs_once_it_is_mended(
    scene: Scene,
) -> None:
    scene.start()
    scene.approve(1, "iris", BAD)
    deploy = await scene.ended()
    assert (deploy.step, scene.stopped) == ("failed", ["iris"])
    assert deploy.detail.endswith("it is stopped")
    scene.approve(2, "iris", GOOD)
    await scene.until(lambda deploy: deploy.proposal == 2 and deploy.step == "recorded")
    assert scene.cages["iris"].desired == "running"


async def test_a_broken_cage_is_not_waited_for(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start()
    scene.approve(2, "iris", BAD)
    await scene.until(lambda deploy: deploy.step == "switched" and scene.cages["iris"].cage == "running")
    scene.set("iris", cage="broken")
    deploy = await scene.ended()
    assert "did not start" in deploy.detail
    assert scene.cages["iris"].revision == 1


async def test_a_root_is_built_before_anything_stops(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.building = "installing essential packages"
    scene.start()
    scene.approve(2, "iris", ROOTED)
    deploy = await scene.until(lambda deploy: "essential" in deploy.detail)
    assert (deploy.step, deploy.detail) == ("resolved", "building its root: installing essential packages")
    await asyncio.sleep(0.5)
    assert (scene.holds, scene.applied) == ([], [])
    scene.building = ""
    deploy = await scene.ended()
    assert (deploy.step, deploy.root, deploy.detail) == ("recorded", "debian-1", "")
    assert len(scene.asked_to_build) == 1


async def test_a_failed_build_fails_the_deploy_and_the_agent_goes_on(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.refuse_build = "E: Unable to locate package no-such-package-1"
    scene.start()
    scene.approve(2, "iris", ROOTED)
    deploy = await scene.ended()
    assert (deploy.step, deploy.detail) == ("failed", scene.refuse_build)
    assert (scene.applied, scene.holds, scene.story[2]) == ([], [], ["building", "failed"])


async def test_a_refused_apply_leaves_what_runs_alone(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.refuse_apply = "no room for another cage"
    scene.start()
    scene.approve(2, "iris", BETTER)
    assert (await scene.ended()).detail == "no room for another cage (mend it)"
    assert not scene.held("iris")
    assert scene.story[2] == ["building", "failed"]


async def test_a_proposal_that_is_void_by_then_is_not_deployed(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.void_once_offered = True
    scene.start()
    scene.approve(2, "iris", BETTER)
    deploy = await scene.ended()
    assert (deploy.step, deploy.detail) == ("failed", "proposal 2 is no longer approved")
    assert scene.applied == []


async def test_a_rebuild_brings_up_a_new_generation_once(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 7, 3)
    scene.start()
    id = new_id()
    first = await scene.hive.updater.rebuild("iris", id=id)
    assert (first.id, first.proposal, first.step) == (id, 0, "approved")
    with pytest.raises(Conflict, match="a rebuild is being deployed"):
        await scene.hive.updater.rebuild("iris")
    assert (await scene.ended()).step == "recorded"
    assert (await scene.hive.updater.rebuild("iris", id=id)).step == "recorded"
    assert (scene.applied, scene.cages["iris"].generation) == ([("iris", 7, "good")], 4)


async def test_only_who_is_there_can_be_rebuilt(scene: Scene) -> None:
    scene.cages["gone"] = Cage(GOOD, 7, 3, desired="destroyed", cage="absent", connected=False)
    scene.start()
    for name in ("nobody-yet", "gone"):
        with pytest.raises(NotFound):
            await scene.hive.updater.rebuild(name)
    assert await scene.deploys() == []


async def test_a_stopped_agent_is_tried_without_mail_and_stopped_again(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, desired="stopped", cage="stopped", connected=False)
    scene.start()
    scene.approve(2, "iris", BETTER)
    assert (await scene.ended()).step == "recorded"
    cage = scene.cages["iris"]
    assert (cage.revision, cage.desired, scene.stopped) == (2, "stopped", ["iris"])
    assert scene.holds == [("iris", True), ("iris", False)]


async def test_deploys_of_one_agent_run_one_after_the_other_and_cages_switch_one_at_a_time(
    scene: Scene,
) -> None:
    for name in ("iris", "ben"):
        scene.cages[name] = Cage(GOOD, 1, 1)
    scene.set("iris", state="running", turn="t1")
    scene.approve(2, "iris", BETTER)
    scene.approve(3, "ben", BETTER)
    scene.approve(4, "iris", GOOD)
    scene.start()
    await scene.until(lambda _: scene.story[3] == ["building", "deployed"])
    assert scene.story[4] == []
    assert scene.applied == [("ben", 3, "better")]
    scene.set("iris", state="idle", turn="")
    await scene.until(lambda _: scene.story[4] == ["building", "deployed"])
    assert scene.applied == [("ben", 3, "better"), ("iris", 2, "better"), ("iris", 4, "good")]


@pytest.mark.parametrize("service", ["approvals", "broker", "lifecycle"])
async def test_a_service_that_is_away_is_waited_for(scene: Scene, service: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.set("iris", state="running", turn="t1")
    scene.start()
    scene.approve(2, "iris", BETTER)
    await scene.until(lambda deploy: deploy.step == "built" and "turn" in deploy.detail)
    getattr(scene, service).silent = True
    scene.cages["iris"].state, scene.cages["iris"].turn = "idle", ""
    deploy = await scene.until(lambda deploy: "waiting: " in deploy.detail)
    assert f"{service} did not answer" in deploy.detail
    await asyncio.sleep(0.5)
    getattr(scene, service).silent = False
    assert (await scene.ended()).step == "recorded"
    assert scene.story[2] == ["building", "deployed"]
    assert not scene.held("iris")


async def test_states_of_a_harness_that_waits_are_healthy(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, state="needs-login")
    scene.start()
    scene.approve(2, "iris", BAD)
    await scene.until(lambda deploy: deploy.step == "switched" and scene.cages["iris"].connected)
    scene.set("iris", state="needs-login")
    assert (await scene.ended()).step == "recorded"


OPENED = AgentSpec(prompt="good", egress=Egress(mode="learn"), allowed_recipients=["operator"])


@pytest.mark.parametrize(
    "cage",
    [
        Cage(GOOD, 1, 4, state="running", turn="t1"),
        Cage(GOOD, 1, 4, desired="stopped", cage="stopped", connected=False),
        Cage(GOOD, 1, 4, cage="broken", connected=False),
    ],
    ids=["in a turn", "stopped", "broken"],
)
async def test_what_is_enforced_outside_the_cage_is_deployed_without_a_new_generation(
    scene: Scene, cage: Cage
) -> None:
    """Not even a running turn is waited for, nothing is held, and what is stopped is not started."""
    scene.cages["iris"] = cage
    scene.start()
    scene.approve(2, "iris", OPENED)
    deploy = await scene.ended()
    assert (deploy.step, deploy.detail) == ("recorded", "")
    assert scene.applied == [("iris", 2, "learn")]
    assert scene.story[2] == ["building", "deployed"]
    assert (cage.spec, cage.revision, cage.generation) == (OPENED, 2, 4)
    assert scene.holds == scene.cut == []
    assert scene.cages["iris"] is cage


@pytest.mark.parametrize("at", ["deploy:drained", "deploy:applied", "deploy:switched", "deploy:healthy"])
async def test_a_deploy_in_place_goes_on_after_a_kill(scene: Scene, at: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 4, state="running", turn="t1")
    scene.start(fault=at)
    scene.approve(2, "iris", OPENED)
    await scene.died()
    scene.start()
    assert (await scene.ended()).step == "recorded"
    assert scene.applied == [("iris", 2, "learn")]
    assert scene.story[2] == ["building", "deployed"]
    assert scene.cages["iris"].generation == 4
