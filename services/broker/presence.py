"""Who is connected and what it is doing, as its own harness says. In memory: it is only true while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from libhive.messages.broker import HarnessState


@dataclass(frozen=True, slots=True)
class Presence:
    connected: bool = False
    state: HarnessState = "unknown"
    detail: str = ""
    turn: str = ""
    model: str = ""
    generation: int = 0
    incarnation: str = ""
    version: str = ""
    since_ms: int = 0


class Presences:
    def __init__(self) -> None:
        self._known: dict[str, Presence] = {}

    def of(self, agent: str) -> Presence:
        return self._known.get(agent, Presence())

    def arrived(self, agent: str, generation: int, incarnation: str, version: str, now: int) -> None:
        """A harness that only reconnected keeps its state; another one begins at `starting`."""
        old = self.of(agent)
        state = old.state if old.incarnation == incarnation and old.state != "unknown" else "starting"
        self._known[agent] = replace(
            Presence(),
            connected=True,
            state=state,
            generation=generation,
            incarnation=incarnation,
            version=version,
            since_ms=now,
        )

    def reported(self, agent: str, state: HarnessState, detail: str, turn: str, model: str, now: int) -> None:
        old = self.of(agent)
        since = old.since_ms if old.state == state else now
        self._known[agent] = replace(
            old, connected=True, state=state, detail=detail, turn=turn, model=model, since_ms=since
        )

    def forget(self, agent: str) -> None:
        self._known.pop(agent, None)

    def gone(self, agent: str, now: int) -> None:
        self._known[agent] = replace(self.of(agent), connected=False, state="unknown", turn="", since_ms=now)
