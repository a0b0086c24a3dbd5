"""hive-admin doctor: what is wrong with this machine or this hive, each with the command that mends it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from argparse import Namespace
from pathlib import Path

from libhive.admin import installation
from libhive.admin.findings import Finding, run
from libhive.admin.session import SERVICES, Session
from libhive.problems import Problem
from libhive.release import is_installed

PYTHON_MIN = (3, 11)
FREE_BYTES_MIN = 1 << 30
MEND = installation.MEND if is_installed() else "make up"


async def doctor(session: Session, given: Namespace) -> int:
    """1 when something needs mending."""
    findings = [
        python(),
        sqlite(),
        *(installation.findings(session.paths) if is_installed() else [namespaces()]),
        claude(),
        *(
            place(variable, path)
            for variable, path in (
                ("HIVE_RUN_DIR", session.paths.run),
                ("HIVE_STATE_DIR", session.paths.state),
            )
        ),
        disk(session.paths.state),
        *[await service(session, name) for name in SERVICES],
    ]
    if not session.show({"findings": findings}):
        session.screen.findings(findings)
    return 0 if all(finding.ok for finding in findings) else 1


def python() -> Finding:
    have = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        check="python",
        ok=sys.version_info >= PYTHON_MIN,
        detail=have,
        mend=MEND if is_installed() else "make up PYTHON=/path/to/python3.11",
    )


def sqlite() -> Finding:
    from libhive.engine import check_version  # it brings SQLAlchemy, which no other command needs

    try:
        check_version()
    except Problem as problem:
        return Finding(check="sqlite", ok=False, detail=problem.message, mend=problem.hint)
    return Finding(check="sqlite", ok=True, detail="new enough")


def namespaces() -> Finding:
    """As lifecycle itself finds out whether it can make cages here."""
    status, said = run([sys.executable, "-m", "services.lifecycle.check"], _hive_environment())
    if status == 0:
        return Finding(check="cages", ok=True, detail="can be made here")
    detail, _, mend = said.strip().partition("\n")
    return Finding(check="cages", ok=False, detail=detail, mend=mend.strip() or MEND)


def claude() -> Finding:
    path = _claude_path()
    if not os.access(path, os.X_OK):
        return Finding(check="claude", ok=False, detail=f"there is no program {path}", mend=MEND)
    status, said = run([path, "--version"])
    return Finding(
        check="claude",
        ok=status == 0,
        detail=said.strip()[:200],
        mend="" if status == 0 else MEND if is_installed() else "make clean up",
    )


def _hive_environment() -> dict[str, str]:
    """Of the environment, what is about the hive."""
    own = {name: value for name, value in os.environ.items() if name.startswith("HIVE_")}
    return {"HIVE_CLAUDE": _claude_path(), **own}


def _claude_path() -> str:
    bundled = Path(sys.prefix).parent / ".claude-cli" / "claude_agent_sdk" / "_bundled" / "claude"
    return os.environ.get("HIVE_CLAUDE") or str(bundled)


def place(variable: str, path: Path) -> Finding:
    """Ours, and nobody else's to write into."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return Finding(check=variable, ok=False, detail=f"{path} is not there: no hive runs here", mend=MEND)
    except PermissionError:
        return Finding(
            check=variable,
            ok=False,
            detail=f"{path} is not yours to look at",
            mend=f"{variable}=... hive-admin doctor",
        )
    mode = stat.S_IMODE(found.st_mode)
    detail = f"{path} {mode:04o} of uid {found.st_uid}"
    return Finding(check=variable, ok=not mode & 0o022, detail=detail, mend=f"chmod go-w {path}")


def disk(state: Path) -> Finding:
    nearest = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    detail = f"{free / (1 << 30):.1f} GiB free"
    return Finding(
        check="disk", ok=free >= FREE_BYTES_MIN, detail=detail, mend=f"free some space on {nearest}"
    )


async def service(session: Session, name: str) -> Finding:
    try:
        pong = await session.ping(name)
    except Problem as problem:
        return Finding(check=name, ok=False, detail=problem.message, mend=problem.hint)
    up = f"up, process {pong.pid}, version {pong.version}"
    if damaged := pong.details.get("damaged"):
        mend = "read the report, then remove what is set aside"
        return Finding(check=name, ok=False, detail=f"{up}; its database was damaged: {damaged}", mend=mend)
    if why := pong.details.get("no_snapshot"):
        return Finding(
            check=name, ok=False, detail=f"{up}; no snapshot of its database: {why}", mend="hive-admin doctor"
        )
    snapshot = pong.details.get("snapshot")
    return Finding(check=name, ok=True, detail=f"{up}, snapshot {snapshot}" if snapshot else up)
