"""What the tools ask of the turn that calls them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from libhive.harness.transcript import Transcript
from libhive.harness.turns import Turns
from libhive.problems import Conflict

EVENT_SECONDS_MAX = 2.0
"""How long a call waits for the event that announces it, which was written before the call was made."""


class TurnContext:
    def __init__(self, turns: Turns, transcript: Transcript, manager: str) -> None:
        self._turns, self._transcript, self._manager = turns, transcript, manager

    async def ready(self, tool_use: str) -> None:
        """The mail of a turn is only known once the events up to the call have been handled."""
        turns = self._turns
        if tool_use:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVENT_SECONDS_MAX), turns.news:
                    await turns.news.wait_for(
                        lambda: turns.turn is not None and tool_use in turns.turn.tool_uses
                    )
        if turns.ending:
            raise Conflict("this turn is over; its mail will be given to you again")

    def first_mail(self) -> str:
        return self._turns.turn.first_mail if self._turns.turn else ""

    def count(self, key: str, tool_use: str) -> int:
        return self._turns.turn.count(key, tool_use) if self._turns.turn else 0

    def answered(self, key: str, tool_use: str) -> None:
        if self._turns.turn:
            self._turns.turn.answered(key, tool_use)

    def only_mail_from(self, sender: str) -> str:
        name = self._manager if sender == "manager" else sender
        return self._turns.turn.only_mail_from(name) if self._turns.turn else ""

    async def wrote_to(self, recipients: Sequence[str]) -> None:
        if turn := self._turns.turn:
            turn.written_to |= set(recipients)
            await self._transcript.note_written(turn.first_mail, recipients)

    def asked_operator(self, question: str) -> None:
        self._turns.questions.add(question)

    async def take_waiting(self) -> list[str]:
        return await self._turns.take_waiting()
