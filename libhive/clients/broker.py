from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from libhive.clients import Client
from libhive.link import CALL_SECONDS
from libhive.messages import broker as say
from libhive.messages.base import Done


class Broker(Client):
    service = "broker"

    async def send(
        self, to: str | Sequence[str], body: str, in_reply_to: str = "", id: str | None = None
    ) -> say.Sent:
        names = [to] if isinstance(to, str) else list(to)
        return await self.link.call("broker", say.Send(to=names, body=body, in_reply_to=in_reply_to), id=id)

    async def answer(self, question: str, text: str, id: str | None = None) -> Done:
        return await self.link.call("broker", say.Answer(question=question, text=text), id=id)

    async def news(
        self, to: str, what: str, body: str, details: dict[str, str] | None = None, id: str | None = None
    ) -> Done:
        return await self.link.call(
            "broker", say.News(to=to, what=what, body=body, details=details or {}), id=id
        )

    async def open_mailbox(self, name: str, uid: int, allowed_recipients: list[str] | None = None) -> Done:
        return await self.link.call(
            "broker", say.OpenMailbox(name=name, uid=uid, allowed_recipients=allowed_recipients)
        )

    async def close_mailbox(self, name: str) -> Done:
        return await self.link.call("broker", say.CloseMailbox(name=name))

    async def mailboxes(self) -> list[say.Mailbox]:
        return (await self.link.call("broker", say.Mailboxes())).mailboxes

    async def peers(self) -> list[say.Peer]:
        return (await self.link.call("broker", say.Peers())).peers

    async def peer(self, name: str) -> say.Peer | None:
        return next((peer for peer in await self.peers() if peer.name == name), None)

    async def set_hold(self, agent: str, reason: Literal["operator", "update"], held: bool) -> Done:
        return await self.link.call("broker", say.SetHold(agent=agent, reason=reason, held=held))

    async def message_status(self, id: str) -> list[say.Receipt]:
        return (await self.link.call("broker", say.MessageStatus(id=id))).receipts

    async def history(self, agent: str = "", before: str = "", limit: int = 100) -> list[say.Receipt]:
        return (await self.link.call("broker", say.History(agent=agent, before=before, limit=limit))).receipts

    async def inbox(self, *, all: bool = False, limit: int = 100) -> list[say.Receipt]:
        return (await self.link.call("broker", say.Inbox(all=all, limit=limit))).receipts

    async def ack_inbox(self, ids: Sequence[str]) -> Done:
        return await self.link.call("broker", say.AckInbox(ids=list(ids)))

    async def await_reply(self, message: str, wait_ms: int = 0) -> list[say.Receipt]:
        request = say.AwaitReply(message=message, wait_ms=wait_ms)
        reply = await self.link.call("broker", request, timeout_seconds=CALL_SECONDS + wait_ms / 1000)
        return reply.receipts

    async def questions(self, *, open_only: bool = True, limit: int = 100) -> list[say.Question]:
        return (await self.link.call("broker", say.Questions(open_only=open_only, limit=limit))).questions

    async def reminders(self) -> list[say.Reminder]:
        return (await self.link.call("broker", say.Reminders())).reminders
