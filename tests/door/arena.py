"""A broker on a database of its own, served through its daemon's own door in this process: no socket, so that a million
frames are a matter of a minute."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from libhive import wire
from libhive.daemon import Daemon
from libhive.messages import broker as say
from libhive.messages.base import Ping, Request
from libhive.names import OPERATOR, AgentName, new_id
from libhive.paths import Paths, make_private
from libhive.problems import PROBLEMS, Problem
from libhive.sqlite import Database
from services.broker.__main__ import GARBAGE_THRESHOLDS
from services.broker.service import Broker
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS
from tests.door.frames import DOOR_KINDS, Frame, Frames

AGENTS = (AgentName("alice"), AgentName("bob"), AgentName("carol"))
ANSWER_SECONDS_MAX = 30


class Said(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    message: str
    hint: str
    details: dict[str, str]


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """A reply as docs/protocol.md has it, and nothing else."""

    v: int
    re: str
    body: dict[str, Any] | None = None
    problem: Said | None = None


read_answer = msgspec.msgpack.Decoder(Answer).decode


class Asked(NamedTuple):
    agent: AgentName
    frame: Frame
    answers: list[bytes]
    future: asyncio.Future[Any] | None
    quick: tuple[str, Request[Any]] | None
    """What the daemon took it for, the quick way; None when it took the careful one."""


class Watched:
    """The daemon's reader, and what it has read last."""

    def __init__(self, reader: wire.Reader) -> None:
        self._reader = reader
        self.last: tuple[str, Request[Any]] | None = None

    def read(self, frame: bytes) -> tuple[str, Request[Any]] | None:
        self.last = self._reader.read(frame)
        return self.last


class Arena:
    def __init__(self, seed: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="door-", dir="/tmp"))
        paths = Paths(run=self.root / "run", state=self.root / "state")
        make_private(paths.run)
        database = Database.open(paths.database("broker"), MIGRATIONS, keeps_redo=True)
        self.broker = Broker(database, Settings(pair_per_minute_max=0))
        self.daemon = Daemon(self.broker, paths)
        assert set(DOOR_KINDS) == {Ping, *self.broker.door_handlers()}
        self.reader = Watched(self.daemon._reader)
        self.daemon._reader = self.reader  # type: ignore[assignment]
        self.frames = Frames(random.Random(seed), DOOR_KINDS, AGENTS)
        self._thresholds = gc.get_threshold()
        self.codes: dict[str, int] = {}
        self.quick = 0
        self.senders: dict[str, str] = {}
        """Whose door each message came through, by its id."""

    async def __aenter__(self) -> Arena:
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        await self.broker.start(self.daemon)
        for agent in AGENTS:
            await self.on_bus(say.OpenMailbox(name=agent, uid=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.daemon.doors.close_all()
        await self.daemon._tasks.cancel()
        await self.broker.stop()
        shutil.rmtree(self.root)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    # ---- asking

    async def on_bus(self, request: Request[Any]) -> Any:
        """What the operator is shown: through the bus's own encoding and back."""
        answers: list[bytes] = []
        self.daemon._serve_bus(wire.pack_request(request, new_id(), OPERATOR), answers.append)
        while not answers:
            await asyncio.sleep(0)
        return wire.answer_to(wire.unpack_answer(answers[0]), request.REPLY)

    def ask(self, agent: AgentName, frame: Frame) -> Asked:
        answers: list[bytes] = []
        future = self.daemon._serve_door(agent, frame.data, answers.append)
        return Asked(agent, frame, answers, future, self.reader.last)

    async def storm(self, count: int) -> None:
        """That many frames of one agent, all there before the first is answered."""
        agent = self.frames.random.choice(AGENTS)
        await self._take_lease(agent)
        asked = [self.ask(agent, self.frames.next()) for _ in range(count)]
        await self._take_lease(agent)  # whoever still waits for mail waits by an older lease
        if waiting := [one.future for one in asked if one.future and not one.future.done()]:
            await asyncio.wait(waiting, timeout=ANSWER_SECONDS_MAX)
        for one in asked:
            self.judge(one)
            self.compare(one)

    async def _take_lease(self, agent: AgentName) -> None:
        hello = say.Hello(generation=1, incarnation="fuzz", version="1")
        asked = self.ask(agent, Frame(wire.pack_request(hello, new_id())))
        while not asked.answers:
            await asyncio.sleep(0)
        self.frames.lease = wire.answer_to(wire.unpack_answer(asked.answers[0]), say.Welcome).lease

    # ---- judging

    def judge(self, asked: Asked) -> None:
        """One answer, of a known code, to the one who asked."""
        frame, re = asked.frame.data, asked.frame.re
        assert len(asked.answers) == 1, f"{len(asked.answers)} answers to {frame!r:.2000}"
        answer = read_answer(asked.answers[0])
        assert (answer.body is None) != (answer.problem is None)
        assert answer.re.encode() in frame, f"{answer.re!r} was not asked by {frame!r:.2000}"
        assert re is None or answer.re == re, f"answered {answer.re!r} to {frame!r:.2000}"
        if answer.problem is None:
            assert answer.re
            self.frames.ids.append(answer.re)
            if "recipients" in (answer.body or {}):
                owner = self.senders.setdefault(answer.re, asked.agent)
                assert owner == asked.agent, f"{answer.re} was sent by {owner}, and again by {asked.agent}"
            code = "done"
        else:
            code = answer.problem.code
            assert code in PROBLEMS, code
            assert code != "internal-error", f"{answer.problem.message} for {frame!r:.2000}"
            assert answer.problem.message
        self.codes[code] = self.codes.get(code, 0) + 1

    def compare(self, asked: Asked) -> None:
        """The quick way takes nothing that the careful way would not take as the same."""
        if asked.quick:
            self.quick += 1
            same_both_ways(asked.quick, asked.frame.data)

    async def show(self) -> Sequence[say.Receipt]:
        """Everything that can be looked at decodes, and is encoded for a browser; the newest messages are returned."""
        shown: list[Any] = []
        history = await self.on_bus(say.History(limit=500))
        for request in (
            *(
                say.Inbox(all=True, limit=500),
                say.Peers(),
                say.Reminders(),
                say.Questions(open_only=False, limit=500),
            ),
            *(say.History(agent=agent, limit=500) for agent in AGENTS),
            *(say.Search(text="hello", limit=500), say.Mailboxes()),
        ):
            shown.append(await self.on_bus(request))
        for reply in (history, *shown):
            msgspec.json.encode(reply).decode()
            repr(reply)
        receipts: list[say.Receipt] = history.receipts
        return receipts


def same_both_ways(read: tuple[str, Request[Any]], frame: bytes) -> None:
    id, request = read
    try:
        envelope = wire.unpack_request(frame)
        understood = wire.understand(envelope, type(request))
    except Problem as problem:
        raise AssertionError(f"only the quick way took {frame!r:.2000}: {problem.message}") from None
    assert (envelope.id, envelope.kind, envelope.actor) == (id, request.KIND, ""), frame
    assert understood == request, frame
