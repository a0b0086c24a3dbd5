from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from libhive.clients.lifecycle import Lifecycle
from libhive.door_client import DoorClient
from libhive.messages import lifecycle as say
from libhive.names import MANAGER, agent_name, new_id
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, Unavailable
from libhive.spec import AgentSpec, Egress, files_for, resolve
from services.lifecycle.cages import cgroups, kernel
from services.lifecycle.cages.keeper import marked
from tests.lifecycle.conftest import LifecycleHive

EVENT_SECONDS_MAX = 30
SPEC = resolve(files_for("You draw."))


async def test_the_manager_is_created_on_the_first_start(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    manager = await hive.running(MANAGER)
    assert (manager.page_port, manager.revision, manager.generation, manager.desired) == (
        8000,
        0,
        1,
        "running",
    )
    assert "You are hm1nd" in manager.spec.prompt
    assert {"seccomp", "no-network", "read-only-root"} <= set(manager.controls)


async def test_what_the_broker_missed_it_gets_when_it_comes(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    await hive.lifecycle.apply("iris", 1, AgentSpec(allowed_recipients=["hm1nd"]))
    await hive.lifecycle.apply("leo", 2, SPEC)
    await hive.lifecycle.destroy("leo")
    await hive.start("broker")
    for _ in range(100):
        boxes = {box.name: box for box in await hive.broker.mailboxes()}
        if "leo" in boxes and not boxes["leo"].open:
            break
        await asyncio.sleep(0.05)
    assert {name: box.open for name, box in boxes.items()} == {"hm1nd": True, "iris": True, "leo": False}
    iris = await hive.lifecycle.agent("iris")
    assert iris is not None
    assert boxes["iris"].uid == iris.uid


async def test_a_broker_that_has_lost_its_mailboxes_gets_them_again(hive: LifecycleHive) -> None:
    """As it does when its database was damaged and an older snapshot took its place."""
    await hive.start("broker", "lifecycle")
    await hive.lifecycle.apply("iris", 1, SPEC)
    await hive.stop("broker")
    shutil.rmtree(hive.paths.own("broker"))
    await hive.start("broker")
    async with asyncio.timeout(10):
        while {box.name for box in await hive.broker.mailboxes()} != {"hm1nd", "iris"}:
            await asyncio.sleep(0.05)


async def test_a_life(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    iris = await hive.lifecycle.apply("iris", 1, SPEC)
    assert (iris.cage, iris.desired, iris.generation, iris.page_port) == ("running", "running", 1, 8100)
    assert kernel.command_name(iris.pid).startswith("python")
    await _exec(hive, "true")  # from now on it listens to SIGTERM

    stopped = await hive.lifecycle.stop("iris")
    assert (stopped.cage, stopped.desired, stopped.pid, stopped.controls) == ("stopped", "stopped", 0, [])
    assert kernel.start_time(iris.pid) is None
    assert (hive.paths.agent_state(agent_name("iris")) / "last-words").exists()

    started = await hive.lifecycle.start("iris")
    assert (started.cage, started.generation) == ("running", 2)
    restarted = await hive.lifecycle.restart("iris")
    assert (restarted.cage, restarted.generation) == ("running", 3)
    rebuilt = await hive.lifecycle.apply("iris", 4, SPEC)
    assert (rebuilt.cage, rebuilt.generation, rebuilt.revision) == ("running", 4, 4)

    destroyed = await hive.lifecycle.destroy("iris")
    assert (destroyed.cage, destroyed.desired) == ("absent", "destroyed")
    assert (hive.paths.agent_state(agent_name("iris")) / "last-words").exists()
    assert not list(hive.paths.cage(agent_name("iris")).iterdir())
    with pytest.raises(Conflict, match="iris is destroyed"):
        await hive.lifecycle.start("iris")

    with pytest.raises(Conflict, match="destroyed"):
        await hive.lifecycle.apply("iris", 5, SPEC)
    back = await hive.lifecycle.apply("iris", 5, SPEC, revive=True)
    assert (back.cage, back.uid, back.page_port, back.generation) == ("running", iris.uid, 8100, 5)


async def test_another_way_out_is_applied_to_the_cage_that_runs(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    before = await hive.lifecycle.apply("iris", 1, SPEC)
    events = hive.link("operator").events("lifecycle")
    for _ in range(2):  # the second gap is the publisher's answer to the subscription
        await anext(events)
    opened = msgspec.structs.replace(SPEC, egress=Egress(mode="allow", allow=["pypi.org:443"]))
    after = await hive.lifecycle.apply("iris", 2, opened, in_place=True)
    assert after == msgspec.structs.replace(before, revision=2, spec=opened)
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        async for event in events:
            if isinstance(event, say.AgentChanged):
                assert event.agent == after, "the gateway is told"
                break
    await events.aclose()
    assert kernel.start_time(before.pid) is not None
    await hive.lifecycle.stop("iris")
    closed = msgspec.structs.replace(SPEC, allowed_recipients=[])
    still = await hive.lifecycle.apply("iris", 3, closed, in_place=True)
    assert (still.desired, still.cage, still.revision, still.generation) == ("stopped", "stopped", 3, 1)
    rebuilt = await hive.lifecycle.apply("iris", 3, still.spec)
    assert (rebuilt.cage, rebuilt.generation) == ("running", 2)


async def test_a_command_is_done_once_however_often_it_is_said(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    id = new_id()
    first = await hive.lifecycle.apply("iris", 1, SPEC, id=id)
    assert await hive.lifecycle.apply("iris", 1, SPEC, id=id) == first
    restart = new_id()
    again = await hive.lifecycle.restart("iris", id=restart)
    await hive.lifecycle.stop("iris")
    assert await hive.lifecycle.restart("iris", id=restart) == again
    agent = await hive.lifecycle.agent("iris")
    assert agent is not None
    assert (agent.desired, agent.generation) == ("stopped", 2)


async def test_starting_what_runs_changes_nothing(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    before = await hive.running(MANAGER)
    after = await hive.lifecycle.start(MANAGER)
    assert (after.pid, after.generation) == (before.pid, before.generation)


async def test_refusals_say_what_to_try(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    with pytest.raises(NotFound, match="no agent 'nobodyhere'") as caught:
        await hive.lifecycle.start("nobodyhere")
    assert "hive-admin agents" in caught.value.hint
    with pytest.raises(NotAllowed, match="cannot be destroyed"):
        await hive.lifecycle.destroy(MANAGER)
    with pytest.raises(BadRequest):
        await hive.lifecycle.apply("../etc", 1, SPEC)
    with pytest.raises(BadRequest, match="reserved"):
        await hive.lifecycle.apply("operator", 1, SPEC)


async def test_the_manager_has_the_door_and_not_all_the_verbs(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    await hive.lifecycle.apply("iris", 1, SPEC)
    door = DoorClient(hive.paths.door(MANAGER, "lifecycle"))
    try:
        assert [agent.name for agent in (await door.call(say.Agents())).agents] == ["hm1nd", "iris"]
        assert (await door.call(say.Stop(name="iris"), timeout_seconds=15)).cage == "stopped"
        assert (await door.call(say.Start(name="iris"), timeout_seconds=15)).cage == "running"
        assert (await door.call(say.Restart(name="iris"), timeout_seconds=15)).generation == 3
        while "up iris 3" not in (await door.call(say.Logs(name="iris"))).text:
            await asyncio.sleep(0.05)
        for forbidden in (
            say.Apply(name="iris", revision=1, spec=SPEC),
            say.Destroy(name="iris"),
            say.Exec(name="iris", argv=["true"]),
            say.StopAll(),
        ):
            with pytest.raises(BadRequest, match="lifecycle has no"):
                await door.call(forbidden)
        with pytest.raises(NotAllowed, match="cannot do this to itself"):
            await door.call(say.Stop(name=MANAGER))
    finally:
        await door.close()
    assert not hive.paths.door(agent_name("iris"), "lifecycle").exists()


async def test_exec_runs_inside_the_cage(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    await hive.lifecycle.apply("iris", 1, SPEC)
    done = await _exec(hive, "sh", "-c", "id -u; hostname; ls /work /root; exit 3")
    assert done.exit_code == 3
    assert done.output.startswith("1000\nh-iris\n")
    assert "No such file" in done.output
    big = await _exec(hive, "sh", "-c", "yes | head -c 300000")
    assert (big.truncated, len(big.output)) == (True, say.EXEC_OUTPUT_BYTES_MAX)
    await hive.lifecycle.stop("iris")
    with pytest.raises(Conflict, match="no cage that runs"):
        await hive.lifecycle.exec("iris", ["true"])


async def test_sigkill_of_lifecycle_leaves_the_cages_and_the_next_one_adopts_them(
    hive: LifecycleHive,
) -> None:
    await hive.start("lifecycle")
    before = [await hive.lifecycle.apply("iris", 1, SPEC), await hive.running(MANAGER)]
    await hive.lifecycle.apply("leo", 2, SPEC)
    await hive.lifecycle.stop("leo")
    await hive.kill("lifecycle")
    assert all(kernel.start_time(agent.pid) for agent in before)
    await hive.start("lifecycle")
    for agent in before:
        now = await hive.running(agent.name)
        assert (now.pid, now.generation, now.since_ms) == (agent.pid, agent.generation, agent.since_ms)
        assert now.controls == agent.controls
    leo = await hive.lifecycle.agent("leo")
    assert leo is not None
    assert leo.cage == "stopped"
    stopped = await hive.lifecycle.stop("iris")
    assert stopped.cage == "stopped"
    assert kernel.start_time(before[0].pid) is None


async def test_a_cage_that_died_while_nobody_looked_is_started_again(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    before = await hive.running(MANAGER)
    await hive.kill("lifecycle")
    os.kill(before.pid, signal.SIGKILL)
    await hive.start("lifecycle")
    now = await hive.wait_for(MANAGER, lambda agent: agent.cage == "running" and agent.pid != before.pid)
    assert now.generation == 2


async def test_sigterm_leaves_the_cages_too_and_stop_all_ends_them(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    manager = await hive.running(MANAGER)
    assert await hive.stop("lifecycle") == 0
    assert kernel.start_time(manager.pid)
    await hive.start("lifecycle")
    await hive.lifecycle.apply("iris", 1, SPEC)
    await hive.lifecycle.stop_all()
    assert not marked(hive.paths)
    agents = await hive.lifecycle.agents()
    assert [agent.desired for agent in agents] == ["running", "running"]
    with pytest.raises(Unavailable, match="going down"):
        await hive.lifecycle.start("iris")
    await hive.kill("lifecycle")
    await hive.start("lifecycle")
    await hive.running("iris")


async def test_a_crash_is_mended_and_told(hive: LifecycleHive) -> None:
    await hive.start("broker", "lifecycle")
    guest = hive.guest(MANAGER)
    await guest.hello()
    iris = await hive.lifecycle.apply("iris", 1, SPEC)
    os.kill(iris.pid, signal.SIGKILL)
    now = await hive.wait_for("iris", lambda agent: agent.cage == "running" and agent.generation == 2)
    assert now.pid != iris.pid
    mail = await guest.recv(5000)
    assert [item.details["what"] for item in mail if item.kind == "news"] == ["cage_crashed"]
    assert mail[-1].details["agent"] == "iris"
    assert "exit code 137" in mail[-1].body


async def test_five_failures_are_broken_and_start_forgives(hive: LifecycleHive, tmp_path: Path) -> None:
    hive.program = tmp_path / "program.py"
    hive.program.write_text("import sys; print('cannot', file=sys.stderr); sys.exit(7)")
    await hive.start("broker", "lifecycle")
    broken = await hive.wait_for(MANAGER, lambda agent: agent.cage == "broken")
    assert broken.generation == 5
    assert broken.detail == "cannot"
    for _ in range(100):
        inbox = await hive.operator.inbox()
        if any("broken" in receipt.body for receipt in inbox):
            break
        await asyncio.sleep(0.05)
    assert ["is broken" in receipt.body for receipt in inbox].count(True) == 1
    assert not marked(hive.paths)

    await hive.kill("lifecycle")
    await hive.start("lifecycle")
    await asyncio.sleep(0.5)
    still = await hive.wait_for(MANAGER, lambda agent: agent.cage == "broken")
    assert still.generation == 5
    await hive.lifecycle.start(MANAGER)
    again = await hive.wait_for(MANAGER, lambda agent: agent.cage == "broken" and agent.generation > 5)
    assert again.generation == 10
    assert "cannot" in await hive.lifecycle.logs(MANAGER)


async def test_events_tell_what_changes(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    await hive.running(MANAGER)
    link = hive.link("operator")
    events = link.events("lifecycle")
    for _ in range(2):  # the second gap is the publisher's answer to the subscription
        await anext(events)
    await hive.lifecycle.restart(MANAGER)
    seen = []
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        async for event in events:
            if isinstance(event, say.AgentChanged):
                seen.append(event.agent.cage)
                if event.agent.cage == "running":
                    break
    await events.aclose()
    assert seen[0] == "stopping"
    assert seen[-2:] == ["starting", "running"]


async def test_the_process_cage_only_by_its_name(hive: LifecycleHive) -> None:
    hive.kind = "process"
    await hive.start("lifecycle")
    manager = await hive.running(MANAGER)
    assert manager.cage_kind == "process"
    assert all(control.split(":")[0] in ("cpu", "memory", "tasks") for control in manager.controls)


async def test_an_unknown_kind_of_cage_does_not_start(hive: LifecycleHive) -> None:
    hive.kind = "paper"
    with pytest.raises(RuntimeError, match="ended with 2"):
        await hive.start("lifecycle")
    assert "the kinds are bubblewrap, nspawn, process" in hive.logs()


async def _exec(hive: LifecycleHive, *argv: str) -> say.Executed:
    lifecycle: Lifecycle = hive.lifecycle
    for _ in range(100):
        try:
            return await lifecycle.exec("iris", list(argv))
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError(hive.logs())


@pytest.mark.parametrize("point", ["started", "spawned", "recorded", "limited", "asked"])
async def test_sigkill_at_any_step_leaves_one_cage_at_most(hive: LifecycleHive, point: str) -> None:
    """The process dies at the named point; the next one makes it so all the same, with no cage twice or unseen."""
    if point == "asked":
        await hive.start("lifecycle")
        await hive.running(MANAGER)
        await hive.stop("lifecycle")
    hive.environ["HIVE_FAULT"] = f"lifecycle.{point}"
    hive.spawn("lifecycle")
    process = hive.processes["lifecycle"]
    if point == "asked":
        await hive.wait_for_service("lifecycle")
        await hive.running(MANAGER)
        with pytest.raises(Unavailable):
            await hive.operator_link.call(
                "lifecycle", say.Restart(name=MANAGER), id="restart-it", timeout_seconds=2
            )
    assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL
    del hive.environ["HIVE_FAULT"], hive.processes["lifecycle"]
    await hive.start("lifecycle")
    if point == "asked":
        await hive.lifecycle.restart(MANAGER, id="restart-it")
    manager = await hive.running(MANAGER)
    assert manager.generation == 2
    keepers = [pid for pid in marked(hive.paths)[MANAGER] if kernel.command_name(pid) == "sh"]
    assert len(keepers) == 1
    assert len(marked(hive.paths)[MANAGER]) == 3  # the keeper and two of bwrap
    groups = [agent for agent, _ in cgroups.left_over(hive.paths, cgroups.hierarchies())]
    assert (
        groups.count(MANAGER) == len(groups) == len(cgroups.place(hive.paths, MANAGER, cgroups.hierarchies()))
    )
