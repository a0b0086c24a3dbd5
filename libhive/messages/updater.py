"""The updater's vocabulary: deploys and their steps."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Event, Reply, Request
from libhive.names import Name

PurgeStep = Literal["asked", "destroyed", "mail", "usage", "archived", "purged"]
DeployStep = Literal["approved", "resolved", "built", "drained", "switched", "healthy", "recorded", "failed"]


class Deploy(Reply, frozen=True, kw_only=True):
    """One entry of the journal: what is being rolled out to whom, and the last step that is done."""

    id: str
    agent: str
    proposal: int
    """0: no proposal, a rebuild of what is approved."""
    step: DeployStep
    started_ms: int
    updated_ms: int
    detail: str = ""
    root: str = ""
    """The key of the root that was built for it, or found: what is in it says `lifecycle.roots`."""


class Rebuild(Request[Deploy], frozen=True, kw_only=True):
    """Bring up a new generation of the agent's approved configuration, draining the running turn first."""

    KIND = "updater.rebuild"
    REPLY = Deploy

    agent: Name


class DeployList(Reply, frozen=True, kw_only=True):
    deploys: list[Deploy]


class Deploys(Request[DeployList], frozen=True, kw_only=True):
    """The newest first."""

    KIND = "updater.deploys"
    REPLY = DeployList

    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Purge(Reply, frozen=True, kw_only=True):
    """One purge of the journal, and the last step that is done. It goes on until it is `purged`, whatever is killed."""

    id: str
    agent: str
    step: PurgeStep
    started_ms: int
    updated_ms: int
    detail: str = ""
    """What it waits for."""
    archive: str = ""
    """Where the agent's configuration is kept now, on the host."""


class PurgeAgent(Request[Purge], frozen=True, kw_only=True):
    """Operator: remove an agent for ever; only its configuration is kept, aside. Answered when it has begun.
    `confirm` is its name once more."""

    KIND = "updater.purge_agent"
    REPLY = Purge

    agent: Name
    confirm: Annotated[str, msgspec.Meta(max_length=64)]


class PurgeList(Reply, frozen=True, kw_only=True):
    purges: list[Purge]


class Purges(Request[PurgeList], frozen=True, kw_only=True):
    """The newest first."""

    KIND = "updater.purges"
    REPLY = PurgeList

    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class PurgeChanged(Event, frozen=True, kw_only=True):
    KIND = "updater.purge_changed"
    purge: Purge


class DeployChanged(Event, frozen=True, kw_only=True):
    KIND = "updater.deploy_changed"
    deploy: Deploy
