"""Looking back: full-text search over what was ever said, and the end of what is too old to be kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import pysqlite3.dbapi2

from libhive.clock import Clock
from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.problems import NoSpace, Unavailable
from libhive.sqlite import Database, driver
from services.broker import finder, words
from services.broker.indexer import Indexer, is_damaged_index
from services.broker.retention import Retention
from services.broker.settings import Settings

SEARCHES_MAX = 2
"""At once: each has a thread and a connection."""


class Core(Protocol):
    """What it needs of the broker."""

    @property
    def database(self) -> Database: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def on_mail(self) -> list[Callable[[str], None]]: ...


class Search:
    def __init__(self, core: Core) -> None:
        self._path = core.database.read(
            lambda c: str(driver(c).execute("PRAGMA database_list").fetchone()[2])
        )
        self._settings = core.settings
        self._indexer = Indexer(core.database)
        self._retention = Retention(core.database, self._path, core.settings.retention_days, core.clock)
        self._turns = asyncio.Semaphore(SEARCHES_MAX)
        core.on_mail.append(lambda mailbox: self._indexer.touched())
        self._database = core.database

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._indexer.run())
            tasks.create_task(self._retention.run())

    async def on_search(self, call: Call, m: say.Search) -> say.Found:
        looked_for = words.expression(m.text)
        settings = self._settings
        async with self._turns:
            self._settle()
            try:
                return await asyncio.to_thread(
                    finder.find,
                    self._path,
                    m,
                    looked_for,
                    settings.list_bytes_max,
                    settings.search_seconds_max,
                )
            except pysqlite3.dbapi2.DatabaseError as error:
                if not is_damaged_index(error):
                    raise
                await self._indexer.rebuild(error)
                raise Unavailable(
                    "the index of words was damaged and is being made anew", "try again in a minute"
                ) from None

    def _settle(self) -> None:
        """So that a connection of its own sees all that was confirmed; on a full disk, what there is."""
        with contextlib.suppress(NoSpace):
            self._database.settle()

    async def on_retain(self, call: Call, m: say.Retain) -> say.Retained:
        self._settle()
        return await self._retention.retain(m.days, apply=m.apply)
