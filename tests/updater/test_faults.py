"""Killed at each step, the deploy goes on from there and ends as it would have, and does nothing twice."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.updater.conftest import BAD, BETTER, GOOD, Cage, Scene


@pytest.mark.parametrize(
    "point",
    [
        "deploy:resolved",
        "deploy:built",
        "deploy:before-hold",
        "deploy:held",
        "deploy:drained",
        "deploy:applied",
        "deploy:switched",
        "deploy:released",
        "deploy:healthy",
        "deploy:told",
        "deploy:recorded",
    ],
)
async def test_on_the_way(scene: Scene, point: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start(point)
    scene.approve(2, "iris", BETTER)
    await scene.died()
    scene.start()
    deploy = await scene.ended()
    assert (deploy.step, deploy.detail) == ("recorded", "")
    assert scene.applied == [("iris", 2, "better")]
    assert scene.cut == []
    assert scene.story[2] == ["building", "deployed"]
    assert not scene.held("iris")
    assert len(await scene.deploys()) == 1


async def test_while_its_root_is_built(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.building = "extracting archives"
    scene.start("deploy:building")
    scene.approve(2, "iris", BETTER)
    await scene.died()
    scene.start()
    await scene.until(lambda deploy: "extracting" in deploy.detail)
    scene.building = ""
    assert (await scene.ended()).step == "recorded"
    assert len(scene.asked_to_build) == 1
    assert scene.applied == [("iris", 2, "better")]


@pytest.mark.parametrize(
    "point", ["deploy:applied", "deploy:went-back", "deploy:released", "deploy:told", "deploy:failed"]
)
async def test_on_the_way_back(scene: Scene, point: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start(point)
    scene.approve(2, "iris", BAD)
    await scene.died()
    scene.start()
    deploy = await scene.ended()
    assert deploy.step == "failed"
    assert "not healthy" in deploy.detail
    assert scene.applied == [("iris", 2, "never healthy"), ("iris", 1, "good")]
    assert scene.story[2] == ["building", "failed"]
    assert not scene.held("iris")


@pytest.mark.parametrize("point", ["deploy:applied", "deploy:went-back", "deploy:told"])
async def test_on_the_way_back_from_a_new_agent(scene: Scene, point: str) -> None:
    scene.start(point)
    scene.approve(1, "iris", BAD)
    await scene.died()
    scene.start()
    assert (await scene.ended()).step == "failed"
    assert scene.applied == [("iris", 1, "never healthy")]
    assert scene.cages["iris"].desired == "stopped"
    assert scene.story[1] == ["building", "failed"]


async def test_in_the_middle_of_a_drain(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, state="running", turn="t1")
    scene.start()
    scene.approve(2, "iris", BETTER)
    await scene.until(lambda deploy: "running turn" in deploy.detail)
    assert scene.process
    scene.process.kill()
    await scene.died()
    assert scene.held("iris")
    scene.start()
    await asyncio.sleep(1.5)
    assert scene.applied == []
    scene.set("iris", state="idle", turn="")
    assert (await scene.ended()).step == "recorded"
    assert scene.cut == []
    assert not scene.held("iris")


async def test_a_hold_is_released_also_when_the_agent_ended_while_the_updater_was_dead(scene: Scene) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start("deploy:held")
    scene.approve(2, "iris", BETTER)
    await scene.died()
    scene.set("iris", cage="broken", connected=False)
    scene.start()
    assert (await scene.ended()).step == "recorded"
    assert not scene.held("iris")


async def test_a_journal_that_ended_before_approvals_knew(scene: Scene) -> None:
    scene.start()
    scene.approve(1, "iris", GOOD)
    await scene.ended()
    await scene.stop()
    again = scene.approved
    scene.approve(
        1, "iris", GOOD
    )  # as if its record had been lost: what was told is told again, nothing is applied
    scene.start()
    await scene.until(lambda _: scene.story[1] == ["building", "deployed"] and not again)
    assert len(scene.applied) == 1


@pytest.mark.parametrize("seed", [int(os.environ.get("HIVE_SEED", "1"))])
async def test_killed_again_and_again(scene: Scene, seed: int) -> None:
    source = random.Random(seed)
    for number, name in enumerate(("iris", "ben", "zoe"), 1):
        scene.cages[name] = Cage(GOOD, 0, 1)
        scene.approve(number, name, BETTER if source.random() < 0.7 else BAD)
        scene.approve(number + 3, name, BETTER)
    for _ in range(8):
        scene.start()
        await asyncio.sleep(source.uniform(0.4, 1.2))
        assert scene.process
        scene.process.kill()
        await asyncio.to_thread(scene.process.wait)
    scene.start()
    await scene.until(lambda _: all(len(story) == 2 for story in scene.story.values()), 40)
    for name, cage in scene.cages.items():
        assert (cage.spec, cage.desired) == (BETTER, "running"), f"seed {seed}"
        assert not scene.held(name), f"seed {seed}"
    applied = [entry for entry in scene.applied if entry[1]]
    assert len(applied) == len(set(applied)), f"seed {seed}"
