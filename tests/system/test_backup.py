"""The whole hive is saved while it works, lost, and restored: what it knew then it knows again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.system.conftest import TOGETHER, Story

pytestmark = TOGETHER


async def test_a_hive_is_saved_while_it_works_and_restored_after_it_was_lost(story: Story) -> None:
    hive, file = story.hive, story.hive.root / "saved.tar.gz"
    await story.admin("spawn", "iris", "--prompt", "You draw.", "--yes")
    await hive.wait_for_agent("iris")
    await story.admin("send", "iris", "hello", "--wait", "60")
    owner = strange(hive.paths.state / "agents" / "iris")
    archived = hive.paths.archive / "gone-20260101T000000Z.git"
    archived.mkdir(parents=True)
    before = await known(story)

    saved = await story.admin_json("backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(saved["databases"]) == {"approvals", "broker", "gateway", "lifecycle", "updater"}
    assert saved["databases"]["broker"]["rows"]["mail"] >= 2
    assert saved["links"] >= 2
    assert [line for line in saved["skipped"] if "agents/iris/pipe" in line]
    assert not list(file.parent.glob(".*saved*"))
    assert "already" in await refused(story, "backup", str(file))
    assert "a hive runs on" in await refused(story, "restore", str(file), "--yes")

    await story.admin("send", "iris", "this will be lost")
    await hive.stop("up")
    for place in ("agents", "config", "broker"):
        shutil.rmtree(hive.paths.state / place)
    restored = await story.admin_json("restore", str(file), "--yes")
    assert restored["made_ms"] == saved["made_ms"]
    assert Path(restored["kept"]).is_dir()
    state = hive.paths.state / "agents" / "iris"
    assert (state / "notes" / "a file").read_bytes() == b"\0" * 5000
    assert (state / "way-out").readlink() == Path("/etc/passwd")
    assert (state / "bad").stat().st_mode & 0o7777 == 0o755
    assert (state / "notes" / "a file").stat().st_uid == state.stat().st_uid == owner
    assert "deployed/1" in await story.tags("iris")
    assert not archived.exists()  # what was purged is no part of a backup

    await hive.up()
    await hive.wait_for_agent("iris")
    after = await known(story)
    assert before["mail"].keys() <= after["mail"].keys()
    assert "this will be lost" not in after["mail"].values()
    assert after["proposals"] == before["proposals"]
    assert after["agents"] == before["agents"]
    await story.admin("send", "iris", "hello again", "--wait", "60")


def strange(state: Path) -> int:
    """What an agent may put into its own directory; returns its user."""
    (state / "notes").mkdir()
    (state / "notes" / "a file").write_bytes(b"\0" * 5000)
    (state / "way-out").symlink_to("/etc/passwd")
    (state / "loop").symlink_to(".")
    os.mkfifo(state / "pipe")
    (state / os.fsdecode(b"not-utf-8-\xff")).write_text("x")
    (state / "bad").write_text("x")
    (state / "bad").chmod(0o6755)
    owner = state.stat()
    subprocess.run(["chown", "-hR", f"{owner.st_uid}:{owner.st_gid}", str(state)], check=True)
    (state / "bad").chmod(0o6755)
    return owner.st_uid


async def known(story: Story) -> dict[str, object]:
    mail = await story.hive.operator.history(limit=500)
    return {
        "mail": {item.id: item.body for item in mail},
        "agents": {agent.name: agent.spec for agent in await story.hive.lifecycle.agents()},
        "proposals": await story.hive.approvals.list(),
    }


async def refused(story: Story, *arguments: str) -> str:
    return await story.admin(*arguments, "--json", status=1)
