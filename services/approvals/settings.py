"""Every limit of the approvals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    proposals_per_agent_hour_max: int = 6
    proposal_open_days_max: int = 7
    """Nobody decided for this long: it expires, and is asked for again if it still matters."""
    diff_lines_max: int = 3_000
    diff_characters_max: int = 150_000
    """Beyond these nobody reads it whole, so it cannot be approved."""
    expiry_check_seconds: float = 60.0
    retry_seconds_min: float = 0.2
    retry_seconds_max: float = 10.0
    """Between attempts to reach a broker that is away."""
