"""One HTTP server per agent on its `gateway.sock`, and beside it its proxy, kept in step with the broker's mailboxes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from libhive.clients.broker import Broker
from libhive.doorway import make_doors
from libhive.link import Gap, Link
from libhive.messages.broker import Mailbox, MailboxChanged
from libhive.names import AgentName, agent_name
from libhive.paths import Paths
from libhive.web.serve import WebServer, unix_socket
from services.gateway.asking import until_answered
from services.gateway.egress.doors import Proxies
from services.gateway.exchange import Receive, Scope, Send
from services.gateway.store import Store

log = logging.getLogger("hive.gateway")

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Door:
    uid: int
    server: WebServer


class HttpDoors:
    def __init__(
        self,
        paths: Paths,
        store: Store,
        app_for: Callable[[str], App],
        proxies: Proxies,
        *,
        connections_per_agent_max: int,
    ) -> None:
        self._paths, self._store, self._app_for, self._proxies = paths, store, app_for, proxies
        self._connections_max = connections_per_agent_max
        self._doors: dict[AgentName, _Door] = {}

    async def reopen(self) -> None:
        """The doors that were open when the gateway last ran; the broker may be away, the agents are not."""
        for agent, uid in self._store.doors():
            await self.open(agent, uid)

    async def follow(self, link: Link) -> None:
        """For ever: the doors are those of the open mailboxes. While the broker is away they stay as they are."""
        async for event in link.events("broker"):
            if isinstance(event, MailboxChanged):
                await self._set(event.mailbox)
            elif isinstance(event, Gap):
                await self._sync(Broker(link))

    async def open(self, agent: AgentName, uid: int) -> None:
        """Opens it, or leaves it as it is; another uid makes it anew."""
        if (door := self._doors.get(agent)) and door.uid == uid:
            return
        await self.close(agent)
        path = self._paths.door(agent, "gateway")
        make_doors(path.parent, uid)
        server = WebServer(
            self._app_for(agent),
            sock=unix_socket(path, uid=uid),
            limit_concurrency=self._connections_max,
            peer_uid=uid,
        )
        await server.start()
        await self._proxies.open(agent, uid)
        self._doors[agent] = _Door(uid, server)
        await self._store.keep_door(agent, uid)
        log.info("door open", extra={"agent": agent, "uid": uid})

    async def close(self, agent: AgentName) -> None:
        if door := self._doors.pop(agent, None):
            await self._proxies.close(agent)
            await door.server.stop()
            self._paths.door(agent, "gateway").unlink(missing_ok=True)
            log.info("door closed", extra={"agent": agent})

    def is_open(self, agent: AgentName) -> bool:
        return agent in self._doors

    async def close_all(self) -> None:
        """At the gateway's end; which doors there were is kept for its next start."""
        await asyncio.gather(*(self.close(agent) for agent in list(self._doors)))

    async def _sync(self, broker: Broker) -> None:
        mailboxes = await until_answered(broker.mailboxes, "the broker", "the doors")
        there = {mailbox.name for mailbox in mailboxes}
        for mailbox in mailboxes:
            await self._set(mailbox)
        for agent in [agent for agent in self._doors if agent not in there]:
            await self._forget(agent)

    async def _set(self, mailbox: Mailbox) -> None:
        agent = agent_name(mailbox.name)
        if mailbox.open:
            await self.open(agent, mailbox.uid)
        else:
            await self._forget(agent)

    async def _forget(self, agent: AgentName) -> None:
        await self.close(agent)
        await self._store.drop_door(agent)
