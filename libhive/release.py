"""Which hyperhive this is; apart from the protocol's version."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # read at the start, so that a process without a free descriptor can still say it
def package_version() -> str:
    try:
        return version("hyperhive")
    except PackageNotFoundError:
        return "0+source"
