"""Real roots under real cages: a Debian one, a closure of Nix, and a build whose lifecycle is killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest

from libhive.messages.lifecycle import Executed
from libhive.names import new_id
from libhive.problems import Conflict, NotFound, Unavailable
from libhive.spec import AgentSpec
from services.lifecycle.cages import kernel
from tests import roots
from tests.lifecycle.builders.test_nix import fill
from tests.lifecycle.conftest import LifecycleHive

BUILDING = AgentSpec(root="debian", packages=["jq"], inputs="never-built-to-its-end")


@pytest.fixture
async def agent(hive: LifecycleHive) -> LifecycleHive:
    roots.lend(await roots.debian_root(), hive.paths)
    await hive.start("lifecycle")
    root = await hive.lifecycle.prepare(roots.SPEC, id=new_id())
    assert (root.state, root.packages["hello"][:2]) == ("ready", "2.")
    await hive.lifecycle.apply("iris", 1, roots.SPEC)
    await hive.running("iris")
    return hive


async def test_a_cage_made_of_a_debian_root(agent: LifecycleHive) -> None:
    """The harness's own Python starts in it, or nothing would answer; and the package's program runs."""
    assert (
        await sh(agent, "hello; git --version; bash --version | head -1; curl --version | head -1")
    ).exit_code == 0
    assert (await sh(agent, "hello")).output == "Hello, world!\n"
    assert Path("/usr/bin/strace").exists(), "the test needs a program that only the host has"
    assert (await sh(agent, "strace -V")).exit_code == 127
    assert (await sh(agent, "ls -A /etc/ssl/certs | head -1")).output != ""
    refused = await sh(agent, "for place in /usr /usr/bin /etc; do touch $place/x && echo $place; done")
    assert "/" not in "".join(line for line in refused.output.splitlines() if not line.startswith("touch"))
    (root,) = await agent.lifecycle.roots()
    assert (root.agents, root.packages) == (["iris"], {})
    (same,) = await agent.lifecycle.roots(root.key[:12])
    assert same.packages.keys() >= {"hello", "python3", "git"}
    with pytest.raises(NotFound, match="no root 'x'"):
        await agent.lifecycle.roots("x")


async def test_a_root_that_is_not_there_is_built_before_the_cage_starts(hive: LifecycleHive) -> None:
    """As after a restore: no deploy has prepared it."""
    with tempfile.TemporaryDirectory(prefix="hive-nixpkgs-") as place:
        nixpkgs = Path(place)
        nixpkgs.chmod(0o755)
        fill(nixpkgs)
        hive.environ |= {"HIVE_NIXPKGS": place, "NIX_CONFIG": "substituters ="}
        await hive.start("lifecycle")
        await hive.lifecycle.apply("iris", 1, AgentSpec(root="nix", packages=["greeter"]))
        await hive.running("iris")
    assert (await sh(hive, "greet")).output == "hello from a closure\n"
    assert (await sh(hive, "touch /nix/x")).exit_code == 1
    assert hive.paths.roots.joinpath("used.json").read_text().startswith('{"iris":["nix-')


async def test_sigkill_of_lifecycle_ends_the_build_and_the_next_one_begins_it_again(
    hive: LifecycleHive,
) -> None:
    await hive.start("lifecycle")
    id = new_id()
    assert (await hive.lifecycle.prepare(BUILDING, id=id)).state == "building"
    below = await descendants(hive.processes["lifecycle"].pid, "mmdebstrap")
    await hive.kill("lifecycle")
    async with asyncio.timeout(10):
        while [pid for pid, started in below.items() if kernel.start_time(pid) == started and alive(pid)]:
            await asyncio.sleep(0.05)
    left = unfinished(hive)
    assert left
    await hive.start("lifecycle")
    async with asyncio.timeout(20):
        while left & unfinished(hive):
            await asyncio.sleep(0.05)
    assert (await hive.lifecycle.prepare(BUILDING, id=id)).state == "building"
    (root,) = await hive.lifecycle.roots()
    assert (root.state, root.key[:7]) == ("building", "debian-")


async def test_a_build_that_cannot_be_is_refused_at_once(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    with pytest.raises(Conflict, match="this host does not have the package no-such-package-1"):
        await hive.lifecycle.prepare(AgentSpec(packages=["no-such-package-1"]))
    with pytest.raises(Conflict, match="nobody said where the packages"):
        await hive.lifecycle.prepare(AgentSpec(root="nix"))


async def sh(hive: LifecycleHive, line: str) -> Executed:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):  # its program is only just beginning
                return await hive.lifecycle.exec("iris", ["sh", "-c", line])
            await asyncio.sleep(0.05)


def unfinished(hive: LifecycleHive) -> set[Path]:
    return set(hive.paths.roots.glob(".debian-*"))


def alive(pid: int) -> bool:
    return kernel.status(pid).get("State", "Z")[0] not in "ZX"


def _is_build(pid: int) -> bool:
    """The other children are cages, which outlive lifecycle."""
    return b"services.lifecycle.builders.enclosure" in Path(f"/proc/{pid}/cmdline").read_bytes()


async def descendants(pid: int, program: str) -> dict[int, int | None]:
    """Every process of the build below this one, and when it started; once one of them is that program."""
    async with asyncio.timeout(20):
        while True:
            found, new = dict[int, int | None](), [each for each in kernel.children(pid) if _is_build(each)]
            while new:
                found |= {child: kernel.start_time(child) for child in new}
                new = [grandchild for child in new for grandchild in kernel.children(child)]
            if any(kernel.command_name(child) == program for child in found):
                return found
            await asyncio.sleep(0.05)
