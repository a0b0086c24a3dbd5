"""Commands that look back: what was said, and how long that is kept."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime

from libhive.admin import arguments, reminders, times
from libhive.admin.session import Session
from libhive.clock import now_ms
from libhive.messages.broker import Found, Receipt, Retained

LIMIT = 50
SEARCH_EXAMPLES = (
    'hive-admin search lighthouse "at dusk"\n'
    "hive-admin search light* --agent iris --since 2d\n"
    "hive-admin search --thread 01m0000000000000000000abcd"
)
SEARCH_DETAIL = (
    "The newest first, one line for each recipient. All the words have to be in the message, whatever their case and\n"
    "accents; words within one pair of quotes stand together, and light* is any word that begins so."
)
RETENTION_EXAMPLES = "hive-admin retention --days 90\nhive-admin retention --days 90 --apply"
RETENTION_DETAIL = (
    "Shows what would go; --apply removes it. A conversation goes as a whole, when all of it was acknowledged, is dead\n"
    "or has expired, longer ago than that; what is not acknowledged stays. The broker does this once a day by itself\n"
    "when HIVE_BROKER_RETENTION_DAYS is set."
)


# ---- what is typed


def search_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("words", metavar="WORDS", nargs="*", help="what the message has in it")
    parser.add_argument("--agent", metavar="NAME", type=arguments.anybody, help="who sent or got it")
    parser.add_argument(
        "--thread",
        metavar="ID",
        type=arguments.message_id,
        help="the conversation of this message",
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=instant,
        default=0,
        help="2026-11-24, 2026-11-24T09:00, or 3d, 2h, 10m ago",
    )
    parser.add_argument("--until", metavar="WHEN", type=instant, default=0, help="before this")
    parser.add_argument(
        "--limit", metavar="N", type=arguments.found, default=LIMIT, help=f"how many, 1 to 500 ({LIMIT})"
    )
    parser.add_argument(
        "--before", metavar="KEY", type=arguments.key, default=0, help="go on here, as the page before says"
    )


def retention_arguments(parser: ArgumentParser) -> None:
    text = "how long what is over is kept (as the broker's settings say)"
    parser.add_argument("--days", metavar="N", type=arguments.days, default=0, help=text)
    parser.add_argument("--apply", action="store_true", help="remove it; without this nothing is changed")


def instant(text: str) -> int:
    """As milliseconds since the epoch: an instant on this host's clock, or so long ago."""
    if found := reminders.AFTER.match(text):
        return max(1, now_ms() - int(found[1]) * reminders.UNITS[found[2]] * 1000)
    try:
        instant_ms = int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        instant_ms = 0
    if instant_ms <= 0:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not an instant such as 2026-11-24T09:00, 3d or 2h")
    return instant_ms


def looked_for(words: Sequence[str]) -> str:
    """The shell has taken the quotes off what was quoted: words within one pair of them stand together."""
    return " ".join(f'"{word}"' if " " in word.strip() and '"' not in word else word for word in words)


# ---- the commands


async def search(session: Session, given: Namespace) -> int:
    found = await _found(session, given)
    if not session.show(found):
        session.screen.found(found.receipts)
        if found.before:
            session.screen.say(f"there is more: the same again with --before {found.before}", "dim")
    return 0


async def _found(session: Session, given: Namespace) -> Found:
    """As many as were asked for; the broker may give them in several parts when it has to look far."""
    receipts: list[Receipt] = []
    before = given.before
    while True:
        page = await session.broker.search(
            looked_for(given.words),
            agent=given.agent or "",
            root=given.thread or "",
            since_ms=given.since,
            until_ms=given.until,
            before=before,
            limit=given.limit - len(receipts),
        )
        receipts += page.receipts
        before = page.before
        if not before or len(receipts) >= given.limit:
            return Found(receipts=receipts, before=before)


async def retention(session: Session, given: Namespace) -> int:
    done = await session.broker.retain(given.days, apply=given.apply)
    session.show(done, told(done, now_ms()))
    return 0


def told(done: Retained, now: int) -> str:
    if not done.days:
        return (
            "everything is kept for ever\n"
            "what another number of days would remove: hive-admin retention --days 90\n"
            "what the broker does by itself, once a day, is its setting HIVE_BROKER_RETENTION_DAYS"
        )
    if not done.messages:
        return f"nothing is over for more than {done.days} days"
    questions = f" and {_many(done.questions, 'question')}" if done.questions else ""
    when = f"stored {times.when(done.oldest_ms, now)} to {times.when(done.newest_ms, now)}"
    what = f"{_many(done.messages, 'message')}{questions}, {_size(done.bytes)} of text, {when}"
    if done.applied:
        return f"removed {what}\nwhat that frees of the database is used again; the file does not shrink"
    return f"would remove {what}\nremove it: hive-admin retention --days {done.days} --apply"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
