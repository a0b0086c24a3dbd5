"""What can be set, read once from the environment when the service starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import libhive
from libhive.problems import BadRequest

CLAUDE_VERSION = "2.1.330"
"""The CLI that the harness is written for and tested with."""
_BUNDLED = Path(libhive.__file__).parent.parent / ".claude-cli/claude_agent_sdk/_bundled/claude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    cage: str = "bubblewrap"
    claude: Path | None = None
    claude_version: str = CLAUDE_VERSION
    operator_pronouns: str = "she/her"
    program: tuple[str, ...] = ("-m", "libhive.harness")
    """Arguments of the Python in each cage."""

    uid_first: int = 524_288
    uids_per_agent: int = 65_536
    uid_in_cage: int = 1000
    """Of the program in an nspawn cage, which has a whole range of users."""
    agents_max: int = 900
    page_port_manager: int = 8000
    page_port_first: int = 8100
    page_port_last: int = 8999

    nixpkgs: str = ""
    """Where the packages of roots that Nix makes are defined."""
    build_seconds_max: float = 3_600.0
    root_space_bytes_min: int = 2 << 30
    """Free disk without which no build begins."""
    root_kept_ms: int = 86_400_000
    """A root that was built within this time is no leftover, whoever needs it."""

    stop_grace_seconds: float = 10.0
    stop_all_grace_seconds: float = 5.0
    settle_seconds_max: float = 18.0
    """How long an answer waits for the cage to be as it is wanted."""

    failures_max: int = 5
    failure_window_ms: int = 600_000
    retry_first_ms: int = 250
    retry_factor: int = 4

    courier_retry_seconds_first: float = 0.2
    courier_retry_seconds_max: float = 5.0
    log_check_seconds: float = 60.0
    memory_check_seconds: float = 5.0
    commands_kept_ms: int = 7 * 86_400_000

    def uid_of(self, number: int) -> int:
        """The host's user of the agent with this number: one of its own where that is ours to give."""
        if self.cage == "nspawn":
            return self.uid_first + self.uids_per_agent * number + self.uid_in_cage
        if self.cage == "bubblewrap" and os.geteuid() == 0:
            return self.uid_first + self.uids_per_agent * number
        return os.geteuid()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises BadRequest when HIVE_CLAUDE is given and there is no such program."""
        return cls(
            cage=environ.get("HIVE_CAGE") or "bubblewrap",
            claude=_claude(environ.get("HIVE_CLAUDE", "")),
            claude_version=environ.get("HIVE_CLAUDE_VERSION") or CLAUDE_VERSION,
            nixpkgs=environ.get("HIVE_NIXPKGS", ""),
            operator_pronouns=environ.get("HIVE_OPERATOR_PRONOUNS") or "she/her",
        )


def _claude(wanted: str) -> Path | None:
    found = shutil.which(wanted or _BUNDLED)
    if wanted and found is None:
        raise BadRequest(
            f"HIVE_CLAUDE={wanted!r:.200} is not a program", "leave it out, and `make up` installs the CLI"
        )
    return Path(found).resolve() if found else None
