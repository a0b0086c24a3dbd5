"""The one real Debian root of the tests: built once, and kept under .cache/ for as long as its recipe and the builder's
code are the same."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from libhive.clock import now_ms
from libhive.paths import Paths
from libhive.spec import AgentSpec
from services.lifecycle.builders import builders, debian
from services.lifecycle.builders.workshop import Workshop
from services.lifecycle.settings import Settings

BUILDERS = Path(debian.__file__).parent
CODE = b"".join(
    path.read_bytes() for path in sorted(BUILDERS.glob("*.py")) if path.name not in ("host.py", "nix.py")
)
ALL = Path(__file__).parent.parent / ".cache" / f"roots-{os.geteuid()}"
CACHE = ALL / hashlib.sha256(CODE).hexdigest()[:16]
SPEC = AgentSpec(root="debian", packages=["hello"])
"""`hello`: a program that no other package brings."""


async def debian_root() -> Path:
    """The directory of the root, with its `tree` and `manifest.json`."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    settings = Settings()
    workshop = Workshop(
        Paths(run=CACHE / "run", state=CACHE), settings, builders(settings), now_ms, lambda root: None
    )
    with (ALL / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        tree = await workshop.made(SPEC)
        for other in ALL.iterdir():  # of other code
            if other not in (CACHE, ALL / "lock"):
                await asyncio.to_thread(shutil.rmtree, other)
    assert tree
    return tree.parent


def lend(root: Path, paths: Paths) -> None:
    """This hive has that root as well."""
    paths.roots.mkdir(parents=True, exist_ok=True)
    (paths.roots / root.name).symlink_to(root)
