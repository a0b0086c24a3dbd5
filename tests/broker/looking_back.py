"""The broker's parts that look back, in this process, on a real database: what is said, and when, is up to the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.names import OPERATOR, new_id
from libhive.sqlite import Database, driver
from services.broker.core import Core
from services.broker.mail import Draft
from services.broker.search import Search
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS

DAY_MS = 86_400_000
CALL = Call(OPERATOR, new_id())


class Archive:
    def __init__(self, path: Path, **settings: Any) -> None:
        self.now = 1_000 * DAY_MS
        limitless = {"hops_max": 0, "root_messages_max": 0, "pair_per_minute_max": 0}
        self.core = Core(
            Database.open(path, MIGRATIONS, keeps_redo=True),
            Settings(**{**limitless, **settings}),
            lambda: self.now,
        )
        self.searching = Search(self.core)

    def close(self) -> None:
        self.core.database.close()

    async def say(
        self, sender: str, to: str | Sequence[str], body: str, in_reply_to: str = "", **more: Any
    ) -> str:
        id = new_id()
        recipients = [to] if isinstance(to, str) else list(to)
        draft = Draft(
            **{"kind": "message", **more},
            id=id,
            sender=sender,
            recipients=recipients,
            body=body,
            in_reply_to=in_reply_to,
        )
        self.core.posted(await self.core.database.write(lambda c: self.core.mailroom.add(c, draft, self.now)))
        return id

    async def end(self, *ids: str, state: str = "acked") -> None:
        """Now, for all who got them."""
        column = "acked_ms" if state == "acked" else "ended_ms"
        for id in ids:
            await self.run(f"UPDATE mail SET state = ?, {column} = ? WHERE id = ?", state, self.now, id)

    async def index(self, slices: int = 1_000_000) -> None:
        while slices and await self.searching._indexer.slice():
            slices -= 1

    async def search(self, text: str = "", **asked: Any) -> say.Found:
        return await self.searching.on_search(CALL, say.Search(text=text, **asked))

    async def bodies(self, text: str = "", **asked: Any) -> list[str]:
        return [receipt.body for receipt in (await self.search(text, **asked)).receipts]

    async def pages(self, text: str = "", **asked: Any) -> list[list[say.Receipt]]:
        found = [await self.search(text, **asked)]
        while found[-1].before:
            found.append(await self.search(text, **{**asked, "before": found[-1].before}))
        return [page.receipts for page in found]

    async def retain(self, days: int = 0, *, apply: bool = False) -> say.Retained:
        return await self.searching.on_retain(CALL, say.Retain(days=days, apply=apply))

    async def run(self, query: str, *values: object) -> list[Any]:
        def work(c: Connection) -> list[Any]:
            return list(driver(c).execute(query, values).fetchall())

        return await self.core.database.write(work)

    async def kept(self) -> set[str]:
        return {row[0] for row in await self.run("SELECT id FROM mail")}
