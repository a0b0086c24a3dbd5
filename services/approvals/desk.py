"""Where a proposal comes to its next state: first its tag, then `main`, then its row with the news of it.

Every way to a state goes through `open` or `advance`, also that of the next start, which does again with the
note of the tag what a crash cut short: each step that is done already stays as it is.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from libhive.clock import Clock
from libhive.faults import reach
from libhive.messages.approvals import Proposal, ProposalState
from libhive.names import HIVE, MANAGER, AgentName, new_id
from libhive.paths import Paths
from libhive.problems import Conflict, NoSpace, Problem
from libhive.spec import MANAGER_FILES
from services.approvals import rules
from services.approvals.diff import visible
from services.approvals.repo import Repository, TagRef, repositories
from services.approvals.store import Head, Letter, Step, Store
from services.approvals.story import Note, Record, parse_tag, read_note, tag_message, tag_name

log = logging.getLogger("hive.approvals")


class Desk:
    """`changed` is called with each proposal that has come to another state, once that is durable."""

    def __init__(self, paths: Paths, store: Store, clock: Clock, changed: Callable[[Proposal], None]) -> None:
        self._paths, self._store, self._clock, self._changed = paths, store, clock, changed

    def repository(self, agent: AgentName, *, create: bool = False) -> Repository:
        path = self._paths.config(agent)
        return Repository.create(path) if create and not path.exists() else Repository(path)

    def present(self, record: Record, *more_tags: str) -> Proposal:
        """The proposal as others see it."""
        return _proposal(record, [*self._store.tags(record.number), *more_tags])

    def present_all(self, records: list[Record]) -> list[Proposal]:
        tags = self._store.tags_of([record.number for record in records])
        return [_proposal(record, tags.get(record.number, {})) for record in records]

    async def open(self, record: Record, note: Note) -> None:
        """A new proposal whose commit is written."""
        reach("proposed:after-commit")
        with self.repository(record.agent) as repo:
            tag = self._tag(repo, record, note)
        await self._store.add(Step(record=record, tag=tag))
        reach("proposed:after-row")
        self._changed(self.present(record))

    async def advance(self, record: Record, state: ProposalState, note: Note) -> Record:
        """Raises StaleApproval when it would be approved and `main` is not where it was."""
        after = rules.evolve(record, state, note)
        with self.repository(record.agent) as repo:
            if state == "approved":
                repo.check_main(record.base, record.commit)
            tag = self._tag(repo, after, note)
            if state == "approved":
                repo.move_main(record.base, record.commit)
                reach("approved:after-main")
        reply = self.present(after, tag_name(state, record.number))
        letter = _letter(record, state, note, tag)
        await self._store.follow(
            Step(record=after, tag=tag, letter=letter, command=note.command, reply=reply)
        )
        reach(f"{state}:after-row")
        log.info(state, extra={"number": after.number, "agent": after.agent, "by": note.by})
        self._changed(reply)
        return after

    async def settle(self) -> None:
        """Makes the rows agree with the repositories, in which everything is written first."""
        await self._make_manager()
        for agent, path in repositories(self._paths.config(MANAGER).parent):
            with Repository(path) as repo:
                repo.sweep()
                tags = repo.tags(lambda name: parse_tag(name) is not None)
                await self._follow_tags(agent, repo, tags)
                self._compare_main(agent, repo)

    async def _make_manager(self) -> None:
        """The manager's own configuration is built in: approved by nobody, deployed as number 0."""
        if self._store.head(MANAGER):
            return
        with self.repository(MANAGER, create=True) as repo:
            repo.sweep()
            made = repo.tags(lambda name: name == "deployed/0").get("deployed/0")
            note = Note(command=new_id(), by=HIVE, at_ms=self._clock())
            commit = made.commit if made else repo.head() or _first_commit(repo, note)
            repo.move_main("", commit)
            reach("manager:after-main")
            repo.tag("deployed/0", commit, tag_message("deployed", 0, note), note.at_ms)
            reach("manager:after-tag")
        await self._store.set_head(MANAGER, Head(commit, 0))

    def _tag(self, repo: Repository, record: Record, note: Note) -> str:
        message = tag_message(record.state, record.number, note)
        tag = repo.tag(tag_name(record.state, record.number), record.commit, message, note.at_ms)
        reach(f"{record.state}:after-tag")
        return tag

    async def _follow_tags(self, agent: AgentName, repo: Repository, tags: dict[str, TagRef]) -> None:
        found: dict[int, dict[ProposalState, TagRef]] = defaultdict(dict)
        for name, ref in tags.items():
            if parsed := parse_tag(name):
                found[parsed[1]][parsed[0]] = ref
        for number in sorted(found):
            try:
                await self._follow_story(agent, repo, number, found[number])
            except NoSpace:
                raise
            except Problem as problem:
                log.error(
                    "a story cannot be followed",
                    extra={"agent": agent, "number": number, "why": problem.message},
                )

    async def _follow_story(
        self, agent: AgentName, repo: Repository, number: int, found: dict[ProposalState, TagRef]
    ) -> None:
        record, known = self._store.proposal(number), self._store.tags(number)
        fresh = {state: ref for state, ref in found.items() if tag_name(state, number) not in known}
        for state in rules.unfinished(record.state if record else None, fresh):
            ref = fresh.pop(state)
            note = read_note(ref.message)
            if note is None or (record and (record.agent, record.commit) != (agent, ref.commit)):
                raise Conflict(f"{tag_name(state, number)} was not put there by the approvals")
            if record is None:
                record = _record(repo, agent, number, ref, note)
                await self.open(record, note)
            else:
                record = await self.advance(record, state, note)
            log.warning("finished what was cut short", extra={"agent": agent, "tag": tag_name(state, number)})
        if fresh:
            raise Conflict(
                f"no story has these tags: {', '.join(tag_name(state, number) for state in fresh)}"
            )

    def _compare_main(self, agent: AgentName, repo: Repository) -> None:
        head = self._store.head(agent)
        if repo.head() != (head.commit if head else ""):
            log.error("main is not where it was put", extra={"agent": agent, "main": repo.head()[:12]})


def _proposal(record: Record, tags: Iterable[str]) -> Proposal:
    """Its message is its requester's, so nothing in it stays invisible."""
    return Proposal(
        number=record.number,
        kind=record.kind,
        agent=record.agent,
        state=record.state,
        requester=record.requester,
        message=visible(record.message),
        created_ms=record.created_ms,
        decided_ms=record.decided_ms,
        decided_by=record.decided_by,
        reason=visible(record.reason),
        commit=record.commit,
        base=record.base,
        tags=sorted(tags),
    )


def _first_commit(repo: Repository, note: Note) -> str:
    return repo.commit(MANAGER_FILES, "", HIVE, "The manager's built-in configuration", note.at_ms).commit


def _record(repo: Repository, agent: AgentName, number: int, ref: TagRef, note: Note) -> Record:
    """A proposal as its commit and its first tag tell of it."""
    found = repo.snapshot(ref.commit)
    return Record(
        number=number,
        command=note.command,
        kind=note.kind,
        agent=agent,
        state="proposed",
        requester=note.by,
        message=found.message,
        rationale=note.rationale,
        created_ms=note.at_ms,
        base=found.parents[0] if found.parents else "",
        commit=ref.commit,
        tree=found.tree,
    )


def _letter(record: Record, state: ProposalState, note: Note, tag: str) -> Letter | None:
    """Its id is the tag's own, so the same news is never told twice, not even after the rows were lost."""
    news = rules.news_of(record, state, note)
    if news is None:
        return None
    return Letter(
        id=tag, at_ms=note.at_ms, recipient=news.to, what=news.what, body=news.body, details=news.details
    )
