"""Which hyperhive this is; apart from the protocol's version."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INSTALLED = Path("/opt/hyperhive")
"""Where `make install` puts it (deploy/install)."""
TARGET = "hyperhive.target"


@cache  # read at the start, so that a process without a free descriptor can still say it
def package_version() -> str:
    try:
        return version("hyperhive")
    except PackageNotFoundError:
        return "0+source"


def is_installed() -> bool:
    """Units of systemd run it, and not `make up` from a checkout."""
    return Path(sys.prefix).is_relative_to(INSTALLED)


def how_to(verb: str) -> str:
    """The line that does it here: `start`, or `stop`, which includes the cages and returns when all have ended."""
    if is_installed():
        return f"sudo systemctl {verb} {TARGET}{' hive.slice' if verb == 'stop' else ''}"
    return {"start": "make up", "stop": "make down"}[verb]
