"""The harness's side of the lease, against a broker that a test plays at the door."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from libhive import wire
from libhive.door_client import DoorClient
from libhive.doorway import Doorway
from libhive.harness.mailbox import Mailbox
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.transcript import Transcript
from libhive.messages import broker as say
from libhive.messages.base import Done, Ping, Pong, Reply
from libhive.names import AgentName, new_id
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


async def test_mail_that_is_offered_twice_under_one_lease_is_taken_once(tmp_path: Path) -> None:
    """A broker writes that it handed mail out a few milliseconds after it did; killed before that, it does so again."""
    first, second, third = mail("first"), mail("second"), mail("third")
    played = Played([first, second], [first, second], [second, third], [first])
    door = Doorway(AgentName("iris"), os.geteuid(), tmp_path / "doors" / "broker.sock", played.serve)
    await door.open()
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
    mailbox = Mailbox(
        DoorClient(door.path), settings, Transcript.open(tmp_path / "transcript.sqlite"), Status()
    )
    paying = asyncio.create_task(mailbox.pay())
    assert [one.body for one in await mailbox.next()] == ["first", "second"]
    assert [one.body for one in await mailbox.next()] == ["third"]
    played.batches = [[first]]
    await mailbox.give_back()
    assert len(played.leases) == 2
    assert [one.body for one in await mailbox.next()] == ["first"], "a new lease gets it again"
    paying.cancel()
    await mailbox.close()
    await door.close()
