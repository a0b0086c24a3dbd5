"""Where this hive is, and what its processes may know of the world."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libhive.paths import Paths
from libhive.problems import NotAllowed

SERVICES = ("broker", "gateway", "lifecycle", "approvals", "updater", "dashboard")
"""In the order they start; they end the other way round."""

PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
)
"""What services get of the environment that `make up` was given, beside all that starts with HIVE_."""
MARK = "HIVE_EMBEDDED"
"""Names, in the environment of every process of an embedded hive, the run directory it belongs to."""


@dataclass(frozen=True, slots=True)
class Settings:
    paths: Paths
    environment: dict[str, str]
    python: str
    prefix: Path
    """The virtual environment it runs from."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        paths = Paths.from_environment(environ)
        prefix = Path(sys.prefix)
        return cls(paths, service_environment(environ, paths, prefix), sys.executable, prefix)

    @property
    def own(self) -> Path:
        return self.paths.run / "embedded"

    @property
    def config(self) -> Path:
        return self.own / "supervisord.conf"

    def log(self, service: str) -> Path:
        return self.paths.logs / f"{service}.log"


def service_environment(environ: Mapping[str, str], paths: Paths, prefix: Path) -> dict[str, str]:
    chosen = {name: value for name, value in environ.items() if name in PASSED_ON or name.startswith("HIVE_")}
    bundled = bundled_claude(prefix)
    return {
        **({"HIVE_CLAUDE": str(bundled)} if bundled.is_file() else {}),
        "PATH": os.defpath,
        **chosen,
        "HIVE_RUN_DIR": str(paths.run),
        "HIVE_STATE_DIR": str(paths.state),
        MARK: str(paths.run),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


def bundled_claude(prefix: Path) -> Path:
    """Where set-up puts the pinned CLI: beside the virtual environment, in a directory of its own."""
    return prefix.parent / ".claude-cli" / "claude_agent_sdk" / "_bundled" / "claude"


def make_places(paths: Paths) -> None:
    """Raises NotAllowed for a directory that somebody else could put things into."""
    for variable, place in (("HIVE_RUN_DIR", paths.run), ("HIVE_STATE_DIR", paths.state)):
        elsewhere = f"choose another place with {variable}"
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NotAllowed(f"cannot make {place}: {error.strerror}", elsewhere) from error
        found = place.stat()
        parent_is_safe = place.parent.stat().st_uid in (0, os.geteuid())
        if found.st_uid != os.geteuid() or found.st_mode & 0o022 or not parent_is_safe:
            raise NotAllowed(f"{place} belongs to somebody else or can be written by others", elsewhere)
    paths.logs.mkdir(mode=0o700, exist_ok=True)
