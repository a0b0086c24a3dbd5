"""Names, ids and numbers as they are typed: what these refuse, argparse makes a usage error (exit code 2)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from libhive.messages.broker import Line
from libhive.names import HIVE, MANAGER, OPERATOR, Id, agent_name
from libhive.problems import Problem
from libhive.spec import ModelName, PackageName

EVERYBODY = frozenset({"all", "manager"})
WAIT_SECONDS_MAX = 86_400
Ending = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}\Z")]


def agent(text: str) -> str:
    try:
        return agent_name(text)
    except Problem as problem:
        raise argparse.ArgumentTypeError(f"{problem.message}: {problem.hint}") from None


def recipient(text: str) -> str:
    """An agent, `manager`, or `all`."""
    return text if text in EVERYBODY else agent(text)


def anybody(text: str) -> str:
    """Whoever sends or gets mail: an agent, the operator, the hive itself; `manager` stands for its name."""
    return {"manager": MANAGER, OPERATOR: OPERATOR, HIVE: HIVE}.get(text) or agent(text)


def file(text: str) -> Path:
    return Path(text).absolute()


def number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10):
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a proposal's number: hive-admin proposals lists them"
        )
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= WAIT_SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a number of seconds from 0 to {WAIT_SECONDS_MAX}"
        )
    return value


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def checked(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and lowest <= int(text) <= highest):
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from {lowest} to {highest}")
        return int(text)

    return checked


def _of(kind: Any, what: str) -> Callable[[str], str]:
    def checked(text: str) -> str:
        try:
            value: str = msgspec.convert(text, kind)
        except msgspec.ValidationError:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is not {what}") from None
        return value

    return checked


lines = _whole(1, 2_000)
timeout = _whole(1, 600)
found = _whole(1, 500)
days = _whole(1, 36_500)
decisions = _whole(1, 500)
key = _whole(1, 999_999_999)
line = _of(Line, "one line: 500 characters at most")
message_id = _of(Id, "an id: 8 to 64 small letters and digits, as hive-admin inbox shows them")
ending = _of(Ending, "an id, or an end of one, as hive-admin answer shows them")
model = _of(ModelName, "a model's name, such as haiku or sonnet")
package = _of(PackageName, "a package's name: small letters, digits and + . -")
