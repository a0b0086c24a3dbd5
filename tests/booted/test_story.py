"""The main job, end to end, in an installed hive with nspawn cages: the same story as tests/system tells of bubblewrap's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libhive.names import MANAGER
from tests.booted.container import Container
from tests.booted.hive import InstalledHive
from tests.booted.layer import installed
from tests.system.conftest import Story
from tests.system.test_story import test_the_story_by_terminal as tell


class InstalledStory(Story):
    def __init__(self, hive: InstalledHive) -> None:
        super().__init__(hive, "")
        self.container = hive.container

    async def admin(self, *arguments: str, status: int = 0) -> str:
        """Of an ordinary member of the group hive-admin."""
        command = ["hive-admin", *arguments]
        return await asyncio.to_thread(self.container.run, *command, user="olga", status=status, seconds=120)

    async def tags(self, agent: str) -> set[str]:
        repository = f"/var/lib/hyperhive/config/{agent}.git"
        safe = ["-c", f"safe.directory={repository}"]
        return set(self.container.run("git", *safe, "-C", repository, "tag", status=None).split())


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with Container(on=installed(), limits=True) as container:
        container.run("useradd", "--groups", "hive-admin", "olga")
        async with InstalledHive(container) as hive:
            await hive.wait_for_agent(MANAGER)
            yield InstalledStory(hive)
            units = container.run("systemctl", "list-units", "--plain", "--no-legend", "hive-cage@*").split(
                "\n"
            )
            assert [unit.split()[:4] for unit in units if unit] == [
                [f"hive-cage@{name}.service", "loaded", "active", "running"]
                for name in ("bob", "hm1nd", "iris")
            ]


async def test_the_story_with_nspawn_cages(story: Story) -> None:
    await tell(story)
