"""What a command is given: the services' clients, where to print, and a person to ask if there is one."""

from __future__ import annotations

import getpass
import grp
import json
import sys
from typing import Any

import msgspec

from libhive.admin.render import Screen
from libhive.clients.approvals import Approvals
from libhive.clients.broker import Broker
from libhive.clients.dashboard import Dashboard
from libhive.clients.gateway import Gateway
from libhive.clients.lifecycle import Lifecycle
from libhive.clients.updater import Updater
from libhive.link import Link
from libhive.logs import safe_text
from libhive.messages.base import Ping, Pong
from libhive.names import OPERATOR
from libhive.paths import Paths
from libhive.problems import NotAllowed, Unavailable
from libhive.release import how_to

SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
ADMINS = "hive-admin"
PING_SECONDS = 1.2
"""Long enough for a service that is just being restarted."""


class Session:
    def __init__(self, paths: Paths, *, as_json: bool) -> None:
        self.paths, self.as_json = paths, as_json
        self.link = Link(paths, OPERATOR)
        self.screen = Screen()
        self.approvals, self.broker = Approvals(self.link), Broker(self.link)
        self.dashboard, self.gateway = Dashboard(self.link), Gateway(self.link)
        self.lifecycle, self.updater = Lifecycle(self.link), Updater(self.link)

    async def ping(self, service: str) -> Pong:
        """Raises Unavailable soon for a service that is not there, before a call that may take its time."""
        try:
            if not self.paths.bus(service).parent.is_dir():
                raise self.nothing_runs()
        except PermissionError:
            raise not_an_admin(self.paths) from None
        try:
            return await self.link.call(service, Ping(), timeout_seconds=PING_SECONDS)
        except Unavailable:
            raise Unavailable(
                f"{service} does not answer",
                f"it should be back soon; its log: hive-admin logs {service} --service",
            ) from None

    def nothing_runs(self) -> Unavailable:
        return Unavailable(
            f"the hive is not running: nobody answers in {self.paths.run}",
            f"start it with: {how_to('start')}; if it runs elsewhere, set HIVE_RUN_DIR to its run directory",
        )

    def show(self, reply: Any, human: str | None = None) -> bool:
        """Prints the reply as JSON if asked for, else `human`. False: a person has yet to be shown it."""
        if self.as_json:
            print_json(reply)
        elif human is not None:
            self.screen.say(human)
        return self.as_json or human is not None

    def can_ask(self) -> bool:
        return at_a_terminal() and not self.as_json

    def ask(self, question: str) -> str:
        """What the person types; empty at the end of input."""
        sys.stdout.write(safe_text(question))
        sys.stdout.flush()
        return sys.stdin.readline().strip()


def not_an_admin(paths: Paths) -> NotAllowed:
    try:
        group = grp.getgrgid(paths.run.stat().st_gid).gr_name
    except (KeyError, OSError):
        group = ADMINS
    return NotAllowed(
        f"{paths.run} is for members of the group {group} alone, which you are not",
        f"sudo adduser {getpass.getuser()} {group}, then log in anew",
    )


def at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """ASCII only: what could act on a terminal is written as an escape."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=indent) + "\n")
    sys.stdout.flush()
