"""The Debian root that is booted: built once by mmdebstrap, kept in .cache/booted under a hash of what it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".cache" / "booted"
CLAUDE = "/opt/claude-code/claude_agent_sdk/_bundled/claude"
"""Where each container has the CLI that the set-up installed here, so that none has to copy it."""
PACKAGES = (
    "bubblewrap",
    "ca-certificates",
    "curl",
    "dbus",
    "git",
    "iproute2",
    "libpam-systemd",
    "make",
    "mmdebstrap",
    "polkitd",
    "procps",
    "python3",
    "python3-venv",
    "socat",
    "systemd",
    "systemd-container",
    "systemd-sysv",
    "uidmap",
)
OPTIONS = (
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    (
        '--setup-hook=mkdir -p "$1/etc/dpkg/dpkg.cfg.d"; '
        'printf "path-exclude=/usr/share/%s/*\\n" doc locale man >"$1/etc/dpkg/dpkg.cfg.d/lean"'
    ),
)
"""What is left out is not said by --dpkgopt: that takes each package apart in Python, which takes longer than to install it."""
BUILD_SECONDS_MAX = 280


def root() -> Path:
    """The root's directory; made first when it is not there. Nobody writes into it: each container has its own overlay."""
    found = CACHE / _key()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            _build(found)
    return found


def sources() -> list[Path]:
    """The distribution's own, as this host has them: no mirror's address is in this repository."""
    apt = Path("/etc/apt")
    names = ("sources.list", "sources.list.d/debian.sources", "sources.list.d/ubuntu.sources")
    found = [apt / name for name in names if (apt / name).is_file()]
    if not found:
        raise RuntimeError("no package sources in /etc/apt: the booted tests need Debian or Ubuntu")
    return found


def _key() -> str:
    made_from = [_suite(), *PACKAGES, *OPTIONS, *(path.read_text() for path in sources())]
    return hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:16]


def _suite() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _build(found: Path) -> None:
    for old in CACHE.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    fresh = found.with_name("new")
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", *OPTIONS]
    done = subprocess.run(
        [*command, _suite(), str(fresh), *map(str, sources())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mmdebstrap ended with {done.returncode}:\n{done.stderr[-4000:]}")
    fresh.rename(found)
