"""Who works at the broker: agents behind their doors, and the operator on the bus.

Each draws what it does next from a seed of its own. It never waits for an answer before it goes on, and when the
broker dies it repeats, by their ids, most of the commands whose answers it has not seen; the rest it never mentions again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

from libhive.messages import broker as say
from libhive.messages.base import Request
from libhive.names import OPERATOR, new_id
from tests.proofs.history import Call
from tests.proofs.lines import BusLine, DoorLine, Line, Silence

if TYPE_CHECKING:
    from tests.proofs.world import World

POISON = "poison"
"""So begins what its reader never acknowledges."""
CHOICES = ["red", "blue"]
REPEATABLE = frozenset(
    {"send", "ask", "answer", "remind", "cancel_reminder", "set_hold", "retry_mail", "drop_mail"}
)
LEASED = frozenset({"ack", "seen", "report_state"})
"""Repeated as well, unless the lease has been given up since."""
REMEMBERED = 200
SEARCHED = 20
RECURRING = 0.02
"""Of the reminders, so many come every minute. A run sees few of these begin, some of them while its broker is dead."""


class Player:
    """`window` is how many calls it has under way."""

    def __init__(self, world: World, name: str, window: int) -> None:
        self.world, self.name, self.window = world, name, window
        self.random = Random(f"{world.seed} {name}")
        self.line: Line = Silence()
        self.under_way: dict[str, Call] = {}
        self.unsure: list[Call] = []
        self.sent: deque[tuple[str, Request[Any]]] = deque(maxlen=REMEMBERED)
        self.asked_of_me: deque[say.Mail] = deque(maxlen=REMEMBERED)
        self.working = True

    # ---- speaking

    def call(self, request: Request[Any], id: str = "") -> Call:
        call = self.world.history.begin(self.name, id or new_id(), request)
        self._say(call)
        return call

    def _say(self, call: Call) -> None:
        if call.id in self.under_way:  # the same command twice at once: its answers could not be told apart
            self.world.history.forget(call)
            return
        self.under_way[call.id] = call
        self.line.say(call.request, call.id)

    def listen(self) -> None:
        for answer in self.line.hear():
            if call := self.under_way.pop(answer.re, None):
                self.world.history.end(call, answer.body, answer.problem)
                self.heard(call)

    def work(self) -> None:
        while len(self.under_way) < self.window and self.working:
            self.step()
        self.line.flush()

    def lost(self) -> None:
        """The broker is gone; all it has said is heard."""
        self.listen()
        self.line.close()
        self.line = Silence()
        self.unsure += self.under_way.values()
        self.under_way.clear()

    def repeat_unsure(self, keep: Callable[[Call], bool]) -> None:
        unsure, self.unsure = self.unsure, []
        for call in unsure:
            if keep(call) and (not self.working or self.random.random() < 0.9):
                call.tries += 1
                self._say(call)

    # ---- to be filled in

    def step(self) -> None:
        """Makes at least one call."""
        raise NotImplementedError

    def heard(self, call: Call) -> None:
        raise NotImplementedError

    def clear_desk(self) -> None:
        """Works off what there is, bit by bit."""
        raise NotImplementedError

    # ---- what both do

    def text(self) -> str:
        """Never the same twice, by its second word; seldom so long that a few of them fill a socket."""
        dice = self.random.random()
        size = 30_000 if dice < self.world.long_bodies else self.random.randint(0, 60)
        poison = POISON if dice > 1 - self.world.poison else "mail"
        return f"{poison} {new_id()} {'x' * size}"

    def send(self) -> None:
        count = self.random.choice((1, 1, 1, 1, 2, 3))
        others = [name for name in self.world.names if name != self.name]
        to = self.random.sample(others, min(count, len(others)))
        if self.random.random() < 0.02:
            to = ["all"]
        self.command(say.Send(to=to, body=self.text()))

    def ask(self) -> None:
        others = [name for name in (*self.world.names, OPERATOR) if name != self.name]
        seconds = 1 if self.world.has_endless_questions() else self.random.choice((0, 1))
        choices = CHOICES if self.random.random() < 0.3 else []
        default = self.random.choice(("", "red"))
        to = self.random.choice(others)
        self.command(
            say.Ask(to=to, question=self.text(), choices=choices, deadline_seconds=seconds, default=default)
        )

    def answer(self) -> None:
        """Mostly a question that is ours, and sometimes one that we, or others, have answered already."""
        if self.asked_of_me and self.random.random() < 0.8:
            mail = self.random.choice(self.asked_of_me)
            text = self.random.choice(("red", "blue", "green")) if mail.choices else self.text()
            self.call(say.Answer(question=mail.question, text=text))
            if self.random.random() < 0.6:
                self.asked_of_me.remove(mail)
        elif question := self.world.any_question(self.random):
            self.call(say.Answer(question=question, text=self.random.choice(("red", self.text()))))

    def repeat(self) -> None:
        if self.sent:
            id, request = self.random.choice(self.sent)
            self.call(request, id)

    def command(self, request: Request[Any]) -> None:
        call = self.call(request)
        self.sent.append((call.id, request))
        self.world.made(call)


class Agent(Player):
    def __init__(self, world: World, name: str, window: int) -> None:
        super().__init__(world, name, window)
        self.lease, self.old_leases = "", deque[str](maxlen=4)
        self.in_hand: dict[str, say.Mail] = {}
        self.to_ack: dict[str, None] = {}
        """Of what is in hand, what no acknowledgement is under way for; without the poison."""
        self.reminders: deque[str] = deque(maxlen=REMEMBERED)
        self.recurring: list[str] = []
        self.turns = self.receiving = 0

    # ---- connections and leases

    def connect(self, resume: bool) -> None:
        self.line = DoorLine(self.world.door(self.name))
        self.receiving = 0
        self.hello(self.lease if resume else "")
        leased = LEASED if resume else frozenset()
        self.repeat_unsure(lambda call: call.verb in REPEATABLE or call.verb in leased)
        self.line.flush()

    def reconnect(self) -> None:
        """Not the broker's doing. What it answers to the broken connection is lost."""
        self.lost()
        self.world.moved(self)
        self.connect(self.random.random() < 0.5)

    def hello(self, resume: str = "") -> None:
        self.call(say.Hello(generation=1, incarnation=self.name, version="test", resume=resume))

    # ---- what it hears

    def heard(self, call: Call) -> None:
        if hear := _HEARD.get(call.verb):
            hear(self, call)

    def _welcome(self, call: Call) -> None:
        if not call.ok:
            self.hello()  # somebody took the lease: we ourselves, by a call whose answer was lost
        elif not call.request.resume:
            self.old_leases.append(self.lease)
            self.lease = call.reply.lease
            self.in_hand.clear()
            self.to_ack.clear()

    def _received(self, call: Call) -> None:
        self.receiving -= 1
        if not call.ok or call.request.lease != self.lease:
            return
        for mail in call.reply.mail:
            self.in_hand[mail.id] = mail
            if not mail.body.startswith(POISON):
                self.to_ack[mail.id] = None
            if mail.kind == "question":
                self.asked_of_me.append(mail)

    def _acked(self, call: Call) -> None:
        for id in call.request.ids if call.ok else ():
            self.in_hand.pop(id, None)

    # ---- what it does

    def step(self) -> None:
        before = len(self.under_way)
        plain = self.world.plain
        if plain:
            step = self.random.choice(_PLAIN)
        else:
            (step,) = self.random.choices(_STEPS, cum_weights=_WEIGHTS)
        if self.lease:
            step(self)
        if len(self.under_way) == before:
            self.random.choice((self.status, self.report, self.status if plain else self.say_status))()

    def work(self) -> None:
        if self.lease:
            super().work()
        self.line.flush()

    def say_something(self) -> None:
        if not self.world.is_full():
            self.send()

    def recv(self) -> None:
        if self.receiving < 2:
            self.receiving += 1
            wait = self.random.choice((0, 0, 0, 10))
            limit = self.random.choice((1, 4, 4, 16, 64))
            self.call(say.Recv(lease=self.lease, wait_ms=wait, limit=limit))

    def saw(self) -> None:
        if ids := _some(self.in_hand, self.random):
            self.turns += 1
            self.call(say.Seen(lease=self.lease, ids=ids, turn=f"turn-{self.turns}"))

    def ack(self) -> None:
        if ids := _some(self.to_ack, self.random):
            for id in ids:
                del self.to_ack[id]
            self.call(say.Ack(lease=self.lease, ids=ids))

    def clear_desk(self) -> None:
        """Takes what there is and acknowledges all of it, the poison too."""
        if self.under_way:
            return
        if ids := list(self.in_hand)[:64]:
            self.call(say.Ack(lease=self.lease, ids=ids))
        else:
            self.recv_now()
        self.line.flush()

    def recv_now(self) -> None:
        self.receiving += 1
        self.call(say.Recv(lease=self.lease, limit=64))

    def stale(self) -> None:
        """As a harness that does not know yet that another one has taken over."""
        if self.old_leases and (lease := self.random.choice(self.old_leases)):
            ids = list(self.in_hand)[:3]
            recv = say.Recv(lease=lease, limit=4)
            self.call(recv if not ids or self.random.random() < 0.5 else say.Ack(lease=lease, ids=ids))

    def take_over(self) -> None:
        self.hello()

    def resume(self) -> None:
        self.hello(self.lease)

    def break_off(self) -> None:
        self.world.broken_off.append(self)

    def remind(self) -> None:
        if self.random.random() < RECURRING:
            self.command(say.Remind(text=self.text(), cron="* * * * *", catch_up="all"))
            self.recurring.append(self.sent[-1][0])
        else:
            at_ms = self.world.now_ms() + self.random.randint(0, 400)
            self.command(say.Remind(text=self.text(), at_ms=at_ms))
        self.reminders.append(self.sent[-1][0])

    def end_recurring(self) -> None:
        for id in self.recurring:
            self.call(say.CancelReminder(id=id))

    def cancel(self) -> None:
        if self.reminders:
            self.call(say.CancelReminder(id=self.random.choice(self.reminders)))

    def status(self) -> None:
        id = self.random.choice(self.sent)[0] if self.sent else new_id()
        self.call(say.MessageStatus(id=id))

    def ends(self) -> None:
        self.call(say.LooseEnds())

    def say_status(self) -> None:
        self.call(say.SetStatus(text=new_id()))

    def report(self) -> None:
        self.call(say.ReportState(lease=self.lease, state="running"))


class Operator(Player):
    """Sends, asks and answers like an agent; holds agents, and deals with what is dead."""

    def __init__(self, world: World, window: int) -> None:
        super().__init__(world, OPERATOR, window)
        self.held: set[str] = set()

    def connect(self) -> None:
        self.line = BusLine(self.world.bus())
        self.repeat_unsure(lambda call: call.verb in REPEATABLE or call.verb == "ack_inbox")

    def heard(self, call: Call) -> None:
        if call.verb == "inbox" and call.ok:
            receipts = call.reply.receipts
            for receipt in receipts:
                if receipt.kind == "question":
                    self.asked_of_me.append(_as_mail(receipt))
            if receipts:
                self.call(say.AckInbox(ids=[receipt.id for receipt in receipts]))

    def step(self) -> None:
        before = len(self.under_way)
        (step,) = self.random.choices(_ERRANDS, cum_weights=_ERRAND_WEIGHTS)
        if self.world.plain:
            step = Operator.say_something
        step(self)
        if len(self.under_way) == before:
            self.call(say.Inbox(limit=50))

    def say_something(self) -> None:
        if not self.world.is_full():
            self.send()

    def read(self) -> None:
        self.call(say.Inbox(limit=50))

    def hold(self) -> None:
        name = self.random.choice(self.world.names)
        if name in self.held:
            self.held.discard(name)
        else:
            self.held.add(name)
        self.call(say.SetHold(agent=name, reason="operator", held=name in self.held))

    def clear_desk(self) -> None:
        if not self.under_way:
            self.read()

    def release_all(self) -> None:
        self.held.clear()
        for name in self.world.names:
            self.call(say.SetHold(agent=name, reason="operator", held=False))

    def retry(self) -> None:
        if found := self.world.any_mail(self.random, poison=True):
            self.call(say.RetryMail(id=found[0], recipient=found[1]))

    def drop(self) -> None:
        if found := self.world.any_mail(self.random, poison=self.random.random() < 0.8):
            self.call(say.DropMail(id=found[0], recipient=found[1], reason="no more"))

    def search(self) -> None:
        if word := self.world.any_word(self.random):
            self.call(say.Search(text=word, limit=SEARCHED))


def _some(ids: dict[str, Any], random: Random) -> list[str]:
    """Some of the oldest."""
    return list(islice(ids, random.randint(1, 64)))


def _as_mail(receipt: say.Receipt) -> say.Mail:
    """What the operator has of a question; she is not told its choices here."""
    return say.Mail(
        **{
            name: getattr(receipt, name) for name in ("id", "sender", "recipient", "kind", "body", "question")
        },
        sent_ms=receipt.stored_ms,
    )


_HEARD: dict[str, Callable[[Agent, Call], None]] = {
    "hello": Agent._welcome,
    "recv": Agent._received,
    "ack": Agent._acked,
}
_MIX: dict[Callable[[Agent], None], int] = {
    Agent.say_something: 280,
    Agent.recv: 250,
    Agent.ack: 200,
    Agent.saw: 70,
    Agent.repeat: 30,
    Agent.ask: 25,
    Agent.answer: 45,
    Agent.remind: 20,
    Agent.cancel: 10,
    Agent.status: 40,
    Agent.ends: 5,
    Agent.report: 5,
    Agent.stale: 15,
    Agent.take_over: 6,
    Agent.resume: 6,
    Agent.break_off: 1,
}
_STEPS, _WEIGHTS = list(_MIX), [sum(list(_MIX.values())[: at + 1]) for at in range(len(_MIX))]
_PLAIN = (Agent.say_something, Agent.recv, Agent.ack)
_ERRAND_MIX: dict[Callable[[Operator], None], int] = {
    Operator.say_something: 30,
    Operator.read: 15,
    Operator.ask: 5,
    Operator.answer: 10,
    Operator.repeat: 5,
    Operator.hold: 8,
    Operator.retry: 10,
    Operator.drop: 10,
    Operator.search: 2,
}
_ERRANDS = list(_ERRAND_MIX)
_ERRAND_WEIGHTS = [sum(list(_ERRAND_MIX.values())[: at + 1]) for at in range(len(_ERRAND_MIX))]
