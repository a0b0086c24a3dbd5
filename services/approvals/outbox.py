"""News on its way to the broker: kept until the broker has it, told under the same id at every attempt."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from libhive.clients.broker import Broker
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, Problem, UnknownRecipient
from services.approvals.settings import Settings
from services.approvals.store import Letter, Store

log = logging.getLogger("hive.approvals")

LETTERS_MAX = 50
NEVER = (BadRequest, Conflict, NotAllowed, NotFound, UnknownRecipient)
"""Refusals that another attempt would meet as well: whoever asked is gone."""


class Outbox:
    def __init__(self, store: Store, broker: Broker, settings: Settings) -> None:
        self._store, self._broker, self._settings = store, broker, settings
        self._more = asyncio.Event()

    def wake(self) -> None:
        self._more.set()

    async def run(self) -> None:
        wait = self._settings.retry_seconds_min
        while True:
            self._more.clear()
            try:
                for letter in (letters := self._store.letters(LETTERS_MAX)):
                    await self._deliver(letter)
            except Problem as problem:
                log.info("news wait for the broker", extra={"why": problem.message, "again_seconds": wait})
                await self._pause(wait)
                wait = min(wait * 2, self._settings.retry_seconds_max)
            else:
                wait = self._settings.retry_seconds_min
                if not letters:
                    await self._more.wait()

    async def _deliver(self, letter: Letter) -> None:
        try:
            await self._broker.news(letter.recipient, letter.what, letter.body, letter.details, id=letter.id)
        except NEVER as problem:
            log.warning(
                "news refused", extra={"to": letter.recipient, "what": letter.what, "why": problem.message}
            )
        await self._store.delivered(letter.id)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._more.wait()
