"""Commands about one agent: bringing it up, steering it, looking inside."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path

from libhive.admin.proposals import approve_now
from libhive.admin.session import SERVICES, Session, at_a_terminal
from libhive.admin.standing import hints_the_way_back, way_back
from libhive.logs import safe_text
from libhive.messages.approvals import FILE_CHARACTERS_MAX
from libhive.messages.lifecycle import Agent, LogText
from libhive.messages.updater import Purge
from libhive.problems import BadRequest, Conflict, NotFound, Unavailable, UnknownRecipient
from libhive.release import is_installed

FOLLOW_SECONDS = 0.5
PURGE_POLL_SECONDS = 0.2
LOGGED = (*SERVICES, "supervisor")
CUT_OFF = -1
CUT_OFF_STATUS = 124
"""What timeout(1) exits with as well."""


async def spawn(session: Session, given: Namespace) -> int:
    prompt = given.prompt if given.prompt is not None else _read_prompt(given.prompt_file)
    proposed = await session.approvals.spawn(given.name, prompt, given.model or "", given.package)
    detail = await session.approvals.show(proposed.number)
    if not session.as_json:
        session.screen.effect(detail)
    elif not given.yes:
        session.show(detail)
    if given.yes or (session.can_ask() and session.ask("approve it now? [y/N] ").lower() in ("y", "yes")):
        return await approve_now(session, detail, given.wait)
    if not session.as_json:
        session.screen.say(f"approve it with: hive-admin approve {proposed.number}")
    return 0


def _read_prompt(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"cannot read the prompt from {path}: {error}", "give a text file, or - for standard input"
        ) from error
    if not text.strip() or len(text) > FILE_CHARACTERS_MAX:
        raise BadRequest(f"the prompt has {len(text)} characters", f"it needs 1 to {FILE_CHARACTERS_MAX}")
    return text


async def start(session: Session, given: Namespace) -> int:
    return await _steer(session, given.name, session.lifecycle.start)


async def stop(session: Session, given: Namespace) -> int:
    return await _steer(session, given.name, session.lifecycle.stop)


async def restart(session: Session, given: Namespace) -> int:
    return await _steer(session, given.name, session.lifecycle.restart)


async def destroy(session: Session, given: Namespace) -> int:
    name: str = given.name
    if not given.yes:
        session.screen.say(f"{name}'s cage ends, and nobody can write to it any more. Its mail, state and")
        session.screen.say("configuration are kept.")
        if session.ask("type its name to destroy it: ") != name:
            raise Conflict(f"{name} is not destroyed: its name was not typed")
    status = await _steer(session, name, session.lifecycle.destroy)
    if not session.as_json:
        session.screen.say(way_back(name))
    return status


async def purge(session: Session, given: Namespace) -> int:
    name: str = given.name
    if not given.yes:
        session.screen.say(
            f"{name} goes for ever: its mail, questions, reminders and /state. Only its configuration is kept,"
        )
        session.screen.say("in the archive. There is no way back.")
        if session.ask("type its name to purge it: ") != name:
            raise Conflict(f"{name} is not purged: its name was not typed")
    purge = await session.updater.purge(name, name)
    until = time.monotonic() + given.wait
    while purge.step != "purged" and time.monotonic() < until:
        await asyncio.sleep(PURGE_POLL_SECONDS)
        with contextlib.suppress(Unavailable):  # it is journaled, and goes on when the updater is back
            purge = next((one for one in await session.updater.purges() if one.id == purge.id), purge)
    session.show(purge, _purged(purge))
    return 0 if purge.step == "purged" else 1


def _purged(purge: Purge) -> str:
    if purge.step != "purged":
        return f"{purge.agent} is being purged{': ' if purge.detail else ''}{purge.detail}; it goes on without you"
    kept = f"; its configuration is kept in {purge.archive}" if purge.archive else ""
    return f"{purge.agent} is purged{kept}"


def unconfirmed(given: Namespace) -> str:
    """Why `destroy` cannot begin, if so: where nobody can be asked, --yes has to be given."""
    if given.yes or (at_a_terminal() and not given.json):
        return ""
    return f"there is nobody to ask whether you are sure; give --yes: hive-admin destroy {given.name} --yes"


def unconfirmed_purge(given: Namespace) -> str:
    return unconfirmed(given).replace(" destroy ", " purge ")


async def _steer(session: Session, name: str, verb: Callable[[str], Awaitable[Agent]]) -> int:
    async with hints_the_way_back(session, name):
        agent = await verb(name)
    if not session.show(agent):
        session.screen.agent(agent)
    return 0


async def rebuild(session: Session, given: Namespace) -> int:
    async with hints_the_way_back(session, given.name):
        deploy = await session.updater.rebuild(given.name)
    session.show(
        deploy,
        f"{deploy.agent} is rebuilt once its running turn has ended; follow it: hive-admin events --follow",
    )
    return 0


async def logs(session: Session, given: Namespace) -> int:
    return await (_service_log if given.service else _cage_log)(session, given)


async def _cage_log(session: Session, given: Namespace) -> int:
    await session.ping("lifecycle")
    try:
        text = await session.lifecycle.logs(given.name, given.lines)
    except (NotFound, UnknownRecipient) as problem:
        if given.name not in LOGGED:
            raise
        hint = f"the service's log: hive-admin logs {given.name} --service"
        raise type(problem)(problem.message, hint) from None
    session.show(LogText(text=text)) if session.as_json else _write(text)
    while given.follow:
        await asyncio.sleep(FOLLOW_SECONDS)
        newer = await session.lifecycle.logs(given.name, given.lines)
        _write(added(text, newer))
        text = newer
    return 0


def added(before: str, after: str) -> str:
    """What `after`, the end of a growing text, has beyond `before`, an earlier end of it."""
    for start in range(len(before) + 1):
        if (start == 0 or before[start - 1] == "\n") and after.startswith(before[start:]):
            return after[len(before) - start :]
    return after


def _journal(session: Session, given: Namespace) -> int:
    """Where systemd keeps it; whoever may not read it is told so by journalctl."""
    unit = ["-u", f"hive-{given.name}.service", "-n", str(given.lines)]
    command = ["journalctl", "--quiet", "--no-pager", *unit]
    if session.as_json:
        said = subprocess.run([*command, "-o", "cat"], capture_output=True, text=True, check=False)
        session.show(LogText(text=said.stdout))
        return said.returncode
    return subprocess.run([*command, *(["--follow"] if given.follow else [])], check=False).returncode


async def _service_log(session: Session, given: Namespace) -> int:
    path = session.paths.logs / f"{given.name}.log"
    if given.name not in LOGGED:
        raise NotFound(f"{given.name!r:.60} is not a service", f"they are: {', '.join(LOGGED)}")
    if is_installed():
        return _journal(session, given)
    if not path.is_file():
        raise NotFound(f"there is no {path}", f"under systemd it is: journalctl -u hive-{given.name}")
    text = "".join(path.read_text(errors="replace").splitlines(keepends=True)[-given.lines :])
    session.show(LogText(text=text)) if session.as_json else _write(text)
    offset = path.stat().st_size
    while given.follow:
        await asyncio.sleep(FOLLOW_SECONDS)
        size = path.stat().st_size if path.is_file() else 0
        with path.open("rb") as log:
            log.seek(offset if size >= offset else 0)  # smaller: it was rotated
            fresh = log.read()
        offset = (offset if size >= offset else 0) + len(fresh)
        _write(fresh.decode(errors="replace"))
    return 0


async def execute(session: Session, given: Namespace) -> int:
    """Exits with the command's own code, or 124 when it was cut off."""
    if not given.command:
        raise BadRequest("no command was given", "such as: hive-admin exec iris -- ls /state")
    async with hints_the_way_back(session, given.name):
        executed = await session.lifecycle.exec(given.name, given.command, given.timeout)
    if not session.show(executed):
        _write(executed.output)
        if executed.truncated:
            sys.stderr.write("hive-admin: the output was too long and is cut\n")
        if executed.exit_code == CUT_OFF:
            sys.stderr.write(f"hive-admin: cut off after {given.timeout} s\n")
    return executed.exit_code if 0 <= executed.exit_code < 256 else CUT_OFF_STATUS


def _write(text: str) -> None:
    sys.stdout.write(safe_text(text))
    sys.stdout.flush()
