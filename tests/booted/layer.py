"""A container's content after `make install`, kept like the root itself: installed once for each state of the sources, and
every test that needs a hive boots from there."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.booted.root import CACHE, CHECKOUT, CLAUDE, root

WHEELS = CHECKOUT / ".cache" / "wheels"
INSTALL = ("make", "-C", str(CHECKOUT), "install", f"WHEELS={WHEELS}", f"CLAUDE={CLAUDE}")
INSTALL_SECONDS_MAX = 200
SAID = "install.log"


@dataclass(frozen=True, slots=True)
class Layer:
    """`upper` lies over the root; `lib` is its /var/lib, to be copied."""

    place: Path

    @property
    def upper(self) -> Path:
        return self.place / "upper"

    @property
    def lib(self) -> Path:
        return self.place / "lib"

    @property
    def said(self) -> str:
        """By `make install`."""
        return (self.place / SAID).read_text()


def installed() -> Layer:
    """With the services enabled, and their state as it is after a first start."""
    base = root()
    layer = CACHE / f"{base.name}-{_key()}.installed"
    with (CACHE / "layer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            _make(layer)
    return Layer(layer)


def _make(layer: Path) -> None:
    from tests.booted.container import Container  # it boots from layers

    for old in CACHE.glob("*.installed"):
        shutil.rmtree(old)
    with Container(limits=True) as container:  # no cage starts where its limits do not hold
        said = container.run(*INSTALL, seconds=INSTALL_SECONDS_MAX)
        (container.place / SAID).write_text(said)
        container.move_to(layer)


def _key() -> str:
    made = hashlib.sha256()
    for path in sorted(_sources()):
        made.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return made.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    yield from (
        CHECKOUT / name for name in ("Makefile", "README.md", "pyproject.toml", "tests/booted/layer.py")
    )
    for folder in ("deploy", "docs", "libhive", "requirements", "services"):
        for path in (CHECKOUT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
