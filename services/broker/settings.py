from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from libhive.names import MANAGER


@dataclass(frozen=True, slots=True)
class Settings:
    manager: str = MANAGER
    attempts_max: int = 5
    """Offers of one message before it is dead: something about it ends whoever reads it."""
    list_bytes_max: int = 6 << 20
    """Text in one reply that is a list; a frame of the bus has 8 MiB."""
    timer_seconds_max: float = 60.0
    """How long the timers sleep at most, so that a clock that jumps is noticed."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        return cls()
