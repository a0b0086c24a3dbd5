"""The harness's side of the lease, against a broker that a test plays at the door."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from libhive import wire
from libhive.door_client import DoorClient
from libhive.doorway import Doorway
from libhive.harness import mailbox as mailbox_module
from libhive.harness.mailbox import Mailbox
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.transcript import Transcript, TurnEnd
from libhive.messages import broker as say
from libhive.messages.base import Done, Ping, Pong, Reply
from libhive.names import AgentName, new_id
from libhive.problems import NoSpace
from libhive.spec import AgentSpec


def mail(body: str) -> say.Mail:
    return say.Mail(
        id=new_id(), sender="bob", recipient="iris", kind="message", body=body, sent_ms=1, attempts=1
    )


class Played:
    """A broker's door that hands out `batches`, one for each recv."""

    def __init__(self, *batches: list[say.Mail]) -> None:
        self.batches = list(batches)
        self.leases: list[str] = []

    def serve(self, agent: AgentName, frame: bytes, reply: Callable[[bytes], None]) -> None:
        envelope = wire.unpack_request(frame)
        answer: Reply = Done()
        if envelope.kind == Ping.KIND:
            answer = Pong(service="broker", version="0", pid=0, up_since_ms=0)
        if envelope.kind == say.Hello.KIND:
            self.leases.append(new_id())
            answer = say.Welcome(agent=agent, lease=self.leases[-1], resumed=False, sequence=0)
        if envelope.kind == say.Recv.KIND:
            answer = say.Received(mail=self.batches.pop(0) if self.batches else [], sequence=0)
        reply(wire.pack_reply(envelope.id, answer))


class Rig:
    """A mailbox behind a door at which `serve` answers."""

    def __init__(
        self, tmp_path: Path, serve: Callable[[AgentName, bytes, Callable[[bytes], None]], None]
    ) -> None:
        self.door = Doorway(AgentName("iris"), os.geteuid(), tmp_path / "doors" / "broker.sock", serve)
        settings = Settings(
            agent=AgentName("iris"),
            manager="hm1nd",
            doors=tmp_path / "doors",
            page=tmp_path,
            state=tmp_path,
            spec=AgentSpec(prompt="You paint."),
            generation=1,
            claude=tmp_path,
            claude_version="0",
        )
        self.transcript = Transcript.open(tmp_path / "transcript.sqlite")
        self.mailbox = Mailbox(DoorClient(self.door.path), settings, self.transcript, Status())

    async def __aenter__(self) -> Rig:
        await self.door.open()
        self.paying = asyncio.create_task(self.mailbox.pay())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.paying.cancel()
        await self.mailbox.close()
        await self.door.close()


async def test_mail_that_is_offered_twice_under_one_lease_is_taken_once(tmp_path: Path) -> None:
    """A broker writes that it handed mail out a few milliseconds after it did; killed before that, it does so again."""
    first, second, third = mail("first"), mail("second"), mail("third")
    played = Played([first, second], [first, second], [second, third], [first])
    async with Rig(tmp_path, played.serve) as rig:
        mailbox = rig.mailbox
        assert [one.body for one in await mailbox.next()] == ["first", "second"]
        assert [one.body for one in await mailbox.next()] == ["third"]
        played.batches = [[first]]
        await mailbox.give_back()
        assert len(played.leases) == 2
        assert [one.body for one in await mailbox.next()] == ["first"], "a new lease gets it again"


@pytest.mark.parametrize("kind", [say.Send.KIND, say.Hello.KIND, say.Recv.KIND])
async def test_a_full_disk_of_the_broker_costs_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whatever it refuses for want of room is said again when there may be some."""
    monkeypatch.setattr(mailbox_module, "RETRY_SECONDS", 0.01)
    played, sent, refused = Played([], [mail("first")]), list[str](), list[str]()

    def serve(agent: AgentName, frame: bytes, reply: Callable[[bytes], None]) -> None:
        envelope = wire.unpack_request(frame)
        if envelope.kind == kind and len(refused) < 2:
            refused.append(envelope.id)
            reply(wire.pack_problem(envelope.id, NoSpace("the disk is full")))
        elif envelope.kind == say.Send.KIND:
            sent.append(envelope.id)
            reply(wire.pack_reply(envelope.id, say.Sent(id=envelope.id, recipients=["bob"])))
        elif envelope.kind == say.LooseEnds.KIND:
            ends = say.LooseEndList(asked_of_me=[], asked_by_me=[], reminders=[], unacked=[])
            reply(wire.pack_reply(envelope.id, ends))
        else:
            played.serve(agent, frame, reply)

    rig = Rig(tmp_path, serve)
    id, what = new_id(), say.Send(to=["bob"], body="what the agent said")
    end = TurnEnd(turn="t", session="s", outcome="success", woken_by="bob", text="", reply_id=id, reply=what)
    await rig.transcript.end_turn(end, b"{}")
    async with rig:
        assert [one.body for one in await rig.mailbox.next()] == ["first"]
        await rig.mailbox.settle()
    assert len(refused) == 2
    assert set(sent) == {id}
    assert rig.transcript.owed_replies() == []
