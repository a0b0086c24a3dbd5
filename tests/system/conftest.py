from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libhive.testing.hive import Hive

SECONDS_MAX = 90
TOGETHER = pytest.mark.asyncio(loop_scope="module")


class Story:
    """A hive that runs as `make up` runs it, and the operator's terminal beside it."""

    def __init__(self, hive: Hive, link: str) -> None:
        self.hive, self.link = hive, link

    async def admin(self, *arguments: str, status: int = 0) -> str:
        """hive-admin as she types it; its standard output."""
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "hive-admin"),
            *arguments,
            env=self.hive.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == status, (arguments, out.decode(), err.decode())
        return out.decode()

    async def admin_json(self, *arguments: str) -> Any:
        return json.loads(await self.admin(*arguments, "--json"))

    async def until(
        self, what: str, look: Callable[[], Awaitable[Any]], *, every_seconds: float = 0.2
    ) -> Any:
        """Looks again and again until it finds something."""
        for _ in range(int(SECONDS_MAX / every_seconds)):
            if found := await look():
                return found
            await asyncio.sleep(every_seconds)
        raise AssertionError(f"{what} did not come\n{self.hive.logs()}")

    async def mail_to_operator(self, sender: str, text: str) -> Any:
        async def look() -> Any:
            mail = await self.hive.operator.history(limit=500)
            return [
                item
                for item in mail
                if (item.sender, item.recipient) == (sender, "operator") and text in item.body
            ]

        return (await self.until(f"mail from {sender} with {text!r}", look))[0]

    async def tags(self, agent: str) -> set[str]:
        """As the real git reads the repository."""
        repository = self.hive.paths.config(agent)  # type: ignore[arg-type]
        listed = subprocess.run(
            ["git", "-C", str(repository), "tag"],
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
        )
        return set(listed.stdout.split())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story() -> AsyncIterator[Story]:
    """Of all tests in a file: they begin with `pytestmark = TOGETHER`. To start a hive costs more than most of them."""
    async with Hive() as hive:
        link = await hive.up()
        yield Story(hive, link)
