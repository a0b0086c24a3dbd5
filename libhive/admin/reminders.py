"""Commands about reminders: a prompt for an agent at a time, what is still to fire of everybody, and cancelling."""

from __future__ import annotations

import argparse
import os
import re
from argparse import ArgumentParser, Namespace
from datetime import datetime
from pathlib import Path
from typing import get_args

from libhive.admin import arguments, times
from libhive.admin.mail import WHOLE_ID, worded
from libhive.admin.session import Session
from libhive.admin.standing import hints_the_way_back
from libhive.clock import now_ms
from libhive.cron import words
from libhive.messages.broker import CatchUp, ReminderList
from libhive.names import new_id
from libhive.problems import BadRequest, NotFound

AFTER = re.compile(r"([0-9]{1,8})([smhd]?)\Z")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
AFTER_SECONDS_MAX = 366 * 86_400
EXAMPLES = (
    'hive-admin remind iris "what is new in the garden?" --cron "0 9 * * MON-FRI"\n'
    "hive-admin remind hm1nd look at the proposals --after 2h\n"
    "hive-admin remind iris happy new year --at 2027-01-01T00:00"
)
DETAIL = (
    "The agent gets the text as a message of yours when the time has come, as often as it comes. A cron line has five\n"
    "fields: minute, hour, day of month, month, day of week."
)


# ---- what is typed


def remind_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=_whom, help="an agent, or manager")
    parser.add_argument("text", metavar="TEXT", nargs="+", help="the prompt; - reads it from standard input")
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument(
        "--at", metavar="WHEN", type=at, help="2026-11-24T09:00, on this host's clock, or with an offset"
    )
    when.add_argument("--after", metavar="TIME", type=after, help="from now: 90s, 10m, 2h, 3d")
    when.add_argument("--cron", metavar="LINE", help="again and again, as this cron line says")
    parser.add_argument("--zone", help="the time zone of --cron, such as Europe/Berlin (this host's)")
    parser.add_argument(
        "--catch-up",
        choices=get_args(CatchUp),
        help="what --cron makes up for after a time when the hive was down: once for all (default), nothing, or each",
    )


def reminders_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", type=arguments.agent, help="of this agent")


def cancel_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "id",
        metavar="ID",
        type=arguments.ending,
        help="a reminder's id, or an end of it, as hive-admin reminders shows it",
    )


def without_cron(given: Namespace) -> str:
    if given.cron is None and (given.zone is not None or given.catch_up is not None):
        return "--zone and --catch-up belong to --cron"
    return ""


def at(text: str) -> int:
    """As milliseconds since the epoch; without an offset it is this host's time."""
    try:
        instant_ms = int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        instant_ms = 0
    if instant_ms <= 0:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not an instant such as 2026-11-24T09:00")
    return instant_ms


def after(text: str) -> int:
    """As seconds."""
    found = AFTER.match(text)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= AFTER_SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a time such as 90s, 10m, 2h or 3d, of a year at most"
        )
    return seconds


def _whom(text: str) -> str:
    return text if text == "manager" else arguments.agent(text)


def zone_here(environ: dict[str, str] | None = None, link: Path = Path("/etc/localtime")) -> str:
    """This host's time zone by its IANA name, as far as it says; UTC otherwise."""
    name = (os.environ if environ is None else environ).get("TZ", "").removeprefix(":")
    if not name and link.is_symlink():
        name = str(link.readlink()).rpartition("zoneinfo/")[2]
    return name if re.fullmatch(r"[A-Za-z0-9+_/-]{1,64}", name) and not name.startswith("/") else "UTC"


# ---- the commands


async def remind(session: Session, given: Namespace) -> int:
    text = worded(given.text)
    zone = (given.zone or zone_here()) if given.cron else ""
    async with hints_the_way_back(session, given.name):
        reminded = await session.broker.remind(
            given.name,
            text,
            at_ms=given.at or 0,
            after_seconds=given.after or 0,
            cron=given.cron or "",
            zone=zone,
            catch_up=given.catch_up or "once",
            id=new_id(),
        )
    recurs = (
        f"\n{words(given.cron, zone)}; end it with: hive-admin cancel-reminder {reminded.id}" if zone else ""
    )
    session.show(reminded, f"{given.name} is reminded {times.until(reminded.due_ms, now_ms())}{recurs}")
    return 0


async def reminders(session: Session, given: Namespace) -> int:
    found = await session.broker.reminders(given.name or "")
    if not session.show(ReminderList(reminders=found)):
        session.screen.reminders(found)
    return 0


async def cancel(session: Session, given: Namespace) -> int:
    id = the_one([reminder.id for reminder in await session.broker.reminders()], given.id)
    done = await session.broker.cancel_reminder(id)
    session.show(done, "cancelled; nobody is reminded of this any more")
    return 0


def the_one(ids: list[str], given: str) -> str:
    """The pending one with this id, or this end of it if no other has it; else what may be the whole id of one that
    has fired, about which the broker shall say."""
    found = [id for id in ids if id.endswith(given)]
    if len(found) > 1:
        raise BadRequest(f"{given!r:.64} is the end of {len(found)} reminders' ids", "give more of it")
    if not found and not WHOLE_ID.fullmatch(given):
        raise NotFound(
            f"no reminder's id ends with {given!r:.64}", "those that will fire: hive-admin reminders"
        )
    return found[0] if found else given
