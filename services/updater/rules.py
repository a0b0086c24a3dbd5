"""What the updater concludes from what others say. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from libhive.messages.broker import Peer
from libhive.messages.lifecycle import Agent, Desired
from libhive.messages.updater import DeployStep
from libhive.names import MANAGER, OPERATOR
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, Problem
from libhive.spec import AgentSpec, only_live
from services.updater.settings import Settings

ENDED: Final[tuple[DeployStep, ...]] = ("recorded", "failed")
SWITCHED_MAYBE: Final[tuple[DeployStep, ...]] = ("drained", "switched", "healthy")
"""After these the cage may run what is being deployed."""

Mood = Literal["away", "quiet", "turn", "unsure"]
Back = Literal["nothing", "apply", "stop"]


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent was before the deploy touched it: where to go back to."""

    desired: Desired
    revision: int
    generation: int
    spec: AgentSpec


def deploy_id(number: int, commit: str) -> str:
    """A proposal is deployed once; the commit tells it from one of that number in another life of the hive."""
    return hashlib.sha256(f"{number}:{commit}".encode()).hexdigest()[:32]


def command_id(deploy: str, step: str) -> str:
    """The same for the same step of the same deploy, whoever runs it how often."""
    return hashlib.sha256(f"{deploy}:{step}".encode()).hexdigest()[:32]


def previous_of(agent: Agent | None, never_well: bool) -> Previous | None:
    """None for an agent that there is not, or no more, or that an earlier deploy stopped since it never was well."""
    if agent is None or agent.desired == "destroyed" or (never_well and agent.desired == "stopped"):
        return None
    return Previous(
        desired=agent.desired, revision=agent.revision, generation=agent.generation, spec=agent.spec
    )


def on_rebuild(name: str, agent: Agent | None) -> None:
    if agent is None or agent.desired == "destroyed":
        raise NotFound(
            f"there is no agent {name} to rebuild", "to bring it back, ask for a new agent of that name"
        )


def on_purge(caller: str, name: str, confirm: str, agent: Agent | None) -> None:
    if caller != OPERATOR:
        raise NotAllowed("only the operator purges an agent")
    if name == MANAGER:
        raise NotAllowed(f"{MANAGER} cannot be purged", f"stop it instead: hive-admin stop {MANAGER}")
    if agent is None:
        raise NotFound(f"there is no agent {name!r}", "what is left of others: hive-admin gc")
    if confirm != name:
        raise BadRequest(f"type the agent's name to purge it: {name}")


def in_place(previous: Previous | None, spec: AgentSpec | None) -> bool:
    """Whether the deploy needs no new generation: what it changes is enforced outside of the cage."""
    return previous is not None and spec is not None and only_live(previous.spec, spec)


def taken(agent: Agent | None, revision: int, spec: AgentSpec | None) -> bool:
    return agent is not None and (agent.revision, agent.spec) == (revision, spec)


def mood(agent: Agent | None, peer: Peer | None) -> Mood:
    """Is it in a turn? A harness that is starting, or that cannot be heard, does not say."""
    if agent is None or agent.cage in ("absent", "stopped", "broken"):
        return "away"
    if peer is None or not peer.connected or peer.state in ("starting", "unknown"):
        return "unsure"
    return "turn" if peer.state == "running" or peer.turn else "quiet"


def may_switch(mood: Mood, seconds: float, settings: Settings) -> bool:
    """`seconds`: for how long it has been so. A turn is never cut, however long it takes."""
    if mood == "turn":
        return False
    limit = {"away": 0.0, "quiet": settings.quiet_seconds, "unsure": settings.unsure_seconds_max}[mood]
    return seconds >= limit


def waiting_for(mood: Mood) -> str:
    return {
        "away": "",
        "quiet": "making sure that no turn begins",
        "turn": "waiting for the running turn to end",
        "unsure": "waiting for its harness to say what it does",
    }[mood]


def healthy(agent: Agent | None, peer: Peer | None, after_generation: int) -> bool:
    """The harness of a generation that was started since is there, and neither starting nor failed."""
    if agent is None or peer is None or agent.generation <= after_generation:
        return False
    return (
        peer.connected
        and peer.generation == agent.generation
        and peer.state not in ("starting", "failed", "unknown")
    )


def condition(agent: Agent | None, peer: Peer | None) -> str:
    """What is to be said of a cage that is not healthy."""
    if agent is None:
        return "lifecycle does not know it"
    cage = f"its cage is {agent.cage}" + (f" ({agent.detail})" if agent.detail else "")
    if peer is None or not peer.connected or peer.generation != agent.generation:
        return f"{cage}, its harness is not connected"
    return f"{cage}, its harness is {peer.state}" + (f" ({peer.detail})" if peer.detail else "")


def on_unwell(name: str, agent: Agent | None, peer: Peer | None, seconds: float, settings: Settings) -> None:
    """Raises once waiting longer cannot be right."""
    if agent is None or agent.desired != "running":
        became = agent.desired if agent else "destroyed"
        raise Conflict(f"{name} was {became} while it was being deployed")
    if agent.cage == "broken":
        raise Conflict(
            f"{name} did not start: {condition(agent, peer)}", f"its log says why: hive-admin logs {name}"
        )
    if seconds >= settings.healthy_seconds_max:
        limit = f"{settings.healthy_seconds_max:g} s"
        raise Conflict(
            f"{name} was not healthy within {limit}: {condition(agent, peer)}", f"hive-admin logs {name}"
        )


def way_back(previous: Previous | None, agent: Agent | None, step: DeployStep) -> Back:
    """What undoes a deploy that failed after `step`."""
    if step not in SWITCHED_MAYBE or agent is None or agent.desired == "destroyed":
        return "nothing"
    if previous is None:
        return "stop"
    return "nothing" if (agent.revision, agent.spec) == (previous.revision, previous.spec) else "apply"


def sentence(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message
