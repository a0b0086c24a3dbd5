"""Commands about access: the hive's to the model, the operator's browser's to the hive."""

from __future__ import annotations

import sys
from argparse import Namespace
from getpass import getpass

import msgspec

from libhive.admin import times
from libhive.admin.session import Session
from libhive.clock import now_ms
from libhive.messages.gateway import CredentialKind, Login
from libhive.problems import BadRequest

PREFIXES: dict[str, CredentialKind] = {"sk-ant-api": "api_key", "sk-ant-oat": "oauth_token"}
SECRET_CHARACTERS_MAX = 4_096


async def login(session: Session, given: Namespace) -> int:
    """The secret comes from the keyboard or standard input: a command line can be read by others."""
    secret = _read_secret(from_stdin=given.stdin)
    kind = given.kind or recognised(secret)
    try:
        msgspec.convert({"kind": kind, "secret": secret}, Login)
    except msgspec.ValidationError:
        raise BadRequest(
            "this is not an API key or token", "it is one word of 8 to 4096 visible characters"
        ) from None
    done = await session.gateway.login(kind, secret)
    session.show(
        done,
        f"logged in with {'an API key' if kind == 'api_key' else 'a subscription token'}; it stays on this host",
    )
    return 0


def recognised(secret: str) -> CredentialKind:
    for prefix, kind in PREFIXES.items():
        if secret.startswith(prefix):
            return kind
    raise BadRequest(
        f"this begins neither like an API key nor like a token ({', '.join(PREFIXES)})",
        "say which it is: hive-admin login --kind api_key (or oauth_token)",
    )


def _read_secret(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.read(SECRET_CHARACTERS_MAX + 2).strip()
    if not sys.stdin.isatty():
        raise BadRequest(
            "there is no terminal to type the secret on",
            "give it on standard input: hive-admin login --stdin",
        )
    return getpass("API key, or the token that `claude setup-token` printed (not shown): ").strip()


async def logout(session: Session, given: Namespace) -> int:
    done = await session.gateway.logout()
    session.show(done, "logged out; the rehearsal model answers from now on")
    return 0


async def link(session: Session, given: Namespace) -> int:
    made = await session.dashboard.make_link()
    if not session.show(made):
        session.screen.say(made.url)
        sys.stderr.write(f"opens the dashboard once, until {times.until(made.expires_ms, now_ms())}\n")
    return 0
