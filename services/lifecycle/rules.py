"""What should happen, decided without touching the world: commands on the registry, failures, the reconciler's steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from libhive.messages.base import Done, Request
from libhive.messages.broker import CloseMailbox, News, OpenMailbox
from libhive.messages.lifecycle import CageState, Desired, Root
from libhive.names import MANAGER, OPERATOR
from libhive.problems import Conflict, NotAllowed, NotFound, TooMany
from libhive.spec import AgentSpec, only_live
from services.lifecycle.settings import Settings

UidOf = Callable[[int], int]
Phase = Literal["unknown", "starting", "running", "stopping", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One agent in the registry. A cage may be kept only if its generation is above `stale_generation`."""

    name: str
    number: int
    page_port: int
    desired: Desired
    spec: AgentSpec
    revision: int
    generation: int = 0
    stale_generation: int = 0
    broken: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The row as it is to be, what the broker has to be told, and whether past failures are forgotten."""

    row: Row
    letters: tuple[Request[Done], ...] = ()
    forgive: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What the reconciler does next about one agent; `rest` until something changes, `wait` until an instant."""

    do: Literal["start", "stop", "wait", "rest"]
    until_ms: int = 0


# ---- commands


def new_row(name: str, rows: Collection[Row], settings: Settings, last_number: int = 0) -> Row:
    """An agent that never was: the next number, and the lowest free port. The number, which makes its user, was never
    another agent's, not even one's that was purged (`last_number` is the greatest of those)."""
    if len(rows) >= settings.agents_max:
        raise TooMany(f"this hive has had {len(rows)} agents, and there are no more ports for their pages")
    number = 1 + max((row.number for row in rows), default=0)
    number = max(number, 1 + last_number)
    ports = set(range(settings.page_port_first, settings.page_port_last + 1)) - {
        row.page_port for row in rows
    }
    port = settings.page_port_manager if name == MANAGER else min(ports)
    return Row(name=name, number=number, page_port=port, desired="running", spec=AgentSpec(), revision=0)


def on_apply(row: Row, revision: int, spec: AgentSpec, uid_of: UidOf, *, revive: bool = False) -> Change:
    if not revive:
        _expect_not_destroyed(row)
    wanted = replace(_fresh(row), desired="running", revision=revision, spec=spec)
    return Change(wanted, (open_mailbox(wanted, uid_of),), forgive=True)


def on_apply_in_place(row: Row, revision: int, spec: AgentSpec, uid_of: UidOf) -> Change:
    """Its cage, and whether it is to run, stay as they are: gateway and broker enforce what is new."""
    _expect_not_destroyed(row)
    if spec != row.spec and not only_live(row.spec, spec):
        raise Conflict(f"more of {row.name} has changed than a cage that runs can take")
    changed = replace(row, revision=revision, spec=spec)
    return Change(changed, (open_mailbox(changed, uid_of),))


def on_start(row: Row) -> Change:
    """Also what gives a broken agent another chance."""
    _expect_not_destroyed(row)
    return Change(replace(row, desired="running", broken=False, detail=""), forgive=True)


def on_stop(row: Row) -> Change:
    _expect_not_destroyed(row)
    return Change(replace(row, desired="stopped", broken=False, detail=""))


def on_restart(row: Row) -> Change:
    _expect_not_destroyed(row)
    return Change(replace(_fresh(row), desired="running"), forgive=True)


def on_destroy(row: Row) -> Change:
    if row.name == MANAGER:
        raise NotAllowed(f"{MANAGER} cannot be destroyed", f"stop it instead: hive-admin stop {MANAGER}")
    return Change(
        replace(row, desired="destroyed", broken=False, detail=""), (CloseMailbox(name=row.name),), True
    )


def on_forget(row: Row) -> None:
    if row.desired != "destroyed":
        raise Conflict(f"{row.name} is not destroyed", f"destroy it first: hive-admin destroy {row.name}")


def expect(row: Row | None, name: str) -> Row:
    if row is None:
        raise NotFound(f"there is no agent {name!r}", "who there is: hive-admin agents")
    return row


def expect_not_itself(caller: str, name: str) -> None:
    """What the manager did to itself would end the turn in which it did it."""
    if caller == name:
        raise NotAllowed(f"{name} cannot do this to itself", "ask the operator")


def open_mailbox(row: Row, uid_of: UidOf) -> OpenMailbox:
    return OpenMailbox(name=row.name, uid=uid_of(row.number), allowed_recipients=row.spec.allowed_recipients)


def _fresh(row: Row) -> Row:
    """No cage there has been may be kept, and no failure counts."""
    return replace(row, stale_generation=row.generation, broken=False, detail="")


def _expect_not_destroyed(row: Row) -> None:
    if row.desired == "destroyed":
        raise Conflict(
            f"{row.name} is destroyed",
            f"create it again under its name: hive-admin spawn {row.name} --prompt TEXT",
        )


def root_named(roots: Sequence[Root], key: str) -> Root:
    """By its key, or by as much of the beginning of it as no other has."""
    found = [root for root in roots if root.key == key] or [
        root for root in roots if root.key.startswith(key)
    ]
    if len(found) != 1:
        what = f"{len(found)} roots begin with {key!r:.90}" if found else f"there is no root {key!r:.90}"
        raise NotFound(what, "which there are: hive-admin roots")
    return found[0]


# ---- the reconciler


def next_step(
    row: Row, cage_generation: int, failures: Sequence[int], now: int, settings: Settings, *, halted: bool
) -> Step:
    """`cage_generation`: of the cage that runs, or 0."""
    wanted = row.desired == "running" and not halted
    if cage_generation:
        keep = wanted and cage_generation > row.stale_generation
        return Step("rest" if keep else "stop")
    if not wanted or row.broken:
        return Step("rest")
    retry_ms = retry_at(failures, settings)
    return Step("wait", retry_ms) if retry_ms > now else Step("start")


def retry_at(failures: Sequence[int], settings: Settings) -> int:
    """When a cage that failed at these instants is started again: 0.25, 1, 4, 16 seconds after the last one."""
    if not failures:
        return 0
    return int(max(failures) + settings.retry_first_ms * settings.retry_factor ** (len(failures) - 1))


def on_failure(
    row: Row, failures: Sequence[int], why: str, exit_code: int, settings: Settings, reason: str = ""
) -> Change:
    """`failures`: the instants of those within the window, this one included.

    What the cage said last is for the operator's eyes (`detail`), and in no letter: it is the agent's own text, and
    would come to the manager under the hive's name. `reason` is the hive's own, where it knows one.
    """
    row = replace(row, detail=why, broken=len(failures) >= settings.failures_max)
    code = f" (exit code {exit_code})" if exit_code >= 0 else ""
    code = f", {reason}" if reason else code
    if row.broken:
        minutes = settings.failure_window_ms // 60_000
        body = (
            f"The cage of {row.name} failed {len(failures)} times within {minutes} minutes{code} and is broken. "
            f"It stays as it is until somebody starts it again: hive-admin logs {row.name}, hive-admin start {row.name}"
        )
        readers = (OPERATOR,) if row.name == MANAGER else (OPERATOR, MANAGER)
        return Change(row, tuple(_news(reader, "cage_broken", body, row.name) for reader in readers))
    if len(failures) > 1:  # it was said already, and each piece of news costs a turn
        return Change(row)
    reader = OPERATOR if row.name == MANAGER else MANAGER
    body = f"The cage of {row.name} ended unexpectedly{code}. It is being started again."
    return Change(row, (_news(reader, "cage_crashed", body, row.name),))


def cage_state(row: Row, phase: Phase) -> CageState:
    if phase != "ended":
        return phase
    if row.broken:
        return "broken"
    if row.desired == "running":
        return "starting"
    return "stopped" if row.desired == "stopped" else "absent"


def _news(to: str, what: str, body: str, agent: str) -> News:
    return News(to=to, what=what, body=body, details={"agent": agent})
