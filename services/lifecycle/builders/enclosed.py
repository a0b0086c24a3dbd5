"""Has one thing executed in the enclosure, and reads what it says on its way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from libhive.problems import Problem
from services.lifecycle.builders.recipe import Job, Work
from services.lifecycle.builders.roots import TMP, TREE
from services.lifecycle.builders.users import users
from services.lifecycle.cages.bubblewrap import staging_place
from services.lifecycle.settings import Settings

log = logging.getLogger("hive.lifecycle")

LOG_TAIL_BYTES = 64 << 10
LAST_WORDS_LINES, LAST_WORDS_CHARACTERS_MAX = 6, 1_200
_SUMMARY = re.compile(r"E: (?:mmdebstrap failed|setup failed|apt-get .* failed)|tar: ")
"""What is said of an error that was said before."""
_ERROR = re.compile(r"(?:E|error|newuidmap|newgidmap):")


async def run(settings: Settings, work: Path, stage: Path, do: Work, log_fd: int) -> bytes | None:
    """What the enclosure answers; None when it failed. Whoever is cancelled while it waits ends it."""
    to = users(settings)
    job = Job(
        do=do, place=str(work / TMP), stage=str(stage), tree=str(work / TREE), uid=to.uid, gid=to.gid, uids=to.uids, gids=to.gids,
        parent=os.getpid(),
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.lifecycle.builders.enclosure",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log_fd,
        env=_environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(settings.build_seconds_max):
            answer, _ = await process.communicate(msgspec.json.encode(job))
    except TimeoutError:
        os.write(log_fd, f"E: it took longer than {settings.build_seconds_max:g} s\n".encode())
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return answer if process.returncode == 0 else None


async def empty(settings: Settings, work: Path) -> None:
    """Takes out what the build has left: files of all its users, which only its own root may remove."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        argv = ["find", ".", "-xdev", "-mindepth", "1", "-delete"]
        do = Work(argv=argv, environ={"PATH": os.defpath}, output="nothing")
        await run(settings, work, staging_place([work]), do, nowhere)
    finally:
        os.close(nowhere)


async def discard(settings: Settings, work: Path) -> None:
    if await asyncio.to_thread((work / TMP).is_dir):
        with contextlib.suppress(Problem):  # without enclosed users there are no files of theirs
            await empty(settings, work)
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    if await asyncio.to_thread(work.exists):
        log.warning("a build could not be removed", extra={"place": work.name})


def tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def doing(said: str) -> str:
    """What the builder says it does, without the places where it does it."""
    steps = [
        line[3:].rstrip(". ") for line in said.splitlines() if line.startswith("I: ") and "/" not in line
    ]
    return steps[-1] if steps else "starting"


def last_words(said: str) -> str:
    """The errors that were named as such; else whatever was said last."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in said.splitlines()]
    lines = [line for line in lines if line]
    lines = [line for line in lines if not _SUMMARY.match(line)] or lines
    errors = [line for line in lines if _ERROR.match(line)]
    return "; ".join((errors or lines)[-LAST_WORDS_LINES:])[:LAST_WORDS_CHARACTERS_MAX]


def _environment() -> dict[str, str]:
    own = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONSAFEPATH": "1"}
    return own | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
