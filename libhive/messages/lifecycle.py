"""The lifecycle's vocabulary: agents, their desired state, their cages."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Count, Done, Event, Reply, Request
from libhive.names import Name
from libhive.spec import AgentSpec, RootKind

Desired = Literal["running", "stopped", "destroyed"]
CageState = Literal["absent", "starting", "running", "stopping", "stopped", "broken", "unknown"]
EXEC_OUTPUT_BYTES_MAX = 200_000


class Agent(Reply, frozen=True, kw_only=True):
    """One row of the registry, and what the kernel says of its cage."""

    name: str
    desired: Desired
    cage: CageState
    cage_kind: str
    """`bubblewrap`, `process` or `nspawn`."""
    revision: int
    """The number of the proposal that its configuration came from; 0: built in."""
    generation: int
    """Counts the starts of the cage."""
    uid: int
    page_port: int
    """Before the shift by the dashboard's own port: 8000 for the manager, 8100-8999 for the others."""
    pid: int = 0
    since_ms: int = 0
    detail: str = ""
    controls: list[str] = []
    """Which controls hold this cage (`uid`, `seccomp`, `no-network`, `read-only-root` ...)."""
    spec: AgentSpec


class AgentList(Reply, frozen=True, kw_only=True):
    agents: list[Agent]


class Agents(Request[AgentList], frozen=True, kw_only=True):
    KIND = "lifecycle.agents"
    REPLY = AgentList


class Apply(Request[Agent], frozen=True, kw_only=True):
    """Updater: run this configuration. Creates the agent, with `revive` also one that was destroyed; restarts a running
    cage. With `in_place` it leaves the cage as it is, and takes only what is enforced outside of it."""

    KIND = "lifecycle.apply"
    REPLY = Agent

    name: Name
    revision: Count
    spec: AgentSpec
    revive: bool = False
    in_place: bool = False


class Root(Reply, frozen=True, kw_only=True):
    """What a cage has for its `/usr`: a builder's work, shared by all agents that asked for the same."""

    key: str
    """A hash of all that decided what is in it; empty for the host's own."""
    builder: RootKind
    state: Literal["building", "failed", "ready"]
    detail: str = ""
    """What the builder does just now, or why it failed."""
    packages: dict[str, str] = {}
    """What is in it, with versions, once it is ready."""
    size_bytes: int = 0
    built_ms: int = 0
    agents: list[str] = []
    """Whose cages are made from it, by what is wanted of them now."""


class Prepare(Request[Root], frozen=True, kw_only=True):
    """Updater: see that the root of this configuration is there. Answered at once; a build goes on meanwhile, and the
    same id asks again how far it is. A build that failed is the answer to whoever asked for it."""

    KIND = "lifecycle.prepare"
    REPLY = Root

    spec: AgentSpec


class RootList(Reply, frozen=True, kw_only=True):
    roots: list[Root]


class Roots(Request[RootList], frozen=True, kw_only=True):
    """The newest first, without their packages; with `key` that one alone, with them."""

    KIND = "lifecycle.roots"
    REPLY = RootList

    key: Annotated[str, msgspec.Meta(max_length=80)] = ""


class Start(Request[Agent], frozen=True, kw_only=True):
    KIND = "lifecycle.start"
    REPLY = Agent

    name: Name


class Stop(Request[Agent], frozen=True, kw_only=True):
    KIND = "lifecycle.stop"
    REPLY = Agent

    name: Name


class Restart(Request[Agent], frozen=True, kw_only=True):
    KIND = "lifecycle.restart"
    REPLY = Agent

    name: Name


class Destroy(Request[Agent], frozen=True, kw_only=True):
    """Ends the cage and closes the mailbox; mail, /state and the config repository stay. The operator's alone."""

    KIND = "lifecycle.destroy"
    REPLY = Agent

    name: Name


class Forget(Request[Done], frozen=True, kw_only=True):
    """Updater: remove a destroyed agent's /state, logs and row. Its number, and so its user, is never given again."""

    KIND = "lifecycle.forget"
    REPLY = Done

    name: Name


class LogText(Reply, frozen=True, kw_only=True):
    text: str


class Logs(Request[LogText], frozen=True, kw_only=True):
    """The last lines of what the cage wrote on its standard output and error."""

    KIND = "lifecycle.logs"
    REPLY = LogText

    name: Name
    lines: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 100


class Executed(Reply, frozen=True, kw_only=True):
    """`output` is stdout and stderr as they came, at most EXEC_OUTPUT_BYTES_MAX; `exit_code` -1: it was cut off."""

    exit_code: Annotated[int, msgspec.Meta(ge=-255, le=255)]
    output: str
    truncated: bool = False


class Exec(Request[Executed], frozen=True, kw_only=True):
    """Operator: run a command inside the agent's cage, as the agent, under the same controls."""

    KIND = "lifecycle.exec"
    REPLY = Executed

    name: Name
    argv: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 30


class StopAll(Request[Done], frozen=True, kw_only=True):
    """The hive is going down: end every cage, without changing what is desired of it."""

    KIND = "lifecycle.stop_all"
    REPLY = Done


class Leftover(Reply, frozen=True, kw_only=True):
    """Something of an agent that nobody needs any more."""

    kind: Literal["cage", "group", "log", "root", "run", "state", "unit"]
    agent: str
    """Empty for a root: those are shared."""
    path: str
    """Where it is, on the host; of a cage the numbers of its processes, of a unit its name."""
    why: str
    bytes: int = 0
    removed: bool = False
    problem: str = ""
    """Why it could not be removed."""


class Leftovers(Reply, frozen=True, kw_only=True):
    leftovers: list[Leftover]
    more: bool = False
    """There are more than one reply carries."""


class CollectGarbage(Request[Leftovers], frozen=True, kw_only=True):
    """Operator: what this host has of agents that no registry knows, and of cages that have ended. A dry run unless
    `apply`."""

    KIND = "lifecycle.collect_garbage"
    REPLY = Leftovers

    apply: bool = False


class AgentForgotten(Event, frozen=True, kw_only=True):
    KIND = "lifecycle.agent_forgotten"
    name: str


class RootChanged(Event, frozen=True, kw_only=True):
    """A build went on, ended or failed; without the packages."""

    KIND = "lifecycle.root_changed"
    root: Root


class AgentChanged(Event, frozen=True, kw_only=True):
    KIND = "lifecycle.agent_changed"
    agent: Agent
