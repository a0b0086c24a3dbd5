"""Which hyperhive this is; apart from the protocol's version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    try:
        return version("hyperhive")
    except PackageNotFoundError:
        return "0+source"
