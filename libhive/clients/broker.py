from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from libhive.clients import Client
from libhive.link import CALL_SECONDS
from libhive.messages import broker as say
from libhive.messages.base import Done

SEARCH_SECONDS = 10.0
PURGE_SECONDS = 10.0
"""A great mailbox takes longer: it is asked again until nothing of it is left, and goes on meanwhile."""
RETAIN_SECONDS = 3_600.0
"""A million messages go slowly, so that nobody's mail waits for it. Giving up here does not end it there."""


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

    async def search(
        self,
        text: str = "",
        *,
        agent: str = "",
        root: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
        before: int = 0,
        limit: int = 50,
    ) -> say.Found:
        request = say.Search(
            text=text,
            agent=agent,
            root=root,
            since_ms=since_ms,
            until_ms=until_ms,
            before=before,
            limit=limit,
        )
        return await self.link.call("broker", request, timeout_seconds=SEARCH_SECONDS)

    async def retain(self, days: int = 0, *, apply: bool = False) -> say.Retained:
        request = say.Retain(days=days, apply=apply)
        return await self.link.call("broker", request, timeout_seconds=RETAIN_SECONDS)

    async def retry_mail(self, id: str, recipient: str) -> Done:
        return await self.link.call("broker", say.RetryMail(id=id, recipient=recipient))

    async def drop_mail(self, id: str, recipient: str, reason: str = "") -> Done:
        return await self.link.call("broker", say.DropMail(id=id, recipient=recipient, reason=reason))

    async def purge_mailbox(self, name: str, id: str | None = None) -> say.Purged:
        return await self.link.call(
            "broker", say.PurgeMailbox(name=name), id=id, timeout_seconds=PURGE_SECONDS
        )

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

    async def remind(
        self,
        agent: str,
        text: str,
        *,
        at_ms: int = 0,
        after_seconds: int = 0,
        cron: str = "",
        zone: str = "",
        catch_up: say.CatchUp = "once",
        id: str | None = None,
    ) -> say.Reminded:
        request = say.Remind(
            agent=agent,
            text=text,
            at_ms=at_ms,
            after_seconds=after_seconds,
            cron=cron,
            zone=zone,
            catch_up=catch_up,
        )
        return await self.link.call("broker", request, id=id)

    async def reminders(self, agent: str = "") -> list[say.Reminder]:
        return (await self.link.call("broker", say.Reminders(agent=agent))).reminders

    async def cancel_reminder(self, reminder: str) -> Done:
        return await self.link.call("broker", say.CancelReminder(id=reminder))
