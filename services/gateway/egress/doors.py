"""One listening socket per agent, and the caps of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from libhive.doorway import listen, make_doors, may_enter, peer_uid
from libhive.names import AgentName
from libhive.paths import Paths
from services.gateway.egress.book import Book
from services.gateway.egress.pace import Pace
from services.gateway.egress.plain import READ_BYTES
from services.gateway.egress.policies import Policies
from services.gateway.egress.visit import Owner, Visit
from services.gateway.settings import Settings

ACCEPTED_AT_ONCE_MAX = 16
"""Of one agent, before the loop looks at the others again."""

Fail = Callable[[str, BaseException], None]


@dataclass(slots=True)
class _Proxy:
    uid: int
    owner: Owner
    server: asyncio.Server | None = None
    visits: dict[Visit, asyncio.Task[None] | None] = field(default_factory=dict)


class Proxies:
    def __init__(self, paths: Paths, settings: Settings, policies: Policies, book: Book, fail: Fail) -> None:
        self._paths, self._settings, self._policies, self._book = paths, settings, policies, book
        self._fail = fail
        self._proxies: dict[str, _Proxy] = {}
        policies.on_change = self.reconsider

    async def open(self, agent: AgentName, uid: int) -> None:
        """Whatever the agent may reach: what that is, is asked for each connection."""
        path = self._paths.door(agent, "proxy")
        make_doors(path.parent, uid)
        owner = Owner(
            agent=agent,
            settings=self._settings,
            policies=self._policies,
            book=self._book,
            pace=Pace(self._settings.egress_bytes_per_second_max),
            slots=asyncio.Semaphore(self._settings.egress_lookups_per_agent_max),
        )
        proxy = self._proxies[agent] = _Proxy(uid, owner)
        proxy.server = await asyncio.start_unix_server(
            partial(self._accept, proxy),
            sock=listen(path, uid=uid),
            limit=READ_BYTES,
            backlog=ACCEPTED_AT_ONCE_MAX,
        )

    async def close(self, agent: AgentName) -> None:
        if proxy := self._proxies.pop(agent, None):
            if proxy.server:
                proxy.server.close()
            tasks = [task for task in proxy.visits.values() if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._paths.door(agent, "proxy").unlink(missing_ok=True)

    def reconsider(self, agent: str) -> None:
        """What is open and would not be let out any more ends."""
        if proxy := self._proxies.get(agent):
            for visit in list(proxy.visits):
                visit.reconsider()

    async def _accept(
        self, proxy: _Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        agent, cap = proxy.owner.agent, self._settings.egress_connections_per_agent_max
        if not may_enter(peer_uid(writer.get_extra_info("socket")), proxy.uid):
            writer.transport.abort()
            return
        if len(proxy.visits) >= cap:
            self._book.refuse(agent, "", 0, "refused", "too-many", f"more than {cap} connections at once")
            writer.transport.abort()
            return
        visit = Visit(proxy.owner, (reader, writer))
        proxy.visits[visit] = asyncio.current_task()
        try:
            await visit.run()
        except Exception as error:  # noqa: BLE001 - a bug; as in libhive.daemon, where a handler's bug ends
            self._fail(f"a connection of {agent}", error)
        finally:
            proxy.visits.pop(visit, None)
