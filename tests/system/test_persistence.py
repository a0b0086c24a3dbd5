"""What survives what: every cell of the table in docs/persistence.md, on a whole hive with the real CLI in its cages.

One hive goes through all that can happen to an agent, once for each kind of cage; each cell is then a test of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from libhive.messages.updater import Deploy
from libhive.names import agent_name
from libhive.problems import NotFound, Unavailable
from libhive.spec import AGENT_TOML
from libhive.testing.hive import Hive
from services.approvals.repo import Repository

KINDS = ("bubblewrap",)
IRIS = agent_name("iris")
TABLE = Path(__file__).parent.parent.parent / "docs" / "persistence.md"
ROWS = ("mailbox", "/state", "config", "model", "outside")
COLUMNS = ("stop", "restart", "rebuild", "destroy", "purge")
CHOSEN, CONFIGURED, CHANGED = "opus", "haiku", "sonnet"
SECONDS_MAX = 60


class Life:
    """One agent with something in each row of the table."""

    def __init__(self, hive: Hive) -> None:
        self.hive = hive
        self.message = self.question = ""

    # ---- what happens to it

    async def begin(self) -> None:
        await self.spawn()
        await self.hive.send("operator", "iris", "ask me which colour you should use: red or blue")
        await self.until("its question", self.questions)
        self.question = (await self.hive.operator.questions())[0].id
        await self.until("its rest", self.idle)
        await self.hive.operator.set_hold("iris", "operator", True)
        self.message = await self.hive.send("operator", "iris", "keep this")
        await self.hive.operator.remind("iris", "long after this test", after_seconds=86_400)
        await self.exec("sh", "-c", "echo kept >/state/note")

    async def mark(self) -> None:
        """What a row of the table may have lost meanwhile."""
        await self.exec("touch", "/tmp/outside")
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.hive.paths.page(IRIS)))
        ) as page:
            (await page.post("http://agent/model", json={"model": CHOSEN})).raise_for_status()
        await self.until("the other model", self.has_model(CHOSEN))

    async def stop(self) -> None:
        await self.hive.lifecycle.stop("iris")
        await self.hive.lifecycle.start("iris")
        await self.hive.wait_for_agent("iris")

    async def restart(self) -> None:
        await self.hive.lifecycle.restart("iris")
        await self.hive.wait_for_agent("iris")

    async def rebuild(self) -> None:
        begun = await self.hive.updater.rebuild("iris")
        await self.deployed(lambda deploy: deploy.id == begun.id)

    async def change_the_option(self) -> None:
        files = {AGENT_TOML: f'model = "{CHANGED}"\n'}
        made = await self.hive.approvals.propose("iris", files, "another model")
        await self.approve(made.number)

    async def destroy(self) -> None:
        await self.hive.lifecycle.destroy("iris")
        await self.spawn()

    async def purge(self) -> None:
        await self.hive.updater.purge("iris", "iris")
        await self.until("the end of the purge", self.purged)

    async def spawn(self) -> None:
        made = await self.hive.approvals.spawn("iris", "You are iris. You draw.", model=CONFIGURED)
        await self.approve(made.number)

    async def approve(self, number: int) -> None:
        await self.hive.approvals.approve(number, (await self.hive.approvals.show(number)).digest)
        await self.deployed(lambda deploy: deploy.proposal == number)

    async def deployed(self, is_it: Callable[[Deploy], bool]) -> None:
        async def ended() -> bool:
            return "recorded" in [each.step for each in await self.hive.updater.deploys() if is_it(each)]

        await self.until("the deploy", ended)
        await self.hive.wait_for_agent("iris")

    # ---- what there is of it

    async def found(self) -> dict[str, str]:
        """What a row of the table says of it now."""
        there = await self.hive.lifecycle.agent("iris") is not None
        return {
            "mailbox": yes(await self.mailbox()),
            "/state": yes(there and await self.exec("cat", "/state/note") == "kept\n"),
            "config": self.config(),
            "model": yes(there and await self.has_model(CHOSEN)()),
            "outside": yes(there and await self.exec("ls", "/tmp/outside") == "/tmp/outside\n"),
        }

    async def mailbox(self) -> bool:
        """All of it, or nothing of it."""
        mail = [
            receipt.id for receipt in await self.hive.operator.history("iris") if receipt.recipient == "iris"
        ]
        parts = {
            self.message in mail,
            self.question in [question.id for question in await self.hive.operator.questions()],
            any(reminder.agent == "iris" for reminder in await self.hive.operator.reminders()),
        }
        assert len(parts) == 1, parts
        return parts.pop()

    def config(self) -> str:
        paths = self.hive.paths
        if paths.config(IRIS).is_dir():
            return yes(self.tagged(paths.config(IRIS)))
        archives = list(paths.archive.glob("iris-*.git"))
        return "yes, archived" if len(archives) == 1 and self.tagged(archives[0]) else "no"

    def tagged(self, path: Path) -> bool:
        with Repository(path) as repository:
            tags = repository.tags()
            return "deployed/1" in tags and bool(repository.snapshot(tags["deployed/1"].commit).files)

    async def exec(self, *argv: str) -> str:
        for _ in range(100):
            with contextlib.suppress(Unavailable):
                return (await self.hive.lifecycle.exec("iris", list(argv))).output
            await asyncio.sleep(0.1)
        raise AssertionError(self.hive.logs())

    async def questions(self) -> bool:
        return bool(await self.hive.operator.questions())

    async def idle(self) -> bool:
        peer = await self.hive.operator.peer("iris")
        return peer is not None and peer.state in ("idle", "waiting-operator") and not peer.unacked

    async def purged(self) -> bool:
        return (await self.hive.updater.purges())[0].step == "purged"

    def has_model(self, name: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            peer = await self.hive.operator.peer("iris")
            return peer is not None and peer.model == name

        return look

    async def until(self, what: str, look: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(SECONDS_MAX * 10):
            if await look():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{what} did not come\n{self.hive.logs()}")


def yes(is_there: bool) -> str:
    return "yes" if is_there else "no"


async def _live(kind: str) -> dict[tuple[str, str], str]:
    cells: dict[tuple[str, str], str] = {}
    async with Hive({"HIVE_CAGE": kind}) as hive:
        await hive.start_whole()
        life = Life(hive)
        await life.begin()
        for column in COLUMNS:
            await life.mark()
            await getattr(life, column)()
            cells |= {(row, column): what for row, what in (await life.found()).items()}
            if column == "rebuild" and cells["model", column] == "yes":
                await life.change_the_option()
                kept = (await life.found())["model"] == "yes"
                cells["model", column] = "yes" if kept else "unless the option changed"
        await _begins_anew(life)
    return cells


async def _begins_anew(life: Life) -> None:
    """An agent of a purged one's name has nothing of it, and another user."""
    before = life.hive.paths
    assert not before.agent_state(IRIS).exists()
    assert not before.doors(IRIS).exists()
    assert not list(before.logs.rglob("iris.log*"))
    with pytest.raises(NotFound):
        await life.hive.approvals.show(1)
    assert [proposal.number for proposal in await life.hive.approvals.list()][-1] == 1
    await life.spawn()
    agent = await life.hive.lifecycle.agent("iris")
    assert agent is not None
    assert agent.uid > 655_360 or agent.uid < 524_288  # not the number of the one before
    found = await life.found()
    assert (found["mailbox"], found["/state"], found["model"]) == ("no", "no", "no")
    assert not [one for one in await life.hive.operator.history("iris") if one.recipient == "iris"]


@functools.cache
def lived(kind: str) -> dict[tuple[str, str], str] | Exception:
    """Once, whatever came of it."""
    try:
        return asyncio.run(_live(kind))
    except Exception as error:  # noqa: BLE001 - each cell is to say it
        return error


@functools.cache
def promised() -> dict[tuple[str, str], str]:
    """The table of the document."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:7])
    return {
        (row, column): cell
        for row, cells in zip(ROWS, rows, strict=True)
        for column, cell in zip(COLUMNS, cells[1:], strict=True)
        if row in re.sub(r"`|run-time |what was written ", "", cells[0]) and column in heads
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_the_table(kind: str, column: str, row: str) -> None:
    found = lived(kind)
    if isinstance(found, Exception):
        raise found
    assert found[row, column] == promised()[row, column]
