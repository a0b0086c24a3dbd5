"""An agent that is stopped or destroyed while its deploy is at any step: nothing hangs, the journal ends in a clear state,
and what the operator did holds. The updater is killed at that step and finds, when it comes back, what she did meanwhile;
that it notices the same while it runs is one case more."""

from __future__ import annotations

import pytest

from tests.updater.conftest import BETTER, GOOD, Cage, Scene

BEFORE = ("resolved", "built", "before-hold", "held", "drained")
"""The cage still runs what it ran before."""
AFTER = ("applied", "switched", "healthy", "released", "told")
GONE = {"cage": "absent", "connected": False, "state": "unknown"}


async def begin(scene: Scene, point: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1)
    scene.start(f"deploy:{point}")
    scene.approve(2, "iris", BETTER, "change_config")
    await scene.died()


def is_settled(scene: Scene, step: str) -> None:
    assert scene.story[2] == ["building", "deployed" if step == "recorded" else "failed"]
    assert not scene.held("iris")
    assert len(scene.applied) == len(set(scene.applied))


@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
async def test_destroyed_meanwhile(scene: Scene, point: str) -> None:
    await begin(scene, point)
    applied = list(scene.applied)
    scene.set("iris", desired="destroyed", **GONE)
    scene.start()
    deploy = await scene.ended()
    assert deploy.step == ("recorded" if point in ("healthy", "released", "told") else "failed")
    if deploy.step == "failed":
        assert "destroyed" in deploy.detail or "no agent" in deploy.detail
    assert scene.applied == applied
    assert scene.cages["iris"].desired == "destroyed"
    is_settled(scene, deploy.step)


@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
async def test_stopped_meanwhile(scene: Scene, point: str) -> None:
    await begin(scene, point)
    scene.set("iris", desired="stopped", cage="stopped", connected=False, state="unknown")
    scene.start()
    deploy = await scene.ended()
    assert scene.cages["iris"].desired == "stopped"
    assert deploy.step in ("recorded", "failed")
    if point in ("healthy", "released", "told"):
        assert deploy.step == "recorded"
    is_settled(scene, deploy.step)


@pytest.mark.parametrize("desired", ["stopped", "destroyed"])
async def test_while_it_waits_for_the_end_of_a_turn(scene: Scene, desired: str) -> None:
    scene.cages["iris"] = Cage(GOOD, 1, 1, state="running", turn="t1")
    scene.start()
    scene.approve(2, "iris", BETTER, "change_config")
    await scene.until(lambda deploy: "running turn" in deploy.detail)
    scene.set(
        "iris",
        desired=desired,
        turn="",
        **(GONE | {"cage": "absent" if desired == "destroyed" else "stopped"}),
    )
    deploy = await scene.ended()
    assert scene.cages["iris"].desired == desired
    assert deploy.step == ("failed" if desired == "destroyed" else "recorded")
    is_settled(scene, deploy.step)
