"""Carries what the broker has to be told. A letter is on disk before it is sent and until it was answered, so neither
our death nor the broker's loses or doubles one."""

from __future__ import annotations

import asyncio
import logging

from libhive.link import Gap, Link
from libhive.messages.base import Done, Request
from libhive.problems import InternalError, NoSpace, Problem, Unavailable
from services.lifecycle import rules
from services.lifecycle.settings import Settings
from services.lifecycle.store import Store

log = logging.getLogger("hive.lifecycle")


class Courier:
    def __init__(self, store: Store, link: Link, settings: Settings) -> None:
        self._store, self._link, self._settings = store, link, settings
        self._new = asyncio.Event()
        self._unsure = True
        """The broker may know less than our registry: it has just been reached, or has restarted, from a snapshot perhaps."""

    def wake(self) -> None:
        self._new.set()

    async def run(self) -> None:
        """Every agent's mailbox whenever the broker is another one; then the letters in order."""
        while True:
            self._new.clear()
            if self._unsure:
                self._unsure = False
                await self._open_mailboxes()
            while letter := self._store.next_letter():
                id, request = letter
                await self._deliver(request, id)
                await self._store.letter_done(id)
            if not self._unsure:
                await self._new.wait()

    async def listen(self) -> None:
        async for event in self._link.events("broker"):
            if isinstance(event, Gap):
                self._unsure = True
                self._new.set()

    async def _open_mailboxes(self) -> None:
        for row in self._store.rows():
            if row.desired != "destroyed":
                await self._deliver(rules.open_mailbox(row, self._settings.uid_of), None)

    async def _deliver(self, request: Request[Done], id: str | None) -> None:
        """Until it was answered; one that is refused would be refused again."""
        pause = self._settings.courier_retry_seconds_first
        while True:
            try:
                await self._link.call("broker", request, id=id)
            except (InternalError, NoSpace, Unavailable):
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._settings.courier_retry_seconds_max)
            except Problem as problem:
                log.error(
                    "the broker refused %s",
                    request.KIND,
                    extra={"code": problem.code, "why": problem.message},
                )
                return
            else:
                return
