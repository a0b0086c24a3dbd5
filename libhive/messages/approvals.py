"""The approvals' vocabulary: configurations, proposals, decisions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Count, Done, Event, Reply, Request
from libhive.names import Name
from libhive.spec import AgentSpec

ProposalKind = Literal["create_agent", "change_config"]
ProposalState = Literal[
    "proposed", "approved", "building", "deployed", "failed", "denied", "cancelled", "expired", "stale"
]
Risk = Literal["none", "low", "medium", "high"]

FILE_CHARACTERS_MAX = 60_000
Text = Annotated[str, msgspec.Meta(max_length=8_000)]
FileText = Annotated[str, msgspec.Meta(max_length=FILE_CHARACTERS_MAX)]
Files = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=100)], FileText], msgspec.Meta(min_length=1, max_length=8)
]


class EffectLine(Reply, frozen=True, kw_only=True):
    """One thing that would be different, computed from the two resolved configurations."""

    field: str
    risk: Risk
    before: str
    after: str
    note: str = ""
    """What a person should know, e.g. that a package is missing on this host."""


class FileDiff(Reply, frozen=True, kw_only=True):
    """The exact change of one blob as unified-diff lines, nothing cut; unusual characters made visible."""

    path: str
    change: Literal["added", "changed", "removed"]
    lines: list[str]
    warnings: list[str] = []


class Proposal(Reply, frozen=True, kw_only=True):
    number: int
    kind: ProposalKind
    agent: str
    state: ProposalState
    requester: str
    message: str
    created_ms: int
    decided_ms: int = 0
    decided_by: str = ""
    reason: str = ""
    """Why it was denied, failed, or went stale."""
    commit: str = ""
    base: str = ""
    tags: list[str] = []


class ProposalDetail(Reply, frozen=True, kw_only=True):
    """Everything the operator decides on. `digest` binds a decision to repository, base, commit, tree and effect."""

    proposal: Proposal
    effect: list[EffectLine]
    diff: list[FileDiff]
    rationale: str
    """The requester's own words; to be shown last and marked as such."""
    digest: str
    blocked: str = ""
    """Why it cannot be approved, if so (its base has moved, it is already decided ...)."""


class Proposed(Reply, frozen=True, kw_only=True):
    number: int


class Propose(Request[Proposed], frozen=True, kw_only=True):
    """A commit made of these files on top of the agent's approved configuration. `files` replaces whole files."""

    KIND = "approvals.propose"
    REPLY = Proposed

    agent: Name
    files: Files
    message: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    rationale: Text = ""


class Spawn(Request[Proposed], frozen=True, kw_only=True):
    """Propose a new agent."""

    KIND = "approvals.spawn"
    REPLY = Proposed

    agent: Name
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=FILE_CHARACTERS_MAX)]
    model: Annotated[str, msgspec.Meta(max_length=80)] = ""
    packages: list[str] = []
    rationale: Text = ""


class Config(Reply, frozen=True, kw_only=True):
    """The approved configuration: the files as they are on `main`, and what they resolve to."""

    agent: str
    revision: int
    commit: str
    files: dict[str, str]
    spec: AgentSpec


class ReadConfig(Request[Config], frozen=True, kw_only=True):
    KIND = "approvals.read_config"
    REPLY = Config

    agent: Name


class ProposalList(Reply, frozen=True, kw_only=True):
    proposals: list[Proposal]


class Proposals(Request[ProposalList], frozen=True, kw_only=True):
    """The newest first."""

    KIND = "approvals.list"
    REPLY = ProposalList

    open_only: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class ShowProposal(Request[ProposalDetail], frozen=True, kw_only=True):
    KIND = "approvals.show"
    REPLY = ProposalDetail

    number: Count


class Approve(Request[Proposal], frozen=True, kw_only=True):
    """Operator: deploy exactly what `digest` was computed from. Good once."""

    KIND = "approvals.approve"
    REPLY = Proposal

    number: Count
    digest: str


class Deny(Request[Proposal], frozen=True, kw_only=True):
    KIND = "approvals.deny"
    REPLY = Proposal

    number: Count
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class Deployable(Reply, frozen=True, kw_only=True):
    """An approved proposal whose deploy has not ended."""

    number: int
    kind: ProposalKind
    agent: str
    commit: str
    state: ProposalState
    spec: AgentSpec


class DeployableList(Reply, frozen=True, kw_only=True):
    deployables: list[Deployable]


class Deployables(Request[DeployableList], frozen=True, kw_only=True):
    """Updater: what is approved and not yet deployed or failed, oldest first."""

    KIND = "approvals.deployables"
    REPLY = DeployableList


class RecordDeploy(Request[Done], frozen=True, kw_only=True):
    """Updater: the deploy of this proposal has come so far; makes the tag and wakes the requester."""

    KIND = "approvals.record_deploy"
    REPLY = Done

    number: Count
    step: Literal["building", "deployed", "failed"]
    detail: Text = ""


class Archived(Reply, frozen=True, kw_only=True):
    path: str
    """Where the repository is now, on the host; empty when there was none."""


class ArchiveConfig(Request[Archived], frozen=True, kw_only=True):
    """Updater: put a destroyed agent's repository aside. Its proposals that were not deployed are void."""

    KIND = "approvals.archive_config"
    REPLY = Archived

    agent: Name


class ProposalChanged(Event, frozen=True, kw_only=True):
    KIND = "approvals.proposal_changed"
    proposal: Proposal
