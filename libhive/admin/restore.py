"""hive-admin restore: a backup in the place of what is there."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from libhive.admin import replace
from libhive.admin.session import Session, at_a_terminal
from libhive.clock import iso, now_ms
from libhive.problems import NotFound
from libhive.release import how_to

REFUSED = 1


def unconfirmed(given: Namespace) -> str:
    if given.yes or (at_a_terminal() and not given.json):
        return ""
    return f"there is nobody to ask whether you are sure; give --yes: hive-admin restore {given.file} --yes"


async def restore(session: Session, given: Namespace) -> int:
    file, paths = given.file, session.paths
    if not file.is_file():
        raise NotFound(f"there is no file {file}")
    if not given.yes and session.ask(f"Put {file.name} in the place of {paths.state}? Type yes: ") != "yes":
        session.screen.say("nothing was changed")
        return REFUSED
    with session.screen.progress(session.as_json) as step:
        restored = await asyncio.to_thread(
            replace.restore, paths, file, now_ms(), lambda size: step("reading the backup", size)
        )
    if not session.show(restored):
        _render(session, restored)
    return 0


def _render(session: Session, restored: replace.Restored) -> None:
    screen = session.screen
    screen.say(f"restored: the hive is as it was at {iso(restored.made_ms)}", "green")
    screen.say(
        f"{len(restored.databases)} databases, {restored.files} files, {restored.links} links in {session.paths.state}"
    )
    if restored.kept:
        screen.say(f"what was there before is kept in {restored.kept}; remove it when you are content")
    screen.say("mail that was acknowledged after that instant will be offered again")
    screen.say(f"start it with: {how_to('start')}")
