"""Who has a mailbox, who may write to whom, who holds its lease, what holds it, and who is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.names import agent_name
from libhive.problems import NotFound
from libhive.promise import Promise
from libhive.sqlite import driver, rows
from services.broker import rules
from services.broker.core import Core
from services.broker.mailroom import taken_over
from services.broker.presence import Presences
from services.broker.rules import Entry


class Mailboxes:
    """In memory what the store says of them: they are few, and asked for with every message."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.presences = Presences()
        self.directory: dict[str, Entry] = {}
        self._statuses: dict[str, str] = {}
        self._leases: dict[str, str] = {}
        self._holds: dict[str, list[str]] = {}
        core.read(self._load)

    # ---- what the others ask

    def recipients(self, sender: str, to: Sequence[str]) -> list[str]:
        return rules.recipients(sender, to, self.directory, self.core.settings.manager)

    def recipient(self, sender: str, to: str) -> str:
        return rules.recipient(sender, to, self.directory, self.core.settings.manager)

    def check_lease(self, agent: str, lease: str) -> None:
        if not lease or self._leases.get(agent) != lease:
            raise taken_over()

    def holds(self, agent: str) -> list[str]:
        return self._holds.get(agent, [])

    def took(self, agent: str, lease: str) -> None:
        """After the commit."""
        self._leases[agent] = lease

    def forget(self, name: str) -> None:
        """After the commit that removed it."""
        self.presences.forget(name)
        self._reload()

    # ---- handlers

    async def on_open_mailbox(self, call: Call, m: say.OpenMailbox) -> Done:
        name = agent_name(m.name)
        await self._run(
            "INSERT INTO mailboxes (name, uid, open, allowed) VALUES (?, ?, 1, ?) ON CONFLICT (name) DO UPDATE"
            " SET uid = excluded.uid, open = 1, allowed = excluded.allowed",
            (name, m.uid, None if m.allowed_recipients is None else json.dumps(m.allowed_recipients)),
        )
        self._reload()
        self.core.timers_changed()  # what was due while it was destroyed
        assert self.core.daemon
        await self.core.daemon.doors.open(name, m.uid)
        self.core.publish(say.MailboxChanged(mailbox=self.directory[name].as_mailbox()))
        return Done()

    async def on_close_mailbox(self, call: Call, m: say.CloseMailbox) -> Done:
        name = agent_name(m.name)
        if name not in self.directory:
            raise NotFound(f"there is no mailbox {name!r}")
        await self._run("UPDATE mailboxes SET open = 0, lease = '' WHERE name = ?", (name,), self._reload)
        assert self.core.daemon
        await self.core.daemon.doors.close(name)
        self.core.publish(say.MailboxChanged(mailbox=self.directory[name].as_mailbox()))
        return Done()

    def on_mailboxes(self, call: Call, m: say.Mailboxes) -> say.MailboxList:
        return say.MailboxList(mailboxes=[entry.as_mailbox() for entry in self.directory.values()])

    def on_report_state(self, call: Call, m: say.ReportState) -> Done:
        self.check_lease(call.caller, m.lease)
        self.presences.reported(call.caller, m.state, m.detail, m.turn, m.model, self.core.clock())
        self.peer_changed(call.caller)
        return Done()

    async def on_set_status(self, call: Call, m: say.SetStatus) -> Done:
        await self._run("UPDATE mailboxes SET status = ? WHERE name = ?", (m.text, call.caller))
        self._statuses[call.caller] = m.text
        self.peer_changed(call.caller)
        return Done()

    async def on_set_hold(self, call: Call, m: say.SetHold) -> Done:
        if m.agent not in self.directory:
            raise NotFound(f"there is no agent {m.agent!r}")
        if m.held:
            query = "INSERT OR IGNORE INTO holds (agent, reason) VALUES (?, ?)"
        else:
            query = "DELETE FROM holds WHERE agent = ? AND reason = ?"
        await self._run(query, (m.agent, m.reason))
        self._reload()
        self.core.look(m.agent)
        self.peer_changed(m.agent)
        return Done()

    def on_peers(self, call: Call, m: say.Peers) -> say.PeerList:
        return say.PeerList(peers=[self.peer(name) for name, entry in self.directory.items() if entry.open])

    # ---- who is there

    def gone(self, agent: str) -> None:
        self.presences.gone(agent, self.core.clock())
        self.peer_changed(agent)

    def peer_changed(self, agent: str) -> None:
        if self.core.heard(1):
            self.core.publish(say.PeerChanged(peer=self.peer(agent)))

    def peer(self, name: str) -> say.Peer:
        here = self.presences.of(name)
        return say.Peer(
            name=name,
            connected=here.connected,
            state=here.state,
            status=self._statuses.get(name, ""),
            detail=here.detail,
            turn=here.turn,
            model=here.model,
            generation=here.generation,
            incarnation=here.incarnation,
            version=here.version,
            unacked=self.core.read(lambda c: self.core.mailroom.unacked_count(c, name)),
            holds=self.holds(name),
            since_ms=here.since_ms,
        )

    # ---- the rest is how it is done

    def _run(
        self, query: str, values: Sequence[object], then: Callable[[], None] = lambda: None
    ) -> Promise[None]:
        def work(c: Connection) -> None:
            driver(c).execute(query, values)

        return self.core.database.write(work, lambda _: then())

    def _reload(self) -> None:
        self.core.read(self._load)

    def _load(self, c: Connection) -> None:
        found = rows(c, "SELECT name, uid, open, allowed, lease, status FROM mailboxes ORDER BY name")
        self.directory = {row["name"]: _entry(row) for row in found}
        self._leases = {row["name"]: row["lease"] for row in found}
        self._statuses = {row["name"]: row["status"] for row in found}
        self._holds = {}
        for row in rows(c, "SELECT agent, reason FROM holds ORDER BY reason"):
            self._holds.setdefault(row["agent"], []).append(row["reason"])
        for name in self.directory:
            self.core.boxes.of(name).held = name in self._holds


def _entry(row: dict[str, object]) -> Entry:
    allowed = row["allowed"]
    names = frozenset(json.loads(str(allowed))) if allowed else None
    return Entry(str(row["name"]), int(str(row["uid"])), bool(row["open"]), names)
