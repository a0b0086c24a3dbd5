"""What can be set, read once from the environment when the service starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from libhive.names import MANAGER
from libhive.problems import BadRequest

NUMBERS = "HIVE_BROKER_"


@dataclass(frozen=True, slots=True)
class Settings:
    """A number is set by its name in capitals after HIVE_BROKER_; 0 switches a limit off."""

    manager: str = MANAGER
    attempts_max: int = 5
    """Offers of one message before it is dead: something about it ends whoever reads it."""
    hops_max: int = 16
    """Answers to answers, of one conversation, before the operator is asked."""
    root_messages_max: int = 64
    """Messages that one message led to."""
    pair_per_minute_max: int = 30
    """Messages from one to another within a minute."""
    pair_stopped_ms: int = 3_600_000
    """How long one may not write to another when the operator has stopped them."""
    open_questions_max: int = 64
    """Of one agent, at once."""
    pending_reminders_max: int = 64
    """Of one agent, at once; what the operator sets for it is counted apart."""
    list_bytes_max: int = 6 << 20
    """Text in one reply that is a list; a frame of the bus has 8 MiB."""
    retention_days: int = 0
    """How long what is over is kept; 0: for ever."""
    search_seconds_max: float = 1.0
    """Of one search, before it answers with what it has found so far."""
    timer_seconds_max: float = 60.0
    """How long the timers sleep at most, so that a clock that jumps is noticed."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises BadRequest, naming the variable, for what is not a number from 0."""
        given: dict[str, int] = {}
        for field in fields(cls):
            value = environ.get(NUMBERS + field.name.upper(), "")
            if field.type == "int" and value:
                given[field.name] = _number(NUMBERS + field.name.upper(), value)
        return cls(**given)  # type: ignore[arg-type]


def _number(name: str, value: str) -> int:
    if not value.isdecimal() or len(value) > 15:
        raise BadRequest(f"{name} is {value!r:.40}, not a number from 0", "correct it, or leave it out")
    return int(value)
