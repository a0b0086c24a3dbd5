"""One hive's broker, its players, and its deaths: a run of lives, each ended by a kill, then a last one in which
everything that is still open comes to its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol

from libhive.messages import broker as say
from libhive.names import AgentName
from libhive.testing.hive import Hive
from tests.proofs.history import Call, History, word_of
from tests.proofs.lines import DoorLine
from tests.proofs.nursery import Nursery
from tests.proofs.players import Agent, Operator, Player
from tests.proofs.store import endless_questions, open_mail, watched

LIMITLESS = {
    "HIVE_BROKER_HOPS_MAX": "0",
    "HIVE_BROKER_ROOT_MESSAGES_MAX": "0",
    "HIVE_BROKER_PAIR_PER_MINUTE_MAX": "0",
    "HIVE_BROKER_OPEN_QUESTIONS_MAX": "100000",
    "HIVE_BROKER_PENDING_REMINDERS_MAX": "100000",
    "HIVE_SNAPSHOT_HOURS": "0",
}
"""The budgets would pause what these players do."""
NAMES = ("ada", "bob", "cleo", "dan", "eve", "fay")
READY_SECONDS_MAX = 30.0
END_SECONDS_MAX = 20.0
QUIET_SECONDS = 0.02
HEAR_SECONDS = 0.005
"""Between looks at the operator's line, of which no poll tells."""
OPEN_MAX = 1_500
"""Messages on their way, before nobody sends more."""
PLAIN_TURNS = 300
ENDLESS_MAX = 50
"""Open questions without a deadline, before all others get one: most are never answered here, and the more there are the
slower is each next one."""

Act = Callable[["World"], Iterator[None]]


class Host(Protocol):
    """Where brokers come from: the nursery, or exec."""

    def spawn(self, fault: str = "") -> int: ...
    def fileno(self) -> int: ...
    def ended(self) -> int: ...
    def close(self) -> None: ...


class Exec:
    """`python -m services.broker`, as the product starts it."""

    def __init__(self, hive: Hive) -> None:
        self.hive, self._pidfd = hive, -1

    def spawn(self, fault: str = "") -> int:
        self.hive.environ["HIVE_FAULT"] = fault
        self.hive.spawn("broker")
        pid = self.hive.processes["broker"].pid
        self._pidfd = os.pidfd_open(pid)
        return pid

    def fileno(self) -> int:
        return self._pidfd

    def ended(self) -> int:
        os.close(self._pidfd)
        return self.hive.processes.pop("broker").wait()

    def close(self) -> None:
        """The hive ends what it has started."""


class World:
    def __init__(
        self,
        hive: Hive,
        seed: str,
        *,
        bug: str = "",
        real: bool = False,
        names: tuple[str, ...] = NAMES,
        window: int = 8,
        long_bodies: float = 0.01,
        poison: float = 0.01,
        patience_seconds: float = END_SECONDS_MAX,
    ) -> None:
        self.hive, self.seed, self.names = hive, seed, names
        self.long_bodies, self.poison = long_bodies, poison
        self.patience_seconds = patience_seconds
        self.history, self.random = History(), Random(f"{seed} world")
        self.plain = False
        """Whether the players do nothing but send, receive and acknowledge: what the broker keeps in its redo log first, unless
        something else is under way."""
        self.killed_at = Counter[str]()
        """How often which point, or which call under way, met a kill."""
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._ready.bind(str(hive.root / "ready"))
        hive.environ |= {**LIMITLESS, "NOTIFY_SOCKET": str(hive.root / "ready")}
        self._log = (hive.root / "proofs.log").open("ab")
        self.host: Host = Exec(hive) if real else Nursery(hive.environment(), self._log.fileno(), bug)
        self.operator = Operator(self, window)
        self.agents = [Agent(self, name, window) for name in names]
        self.players: list[Player] = [self.operator, *self.agents]
        self.broken_off: list[Agent] = []
        self._questions, self._mail = deque[str](maxlen=500), deque[tuple[str, str]](maxlen=500)
        self._poison = deque[tuple[str, str]](maxlen=500)
        self._words = deque[str](maxlen=500)
        self._poll = select.epoll()
        self._watched: dict[int, Player] = {}
        self._pid = self._turns = self._open = self._endless = 0

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self.host.ended()
        self.host.close()
        self._poll.close()
        self._ready.close()
        self._log.close()

    # ---- what the players ask

    def door(self, name: str) -> Path:
        return self.hive.paths.door(AgentName(name), "broker")

    @property
    def database(self) -> Path:
        return self.hive.paths.database("broker")

    def bus(self) -> Path:
        return self.hive.paths.bus("broker")

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def is_full(self) -> bool:
        """Who only sends and receives cannot free those who are held: there has to be room for that."""
        return self._open > OPEN_MAX and not self.plain

    def has_endless_questions(self) -> bool:
        return self._endless > ENDLESS_MAX

    def made(self, call: Call) -> None:
        """A command whose id others may want to know."""
        request = call.request
        if word := word_of(request):
            self._words.append(word)
        if isinstance(request, say.Ask):
            self._questions.append(call.id)
            self._mail.append((call.id, request.to))
        if isinstance(request, say.Send):
            mail = self._poison if request.body.startswith("poison") else self._mail
            mail.extend((call.id, name) for name in request.to if name != "all")

    def any_question(self, random: Random) -> str:
        return random.choice(self._questions) if self._questions else ""

    def any_word(self, random: Random) -> str:
        return random.choice(self._words) if self._words else ""

    def any_mail(self, random: Random, *, poison: bool) -> tuple[str, str] | None:
        mail = self._poison if poison else self._mail
        return random.choice(mail) if mail else None

    def moved(self, agent: Agent) -> None:
        """Its old connection is closed; the kernel has forgotten it."""
        self._watched = {number: player for number, player in self._watched.items() if player is not agent}

    # ---- lives

    def found(self) -> None:
        """The first life: it makes the mailboxes."""
        self._begin()
        for name in self.names:
            self.operator_calls(partial(self._open_mailbox, name))
        self._connect_all()

    def live(self, seconds: float, fault: str = "", *, from_ready: bool = True) -> None:
        """Killed after so long, counted from its readiness or from its spawning, unless it reaches the fault point before. One
        that lives already is killed after so long."""
        self.plain = fault.startswith("redo.") or self.random.random() < 0.5
        kill_at = time.monotonic() + seconds
        if not self._pid and self._begin(fault, 0.0 if from_ready else kill_at):
            self._connect_all()
            kill_at = time.monotonic() + seconds
        while self._pid and time.monotonic() < kill_at:
            self._turn(kill_at)
        self._kill(fault)

    def _kill(self, fault: str = "") -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        self._bury(fault, "random" if self._pid else fault.strip("@").partition(":")[0])

    def strike(self, point: str, act: Act) -> None:
        """Everybody is quiet but for the act: what it does after its `yield` meets the fault point."""
        self._begin(f"@{point}")
        self._connect_all()
        self.rest()
        doing = act(self)
        next(doing)
        self.rest()
        os.kill(self._pid, signal.SIGUSR1)
        next(doing, None)
        limit = time.monotonic() + self.patience_seconds
        while self._pid and time.monotonic() < limit:
            self._turn(limit)
        self._kill(f"@{point}")

    def rest(self) -> None:
        """Until every call is answered, and the broker has written what it had put off."""
        self._hear_all(time.monotonic() + self.patience_seconds)
        time.sleep(QUIET_SECONDS)

    def until(self, calls: int) -> None:
        """Goes on, without any kill, until so many calls have been answered."""
        while self.history.answered < calls:
            self.plain = self._turns // PLAIN_TURNS % 2 == 1
            self._turn(time.monotonic() + 1)
            assert self._pid, "the broker ended by itself"

    def end(self) -> list[str]:
        """Everybody takes a fresh lease and works off what there is; then the broker is told to stop. What is left open is
        stuck."""
        for player in self.players:
            player.working = False
        if not self._pid:
            self._begin()
            self._connect_all()
        problems = self._settle_down()
        os.kill(self._pid, signal.SIGTERM)
        status = self.host.ended()
        self._pid = 0
        return problems + [f"stuck: the broker ended with {status}"] * (status != 0)

    # ---- the rest is how it is done

    def _begin(self, fault: str = "", until: float = 0.0) -> bool:
        """Whether it was ready in time."""
        with contextlib.suppress(BlockingIOError):
            while self._ready.recv(100):
                pass
        self._pid = self.host.spawn(fault)
        limit = until or time.monotonic() + READY_SECONDS_MAX
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        poll.register(self.host.fileno(), select.POLLIN)
        while (left := limit - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                if number == self.host.fileno():
                    self._pid = 0
                    return False
                if b"READY=1" in self._ready.recv(100):
                    return True
        assert until, "the broker did not come up"
        return False

    def _connect_all(self) -> None:
        self._watched = {}
        self._poll.close()
        self._poll = select.epoll()
        self._poll.register(self.host.fileno(), select.EPOLLIN)
        self.operator.connect()
        for agent in self.agents:
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                agent.connect(self.working_resume(agent))
                self._watch(agent)

    def working_resume(self, agent: Agent) -> bool:
        return agent.working and bool(agent.lease) and self.random.random() < 0.7

    def _watch(self, agent: Agent) -> None:
        assert isinstance(agent.line, DoorLine)
        number = agent.line.socket.fileno()
        self._poll.register(number, select.EPOLLIN)
        self._watched[number] = agent

    def _turn(self, until: float) -> None:
        """Hears whoever has something to hear, and lets them go on."""
        wait = max(0.0, min(until - time.monotonic(), 0.002))
        for number, _ in self._poll.poll(wait):
            if number == self.host.fileno():
                self._pid = 0
                return
            if player := self._watched.get(number):
                player.listen()
                player.work()
                if player.line.gone:
                    self._poll.unregister(number)
        self.operator.listen()
        self.operator.work()
        self._mend()
        self._turns += 1
        if self._turns % 256 == 0:
            self._open, self._endless = open_mail(self.database), endless_questions(self.database)

    def _mend(self) -> None:
        while self.broken_off:
            agent = self.broken_off.pop()
            if agent.line.gone:
                continue
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                agent.reconnect()
                self._watch(agent)

    def _bury(self, fault: str, cause: str) -> None:
        """What was on its way out is read; what had no answer is unsure from now on."""
        status = self.host.ended()
        assert status == -signal.SIGKILL, f"the broker ended with {status} ({fault})"
        self._pid = 0
        self.killed_at[cause] += 1
        self.broken_off.clear()
        for player in self.players:
            if not player.line.gone or player.under_way:
                self.killed_at.update({call.verb for call in player.under_way.values()})
                player.lost()
        self.history.died()

    def _settle_down(self) -> list[str]:
        limit = time.monotonic() + self.patience_seconds
        self._hear_all(limit)
        self.operator.release_all()
        for agent in self.agents:
            agent.hello()
            agent.end_recurring()
            agent.line.flush()
        self._hear_all(limit)
        if left := self._work_off(limit):
            return [f"stuck: {left} things have not come to their end"]
        self._hear_all(limit)
        return [
            f"stuck: no answer to {call}" for player in self.players for call in player.under_way.values()
        ]

    def _work_off(self, limit: float) -> int:
        """How many things are left."""
        with watched(self.database) as left:
            while found := left():
                if time.monotonic() > limit:
                    return found
                for player in self.players:
                    player.clear_desk()
                self._hear_some()
        return 0

    def _hear_all(self, limit: float) -> None:
        """Until nothing is under way any more."""
        while any(player.under_way for player in self.players) and time.monotonic() < limit:
            self._hear_some()

    def _hear_some(self) -> None:
        self._poll.poll(HEAR_SECONDS)
        for player in self.players:
            player.line.flush()
            player.listen()

    def _open_mailbox(self, name: str) -> Call:
        """As lifecycle does it; here the operator, since the bus knows no difference."""
        return self.operator.call(say.OpenMailbox(name=name, uid=os.geteuid()))

    def operator_calls(self, begin: Callable[[], Call]) -> Call:
        """One call, waited for."""
        if self.operator.line.gone:
            self.operator.connect()
        call = begin()
        limit = time.monotonic() + END_SECONDS_MAX
        while not call.ended:
            assert time.monotonic() < limit, f"stuck: no answer to {call}"
            self.operator.listen()
            time.sleep(0.0005)
        return call
