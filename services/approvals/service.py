"""The approvals' verbs, and who may say them through which door."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from libhive import spec
from libhive.clients.broker import Broker
from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.link import Gap, Link
from libhive.messages.approvals import (
    Approve,
    ArchiveConfig,
    Archived,
    Config,
    Deny,
    Deployable,
    DeployableList,
    Deployables,
    Proposal,
    ProposalChanged,
    ProposalDetail,
    ProposalKind,
    ProposalList,
    Proposals,
    Propose,
    Proposed,
    ReadConfig,
    RecordDeploy,
    ShowProposal,
    Spawn,
)
from libhive.messages.base import Done
from libhive.messages.broker import Mailbox, MailboxChanged, MailboxPurged
from libhive.names import HIVE, MANAGER, AgentName, agent_name, new_id
from libhive.paths import Paths
from libhive.problems import BadRequest, Conflict, NoSpace, NotFound, Problem
from services.approvals import archive, rules
from services.approvals.desk import Desk
from services.approvals.diff import visible
from services.approvals.outbox import Outbox
from services.approvals.repo import Repository
from services.approvals.review import Review, review, with_host
from services.approvals.settings import Settings
from services.approvals.store import Store
from services.approvals.story import Note, Record, parse_tag

NUMBER_MAX = 2**31
"""A frame can carry greater numbers than a row can."""

log = logging.getLogger("hive.approvals")


class Approvals:
    name = "approvals"

    def __init__(
        self, paths: Paths, settings: Settings, store: Store, link: Link, clock: Clock = now_ms
    ) -> None:
        self._paths = paths
        self.settings, self.store, self.link, self.clock = settings, store, link, clock
        self.broker = Broker(link)
        self.desk = Desk(paths, store, clock, self._changed)
        self.outbox = Outbox(store, self.broker, settings)
        self._daemon: Daemon | None = None
        self._writing = asyncio.Lock()
        self._settled = False
        self._ready = asyncio.Event()
        """Nothing is told before what a crash cut short is finished."""
        self._mailboxes: dict[str, Mailbox] = {}

    def bus_handlers(self) -> Handlers:
        return {
            Approve: self.on_approve,
            ArchiveConfig: self.on_archive_config,
            Deny: self.on_deny,
            Deployables: self.on_deployables,
            Proposals: self.on_proposals,
            Propose: self.on_propose,
            ReadConfig: self.on_read_config,
            RecordDeploy: self.on_record_deploy,
            ShowProposal: self.on_show_proposal,
            Spawn: self.on_spawn,
        }

    def door_handlers(self) -> Handlers:
        """The manager's. Nothing here decides."""
        return {
            Proposals: self.on_proposals,
            Propose: self.on_propose,
            ReadConfig: self.on_read_config,
            ShowProposal: self.on_show_proposal,
            Spawn: self.on_spawn,
        }

    async def start(self, daemon: Daemon) -> None:
        self._daemon = daemon
        with contextlib.suppress(NoSpace):  # what can be read is served; the next change settles first
            async with self._changes():
                pass
        self._ready.set()
        daemon.spawn(self.outbox.run(), "outbox")
        daemon.spawn(self._watch_mailboxes(daemon), "mailboxes")
        daemon.spawn(self._expire(), "expiry")

    async def stop(self) -> None:
        await self.link.close()
        self.store.close()

    async def on_propose(self, call: Call, m: Propose) -> Proposed:
        return await self._propose(call, "change_config", m.agent, m.files, m.message, m.rationale)

    async def on_spawn(self, call: Call, m: Spawn) -> Proposed:
        files = spec.files_for(m.prompt, m.model, m.packages)
        return await self._propose(
            call, "create_agent", m.agent, files, f"A new agent: {m.agent}", m.rationale
        )

    async def on_read_config(self, call: Call, m: ReadConfig) -> Config:
        await self._ready.wait()
        agent = agent_name(m.agent)
        head = self.store.head(agent)
        if head is None:
            raise NotFound(
                f"there is no approved configuration of {agent}", "who is there: hive-admin agents"
            )
        files = self._files(agent, head.commit)
        return Config(
            agent=agent, revision=head.revision, commit=head.commit, files=files, spec=spec.resolve(files)
        )

    async def on_proposals(self, call: Call, m: Proposals) -> ProposalList:
        await self._ready.wait()
        records = self.store.newest(("proposed",) if m.open_only else None, m.limit)
        return ProposalList(proposals=self.desk.present_all(records))

    async def on_show_proposal(self, call: Call, m: ShowProposal) -> ProposalDetail:
        await self._ready.wait()
        record = self._record(m.number)
        seen, standing = self._examine(record)
        return ProposalDetail(
            proposal=self.desk.present(record),
            effect=await with_host(seen.effect, seen.root),
            diff=seen.diff,
            rationale=visible(record.rationale),
            digest=seen.digest,
            blocked=rules.blocked(record, standing),
        )

    async def on_approve(self, call: Call, m: Approve) -> Proposal:
        rules.only_operator(call.caller)
        async with self._changes():
            if answered := self.store.answered(call.id):
                return answered
            record = self._record(m.number)
            _, standing = self._examine(record)
            if record.state == rules.OPEN and (stale := rules.stale_reason(standing)):
                await self._void(record, stale)
            rules.on_approve(record, standing, m.digest)
            return self.desk.present(
                await self.desk.advance(record, "approved", self._note(call, digest=m.digest))
            )

    async def on_archive_config(self, call: Call, m: ArchiveConfig) -> Archived:
        rules.only_hive(call.caller)
        agent = agent_name(m.agent)
        rules.on_archive(agent, (box := self._mailboxes.get(agent)) is not None and box.open)
        async with self._changes():
            for record in self.store.in_states(("proposed", "approved", "building")):
                if record.agent == agent:
                    await self._void(record, f"{agent} was purged")
            place = archive.put_aside(self._paths, agent, self.clock())
            await self.store.drop_head(agent)
            self._mailboxes.pop(agent, None)
        return Archived(path=place)

    async def on_deny(self, call: Call, m: Deny) -> Proposal:
        rules.only_operator(call.caller)
        async with self._changes():
            if answered := self.store.answered(call.id):
                return answered
            record = self._record(m.number)
            rules.on_decide(record)
            return self.desk.present(await self.desk.advance(record, "denied", self._note(call, m.reason)))

    async def on_deployables(self, call: Call, m: Deployables) -> DeployableList:
        async with self._changes():
            found = [
                await self._deployable(record) for record in self.store.in_states(("approved", "building"))
            ]
        return DeployableList(deployables=[each for each in found if each])

    async def on_record_deploy(self, call: Call, m: RecordDeploy) -> Done:
        rules.only_hive(call.caller)
        async with self._changes():
            record = self._record(m.number)
            if record.state != m.step:
                rules.on_step(record, m.step)
                await self.desk.advance(
                    record, m.step, self._note(call, m.detail if m.step == "failed" else "")
                )
        return Done()

    async def _propose(
        self, call: Call, kind: ProposalKind, name: str, files: dict[str, str], message: str, rationale: str
    ) -> Proposed:
        async with self._changes():
            if (made := self.store.by_command(call.id)) and made.requester == call.caller:
                return Proposed(number=made.number)
            agent, now = agent_name(name), self.clock()
            target = self._target(agent)
            (rules.on_spawn if kind == "create_agent" else rules.on_change)(target)
            rules.check_text(files, message)
            recent = self.store.made_since(call.caller, now - rules.HOUR_MS)
            rules.on_propose(target, call.caller, recent, now, self.settings)
            note = Note(command=call.id, by=call.caller, at_ms=now, kind=kind, rationale=rationale)
            record = self._write(agent, target, note, files, message.strip())
            await self.desk.open(record, note)
        log.info("proposed", extra={"number": record.number, "agent": agent, "by": call.caller})
        return Proposed(number=record.number)

    def _write(
        self, agent: AgentName, target: rules.Target, note: Note, files: dict[str, str], message: str
    ) -> Record:
        """The commit; raises BadRequest, with nothing written, when nothing would change or it says nothing."""
        old = self._files(agent, target.base) if target.base else {}
        new = files if note.kind == "create_agent" else old | files
        if new == old and not target.destroyed:
            raise BadRequest(
                f"nothing would change for {agent}", "propose files that differ from the approved ones"
            )
        spec.resolve(new)
        with self.desk.repository(agent, create=True) as repo:
            written = repo.commit(new, target.base, note.by, message, note.at_ms)
        return Record(
            number=self.store.next_number(),
            command=note.command,
            kind=note.kind,
            agent=agent,
            state="proposed",
            requester=note.by,
            message=message,
            rationale=note.rationale,
            created_ms=note.at_ms,
            base=target.base,
            commit=written.commit,
            tree=written.tree,
        )

    def _files(self, agent: AgentName, main: str) -> dict[str, str]:
        """What is approved; raises Conflict when `main` was moved by somebody else."""
        with self.desk.repository(agent) as repo:
            if repo.head() != main:
                why = f"main of {agent} is not where the approvals put it"
                raise Conflict(why, "compare it with its approved tags")
            return repo.snapshot(main).files

    def _target(self, agent: AgentName) -> rules.Target:
        head = self.store.head(agent)
        return rules.Target(
            agent, head.commit if head else "", self._destroyed(agent), self.store.open_for(agent)
        )

    def _destroyed(self, agent: AgentName) -> bool:
        """As far as the broker has said: a mailbox that is known and closed."""
        mailbox = self._mailboxes.get(agent)
        return mailbox is not None and not mailbox.open

    def _examine(self, record: Record) -> tuple[Review, rules.Standing]:
        if not self._paths.config(record.agent).is_dir():
            raise NotFound(
                f"the configuration of {record.agent} is not here any more",
                f"an agent that was purged has it in {self._paths.archive}",
            )
        with self.desk.repository(record.agent) as repo:
            seen = review(repo, record, self.settings)
            standing = rules.Standing(
                digest=seen.digest,
                base_moved=repo.head() != record.base,
                tags_moved=self._tags_moved(repo, record),
                destroyed=self._destroyed(record.agent),
                blocked=seen.blocked,
            )
        return seen, standing

    def _tags_moved(self, repo: Repository, record: Record) -> bool:
        """Does the repository tell another story of this proposal than the one that was written?"""
        found = repo.tags(lambda name: (parsed := parse_tag(name)) is not None and parsed[1] == record.number)
        wrong_place = any(ref.commit != record.commit for ref in found.values())
        return wrong_place or {name: ref.object for name, ref in found.items()} != self.store.tags(
            record.number
        )

    async def _deployable(self, record: Record) -> Deployable | None:
        """What the updater may run: exactly what was approved, or it is void."""
        try:
            with self.desk.repository(record.agent) as repo:
                if self._tags_moved(repo, record):
                    raise Conflict(rules.TAGS_MOVED)
                found = spec.resolve(repo.snapshot(record.commit).files)
        except Problem as problem:
            await self._void(record, problem.message)
            return None
        return Deployable(
            kind=record.kind,
            number=record.number,
            agent=record.agent,
            commit=record.commit,
            state=record.state,
            spec=found,
        )

    async def _void(self, record: Record, why: str) -> None:
        """What can no longer be what was reviewed. Its command is its own: nobody asked for this."""
        log.error("a proposal is void", extra={"number": record.number, "agent": record.agent, "why": why})
        note = Note(command=new_id(), by=HIVE, at_ms=self.clock(), reason=why)
        await self.desk.advance(record, "failed" if record.state == "building" else "stale", note)

    def _record(self, number: int) -> Record:
        record = self.store.proposal(number) if 0 < number <= NUMBER_MAX else None
        if record is None:
            raise NotFound(f"there is no proposal {number}", "which there are: hive-admin proposals")
        return record

    def _note(self, call: Call, reason: str = "", digest: str = "") -> Note:
        return Note(command=call.id, by=call.caller, at_ms=self.clock(), reason=reason, digest=digest)

    @contextlib.asynccontextmanager
    async def _changes(self) -> AsyncIterator[None]:
        """One change at a time, each from a settled state: what fails between repository and rows, because
        the disk is full or the caller has gone, is finished before the next."""
        async with self._writing:
            if not self._settled:
                await self.desk.settle()
            self._settled = False
            try:
                yield
            except Problem as problem:
                self._settled = not isinstance(problem, NoSpace)
                raise
            self._settled = True

    def _changed(self, proposal: Proposal) -> None:
        self.outbox.wake()
        if self._daemon:
            self._daemon.publish(ProposalChanged(proposal=proposal))

    async def _expire(self) -> None:
        while True:
            with contextlib.suppress(NoSpace):
                await self._expire_old()
            await asyncio.sleep(self.settings.expiry_check_seconds)

    async def _expire_old(self) -> None:
        async with self._changes():
            for record in self.store.in_states(("proposed",)):
                if rules.expired(record, self.clock(), self.settings):
                    reason = f"nobody decided for {self.settings.proposal_open_days_max} days"
                    note = Note(command=new_id(), by=HIVE, at_ms=self.clock(), reason=reason)
                    await self.desk.advance(record, "expired", note)

    async def _watch_mailboxes(self, daemon: Daemon) -> None:
        async for event in self.link.events("broker"):
            if isinstance(event, Gap):
                await self._fetch_mailboxes(daemon)
            elif isinstance(event, MailboxPurged):
                self._mailboxes.pop(event.name, None)
            elif isinstance(event, MailboxChanged):
                await self._on_mailbox(daemon, event.mailbox)

    async def _fetch_mailboxes(self, daemon: Daemon) -> None:
        while True:
            try:
                found = await self.broker.mailboxes()
                self._mailboxes = {mailbox.name: mailbox for mailbox in found}
                for mailbox in found:
                    await self._on_mailbox(daemon, mailbox)
                return
            except Problem as problem:
                log.debug("mailboxes unknown: %s", problem.message)
                await asyncio.sleep(self.settings.retry_seconds_min)

    async def _on_mailbox(self, daemon: Daemon, mailbox: Mailbox) -> None:
        """The manager's door stands as long as the manager has a mailbox; nobody else has one."""
        self._mailboxes[mailbox.name] = mailbox
        if mailbox.name != MANAGER:
            return
        if mailbox.open:
            await daemon.doors.open(MANAGER, mailbox.uid)
        else:
            await daemon.doors.close(MANAGER)
