"""Agents that send, receive, acknowledge, ask, answer and set reminders, and the ledger of all they commanded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import msgspec

from libhive.messages import broker as say
from libhive.messages.base import Reply, Request
from libhive.names import new_id
from libhive.problems import Problem
from libhive.testing.hive import Guest, Hive

NAMES = ("ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal", "ivy", "jo")
ANSWER_SECONDS_MAX = 60.0
"""Longer than the broker takes to be back."""
LONG_BODY_RATE = 0.06


@dataclass(frozen=True, slots=True)
class Command:
    """What one agent asked of the broker, noted before it left."""

    id: str
    agent: str
    kind: str
    body: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Crew:
    def __init__(self, hive: Hive, seed: str) -> None:
        self.hive, self.seed = hive, seed
        self.ledger: list[Command] = []
        self.hands: list[Hand] = []
        self.steps, self.done = 0, 0

    async def board(self) -> None:
        for name in NAMES:
            await self.hive.open_mailbox(name)
            self.hands.append(Hand(self, self.hive.guest(name), Random(f"{self.seed} {name}")))
        await asyncio.gather(*(hand.hello() for hand in self.hands))

    async def work(self, steps: int) -> None:
        self.steps = steps * len(self.hands)
        await asyncio.gather(*(hand.work(steps) for hand in self.hands))

    async def reached(self, share: float, work: asyncio.Future[None]) -> None:
        """Until that share of the steps is done; an agent that failed is heard at once."""
        while not self.steps or self.done < share * self.steps:
            if work.done():
                work.result()
            await asyncio.sleep(0.01)


@dataclass
class Hand:
    """One agent."""

    crew: Crew
    guest: Guest
    random: Random
    sent: list[tuple[str, say.Send]] = field(default_factory=list)
    asked_of_me: list[say.Mail] = field(default_factory=list)
    reminders: list[str] = field(default_factory=list)
    turns: int = 0

    async def work(self, steps: int) -> None:
        for _ in range(steps):
            (step,) = self.random.choices(list(_STEPS), list(_STEPS.values()))
            await step(self)
            self.crew.done += 1

    async def hello(self) -> None:
        request = say.Hello(generation=1, incarnation="one", version="test")
        welcome = await self.call(request)
        assert welcome is not None
        self.guest.lease = welcome.lease

    async def call(self, request: Request[Any], id: str | None = None) -> Any:
        """None when it was refused."""
        id = id or new_id()
        body: dict[str, Any] = msgspec.to_builtins(request)
        self.crew.ledger.append(Command(id, self.guest.name, request.KIND, body))
        try:
            reply: Reply = await self.guest.door.call(request, id=id, timeout_seconds=ANSWER_SECONDS_MAX)
        except Problem:
            return None
        return reply

    def text(self) -> str:
        """Never the same twice."""
        long = self.random.random() < LONG_BODY_RATE
        size = self.random.randint(4_000, 20_000) if long else self.random.randint(20, 300)
        return f"{new_id()} {self.random.randbytes(size // 2).hex()}"

    def others(self, count: int) -> list[str]:
        return self.random.sample([name for name in NAMES if name != self.guest.name], count)

    # ---- steps

    async def send(self) -> None:
        request = say.Send(to=self.others(self.random.choice((1, 1, 1, 2, 3))), body=self.text())
        id = new_id()
        self.sent.append((id, request))
        await self.call(request, id)

    async def burst(self) -> None:
        """Their commits may become one."""
        await asyncio.gather(*(self.send() for _ in range(4)))

    async def repeat(self) -> None:
        if self.sent:
            id, request = self.random.choice(self.sent)
            await self.call(request, id)

    async def turn(self) -> None:
        """Takes mail, has the model see it, and acknowledges most of it at the turn's end."""
        received = await self.call(say.Recv(lease=self.guest.lease, limit=self.random.choice((1, 4, 16))))
        if not received or not received.mail:
            return
        ids = [mail.id for mail in received.mail]
        self.asked_of_me += [mail for mail in received.mail if mail.kind == "question"]
        self.turns += 1
        await self.call(say.Seen(lease=self.guest.lease, ids=ids, turn=f"turn-{self.turns}"))
        if self.random.random() < 0.8:
            await self.call(say.Ack(lease=self.guest.lease, ids=ids))

    async def ask(self) -> None:
        deadline = self.random.choice((0, 0, 1, 3600))
        await self.call(
            say.Ask(to=self.others(1)[0], question=self.text(), deadline_seconds=deadline, default="later")
        )

    async def answer(self) -> None:
        if self.asked_of_me:
            mail = self.asked_of_me.pop(0)
            await self.call(say.Answer(question=mail.question, text=self.text()))

    async def remind(self) -> None:
        id = new_id()
        self.reminders.append(id)
        await self.call(say.Remind(text=self.text(), after_seconds=self.random.choice((1, 1, 3600))), id)

    async def cancel(self) -> None:
        if self.reminders:
            await self.call(say.CancelReminder(id=self.reminders.pop()))

    async def status(self) -> None:
        await self.call(say.SetStatus(text=new_id()))


_STEPS: dict[Callable[[Hand], Awaitable[None]], int] = {
    Hand.send: 34,
    Hand.burst: 4,
    Hand.repeat: 3,
    Hand.turn: 30,
    Hand.ask: 9,
    Hand.answer: 9,
    Hand.remind: 7,
    Hand.cancel: 5,
    Hand.status: 3,
}
