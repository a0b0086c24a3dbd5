"""What the harness says of itself, to the broker and on its page. Set it; whoever listens hears of each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from libhive.clock import Clock, now_ms
from libhive.messages.broker import LINE_CHARACTERS_MAX, HarnessState, ReportState


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    state: HarnessState = "starting"
    detail: str = ""
    turn: str = ""
    model: str = ""
    since_ms: int = 0
    until_ms: int = 0
    """When it tries again by itself; 0: it waits for nothing, or only for mail."""

    def report(self, lease: str) -> ReportState:
        return ReportState(
            lease=lease, state=self.state, detail=_line(self.detail), turn=self.turn, model=self.model
        )


class Status:
    def __init__(self, clock: Clock = now_ms) -> None:
        self._clock = clock
        self.now = Situation(since_ms=clock())
        self.last_error = ""
        self.listeners: list[Callable[[], None]] = []

    def set(
        self, state: HarnessState, detail: str = "", *, turn: str = "", model: str = "", until_ms: int = 0
    ) -> None:
        since_ms = self.now.since_ms if state == self.now.state else self._clock()
        model = model or self.now.model
        now = Situation(
            state=state, detail=detail, turn=turn, model=model, since_ms=since_ms, until_ms=until_ms
        )
        if now != self.now:
            self.now = now
            for listener in self.listeners:
                listener()

    def detail(self, detail: str) -> None:
        """The same state, with other words."""
        now = self.now
        self.set(now.state, detail, turn=now.turn, until_ms=now.until_ms)


def _line(text: str) -> str:
    return " ".join(text.split())[:LINE_CHARACTERS_MAX]
