"""Every limit of the updater."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    healthy_seconds_max: float = 60.0
    """A new generation that has not become healthy by then is put back."""
    quiet_seconds: float = 0.3
    """An agent between two turns must stay so for this long under the hold: mail offered just before may be
    on its way into a turn."""
    unsure_seconds_max: float = 30.0
    """A cage whose harness does not say what it does for this long is in no turn. Until then it may only be
    reconnecting, in the middle of one."""
    poll_seconds: float = 0.5
    """The belt; events are the braces."""
    look_seconds: float = 30.0
    retry_seconds_min: float = 0.2
    retry_seconds_max: float = 10.0
    """Between attempts to reach a service that is away."""
