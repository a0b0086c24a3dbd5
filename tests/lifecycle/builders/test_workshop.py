"""Builds in the real enclosure, with a script in the place of mmdebstrap: it can be held, broken and killed on demand."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from libhive.problems import Conflict, NoSpace
from libhive.spec import AgentSpec
from services.lifecycle.cages import kernel
from tests.lifecycle.builders.conftest import HELD, TREE, Shop, spec


async def test_the_same_packages_are_one_root_and_another_state_of_the_sources_is_another(shop: Shop) -> None:
    first = await shop.built("a", "git", "jq")
    assert (await shop.built("b", "jq", "git")).key == first.key
    assert (await shop.made(spec("git", "jq"))) == shop.paths.roots / first.key / "tree"
    assert shop.script.began == 1
    again = await shop.prepare("c", spec("git", "jq", inputs="2026-11-23"))
    assert (again.state, again.key == first.key) == ("building", False)
    while shop.doing(spec("git", "jq", inputs="2026-11-23")):
        await asyncio.sleep(0.02)
    assert shop.script.began == 2


async def test_those_who_ask_at_the_same_time_share_one_build_and_hear_how_far_it_is(shop: Shop) -> None:
    shop.script.script = HELD + TREE
    asked = [asyncio.ensure_future(shop.built(f"deploy-{number}", "jq")) for number in range(3)]
    place = await shop.place()
    while shop.doing(spec("jq")) != "waiting for the test":
        await asyncio.sleep(0.02)
    assert (await shop.prepare("deploy-0", spec("jq"))).detail == "waiting for the test"
    (place / "go").touch()
    assert len({root.key for root in await asyncio.gather(*asked)}) == 1
    assert shop.script.began == 1
    assert [root.state for root in shop.news][-1] == "ready"
    assert shop.roots.unfinished() == []


async def test_a_failed_build_says_its_last_words_to_each_who_asked_and_leaves_nothing(shop: Shop) -> None:
    shop.script.script = f"touch left; {HELD} echo 'I: x...' >&2; echo 'E: no more of this' >&2; exit 3"
    asked = [asyncio.ensure_future(shop.built(f"deploy-{number}", "jq")) for number in range(2)]
    (await shop.place() / "go").touch()
    for each in asked:
        with pytest.raises(Conflict, match=r"root could not be built: E: no more of this$"):
            await each
    with pytest.raises(Conflict, match="no more of this"):
        await shop.prepare("deploy-0", spec("jq"))
    assert shop.roots.unfinished() == []
    shop.script.script = TREE
    assert (await shop.built("deploy-2", "jq")).state == "ready"


async def test_an_archive_that_ends_too_early_is_no_root(shop: Shop) -> None:
    shop.script.script = f"head -c 60000 /dev/zero >tree/big; ({TREE}) | head -c 30000"
    with pytest.raises(Conflict, match="could not be built"):
        await shop.built("a", "jq")
    assert shop.roots.newest() == shop.roots.unfinished() == []


async def test_a_root_that_an_agent_could_not_live_in_is_refused(shop: Shop) -> None:
    shop.script.refuses = "there is no Python in it"
    with pytest.raises(Conflict, match="no Python"):
        await shop.built("a", "jq")
    assert shop.roots.newest() == shop.roots.unfinished() == []


async def test_a_full_disk_is_waited_for(shop: Shop) -> None:
    shop.script.script = "echo 'E: cannot write: No space left on device' >&2; exit 1"
    with pytest.raises(NoSpace):
        await shop.built("a", "jq")
    shop.script.script = TREE
    assert (await shop.built("a", "jq")).state == "ready"


async def test_without_room_no_build_is_begun(shop: Shop) -> None:
    shop._settings = type(shop.settings)(root_space_bytes_min=1 << 60)
    with pytest.raises(NoSpace, match="MiB of disk"):
        await shop.built("a", "jq")
    assert shop.script.began == 0


async def test_a_build_that_takes_too_long_is_ended_whole(shop: Shop) -> None:
    shop._settings = type(shop.settings)(build_seconds_max=0.8, root_space_bytes_min=1)
    shop.script.script = "sleep 4242 & sleep 4242"
    with pytest.raises(Conflict, match=r"longer than 0\.8 s"):
        await shop.built("a", "jq")
    await gone("4242")


async def test_what_is_built_has_nothing_that_is_more_than_a_file_for_all_to_read(shop: Shop) -> None:
    shop.script.script = (
        "mkdir -p tree/usr/bin tree/closed tree/etc; cd tree; echo x >usr/bin/setuid; chmod 6711 usr/bin/setuid; "
        "echo x >closed/secret; chmod 600 closed/secret; chmod 700 closed; mkfifo pipe; ln -s /etc/shadow link; "
        "ln -s / up; echo x >open; chmod 666 open; echo h:x >etc/shadow; echo host >etc/hostname; tar -c ."
    )
    root = await shop.built("a", "jq")
    tree = shop.roots.tree(root.key)
    modes = {str(path.relative_to(tree)): stat.S_IMODE(path.lstat().st_mode) for path in tree.rglob("*")}
    assert modes == {
        "usr": 0o755, "usr/bin": 0o755, "usr/bin/setuid": 0o755, "closed": 0o755, "closed/secret": 0o644,
        "link": 0o777, "up": 0o777, "open": 0o644, "etc": 0o755,
    }  # fmt: skip
    assert {path.lstat().st_uid for path in tree.rglob("*")} == {
        524_288 if os.geteuid() == 0 else os.geteuid()
    }


async def test_a_build_is_root_of_nothing_but_its_own(shop: Shop) -> None:
    victim = Path(shop.paths.state.parent / "victim")
    victim.write_text("mine")
    victim.chmod(0o600)
    mark = Path("/etc/hive-test-mark")
    shop.script.script = (
        f"id -u >&2; chown 1234:1234 tree; cat {victim}; touch {mark} || echo 'I: kept out' >&2; "
        f"ls /proc | grep -c '^[0-9]' >&2; {TREE}"
    )
    root = await shop.built("a", "jq")
    log = (shop.paths.logs / "builds" / f"{root.key}.log").read_text()
    assert log.startswith("0\n")
    assert f"cat: {victim}: Permission denied" in log
    assert "I: kept out" in log
    assert not mark.exists()
    assert int(log.split()[-1]) < 20, "it sees the host's processes"


async def test_the_enclosure_dies_with_whoever_started_it_and_the_next_one_cleans_up(shop: Shop) -> None:
    shop.script.script = "mkdir -p mine; touch mine/x; chown 1234:1234 mine/x mine; sleep 4243 & sleep 4243"
    task = asyncio.ensure_future(shop.built("a", "jq"))
    while not list((await shop.place()).glob("mine")):
        await asyncio.sleep(0.02)
    (enclosure,) = kernel.children(os.getpid())[-1:]
    process = kernel.Process.open(enclosure)
    assert process
    os.kill(enclosure, 9)
    with pytest.raises(Conflict):
        await task
    process.close()
    await gone("4243")
    assert shop.roots.unfinished() == []


async def test_the_host_is_asked_for_its_packages(shop: Shop) -> None:
    with pytest.raises(Conflict, match="does not have the package no-such-package-1") as caught:
        await shop.prepare("a", AgentSpec(packages=["no-such-package-1", "coreutils"]))
    assert caught.value.hint == "install it with: sudo apt-get install -y no-such-package-1"
    assert (await shop.prepare("b", AgentSpec(packages=["coreutils"]))).state == "ready"


async def test_leftovers_are_what_no_agent_needs_now_or_had_before(shop: Shop) -> None:
    shop._settings = type(shop.settings)(root_kept_ms=-10_000, root_space_bytes_min=1)
    keys = [(await shop.built(name, name)).key for name in ("now", "before", "long-ago", "others")]
    for name in ("long-ago", "before", "now"):
        await shop.remember("iris", spec(name))
    await shop.remember("ghost", spec("others"))
    (shop.paths.roots / ".debian-1.dead" / "tmp").mkdir(parents=True)
    found = await shop.leftovers({"iris": spec("now")})
    assert {each.path.name: each.why for each in found} == {
        ".debian-1.dead": "a build that did not end",
        keys[2]: "no agent needs it",
        keys[3]: "no agent needs it",
    }
    await shop.remove(found)
    assert sorted(shop.roots.newest()) == sorted(keys[:2])
    assert await shop.leftovers({"iris": spec("now")}) == []


async def test_a_root_that_was_built_just_now_is_no_leftover(shop: Shop) -> None:
    await shop.built("a", "jq")
    assert await shop.leftovers({}) == []


async def gone(argument: str) -> None:
    """No process has this as an argument any more."""
    wanted = f"\0{argument}\0".encode()
    async with asyncio.timeout(10):
        while True:
            lines = []
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    lines.append(entry.read_bytes())
                except OSError:
                    continue
            if not any(wanted in line for line in lines):
                return
            await asyncio.sleep(0.05)
