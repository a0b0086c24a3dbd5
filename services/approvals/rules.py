"""What is allowed when, and what is to be told to whom. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from libhive.messages.approvals import ProposalState
from libhive.names import HIVE, MANAGER, OPERATOR
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, StaleApproval, TooMany
from services.approvals.settings import Settings
from services.approvals.story import NEXT, ORDER, Note, Record

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OPEN = "proposed"
TAGS_MOVED = "its tags in the repository are not where they were put"


@dataclass(frozen=True, slots=True)
class Target:
    """What is known of the agent that a proposal is about."""

    agent: str
    base: str
    """The commit `main` is at; empty when nothing was ever approved."""
    destroyed: bool
    open_number: int
    """The proposal for it that waits for the operator; 0: none."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision is checked against, as the repository has it at that moment."""

    digest: str
    base_moved: bool
    tags_moved: bool
    destroyed: bool
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class News:
    to: str
    what: str
    body: str
    details: dict[str, str]


def on_spawn(target: Target) -> None:
    if target.base and not target.destroyed:
        raise Conflict(
            f"{target.agent} exists already", "to change it, propose a change of its configuration"
        )


def on_change(target: Target) -> None:
    if not target.base:
        raise NotFound(f"there is no agent {target.agent}", "to make one, ask for a new agent")
    if target.destroyed:
        raise Conflict(f"{target.agent} was destroyed", "to bring it back, ask for a new agent of that name")


def on_propose(
    target: Target, requester: str, recent_ms: Sequence[int], now_ms: int, settings: Settings
) -> None:
    """`recent_ms`: when this requester's newest proposals were made. The operator has no limit of her own."""
    if target.open_number:
        raise Conflict(
            f"proposal {target.open_number} for {target.agent} is still waiting for the operator",
            "wait until it is decided; you will be told",
            {"proposal": str(target.open_number)},
        )
    within = sorted(at for at in recent_ms if at > now_ms - HOUR_MS)
    if requester != OPERATOR and len(within) >= settings.proposals_per_agent_hour_max:
        minutes = (within[-settings.proposals_per_agent_hour_max] + HOUR_MS - now_ms) // 60_000 + 1
        raise TooMany(
            f"{requester} has made {len(within)} proposals within an hour; no more are taken",
            f"try again in {minutes} minutes, with everything in one proposal",
        )


def check_text(files: Mapping[str, str], message: str) -> None:
    """Text that git or a reader could take for something else is refused before anything is written."""
    for name, text in [*files.items(), ("the message", message)]:
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise BadRequest(f"{name!r:.120} holds a character that is not text (NUL or a lone surrogate)")
    if not message.strip():
        raise BadRequest("the message is empty", "say in a line what the change is")


def only_operator(caller: str) -> None:
    if caller != OPERATOR:
        raise NotAllowed("only the operator decides on a proposal")


def only_hive(caller: str) -> None:
    if caller != HIVE:
        raise NotAllowed("only the updater records a deploy")


def on_archive(agent: str, is_open: bool) -> None:
    if agent == MANAGER:
        raise NotAllowed(f"the configuration of {MANAGER} is built in")
    if is_open:
        raise Conflict(f"{agent} is not destroyed", f"destroy it first: hive-admin destroy {agent}")


def on_decide(record: Record) -> None:
    if record.state != OPEN:
        raise Conflict(f"proposal {record.number} is already {record.state}", "a decision is good once")


def stale_reason(standing: Standing) -> str:
    """Why the proposal can never be approved any more; empty when it still can."""
    if standing.tags_moved:
        return TAGS_MOVED
    if standing.base_moved:
        return "the configuration it was made for is no longer the approved one"
    return ""


def blocked(record: Record, standing: Standing) -> str:
    """Why an approval would be refused, for whoever looks at the proposal; empty when it would not."""
    if record.state != OPEN:
        return f"it is already {record.state}"
    if record.kind == "change_config" and standing.destroyed:
        return f"{record.agent} was destroyed in the meantime"
    return stale_reason(standing) or standing.blocked


def on_approve(record: Record, standing: Standing, digest: str) -> None:
    if record.state == "stale":
        raise StaleApproval(f"proposal {record.number} is stale: {record.reason}")
    on_decide(record)
    if stale := stale_reason(standing):
        raise StaleApproval(f"proposal {record.number} is stale: {stale}")
    if why := blocked(record, standing):
        raise Conflict(
            f"proposal {record.number} cannot be approved: {why}", "deny it, and say what to do instead"
        )
    if not standing.digest or digest != standing.digest:
        raise StaleApproval(f"what was reviewed is not what proposal {record.number} would deploy")


def on_step(record: Record, state: ProposalState) -> None:
    if state not in NEXT.get(record.state, ()):
        raise Conflict(f"proposal {record.number} is {record.state}, it cannot become {state}")


def unfinished(state: ProposalState | None, found: Collection[ProposalState]) -> list[ProposalState]:
    """The states whose tags are in the repository and not in the row yet, in the order in which to follow
    them.

    `state` is the row's, None without one. A tag that no story allows ends the list.
    """
    steps: list[ProposalState] = []
    for after in sorted(found, key=ORDER.index):
        allowed = (OPEN,) if state is None else NEXT.get(state, ())
        if after not in allowed:
            break
        steps.append(after)
        state = after
    return steps


def evolve(record: Record, state: ProposalState, note: Note) -> Record:
    """The proposal as it is once it has come to `state`. Who decided, and when, stays as it was decided."""
    reason = note.reason or record.reason
    if record.decided_ms:
        return replace(record, state=state, reason=reason)
    return replace(record, state=state, reason=reason, decided_ms=note.at_ms, decided_by=note.by)


def expired(record: Record, now_ms: int, settings: Settings) -> bool:
    return record.state == OPEN and now_ms - record.created_ms > settings.proposal_open_days_max * DAY_MS


def news_of(record: Record, state: ProposalState, note: Note) -> News | None:
    """What the requester is told when the proposal has become `state`; None: nothing."""
    about = {"proposal": str(record.number), "agent": record.agent}
    title = f"Proposal {record.number} ({record.agent}: {record.message.splitlines()[0][:200]})"
    because = f": {note.reason}" if note.reason else ""
    if record.requester == HIVE or state in (OPEN, "building"):
        return None
    if state == "deployed":
        return News(record.requester, "deployed", f"{title} is deployed; {record.agent} runs it now.", about)
    if state == "failed":
        details = about | {"reason": note.reason}
        return News(record.requester, "deploy_failed", f"{title} could not be deployed{because}.", details)
    by = f" by {note.by}" if note.by not in ("", HIVE) else ""
    decision = about | {"decision": state, "reason": note.reason}
    return News(record.requester, "proposal_decided", f"{title} is {state}{by}{because}.", decision)
