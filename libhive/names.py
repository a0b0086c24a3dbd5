"""Names and ids: the only way from outside text to a path, a unit name or a row."""

from __future__ import annotations

import os
import re
import time
from typing import Annotated, Final, NewType

import msgspec

from libhive.problems import BadRequest

AgentName = NewType("AgentName", str)
"""A name that `agent_name` has let through; safe as a path component and in a unit or machine name."""

OPERATOR: Final = "operator"
HIVE: Final = "hive"
MANAGER: Final = AgentName("hm1nd")
RESERVED: Final = frozenset(
    {"all", "any", "hive", "hyperhive", "manager", "nobody", "none", "operator", "root", "self", "system"}
)

_NAME_PATTERN: Final = r"^[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?\Z"
_NAME: Final = re.compile(_NAME_PATTERN)
_ID_PATTERN: Final = r"^[0-9a-z][0-9a-z-]{7,63}\Z"

Name = Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]
"""An agent's name, `operator`, `hive`, `manager` or `all`, as a field of a message."""
Id = Annotated[str, msgspec.Meta(pattern=_ID_PATTERN)]
"""An id made by its caller: of a command, and so of the message, question or reminder that it made."""

OptionalName = Annotated[str, msgspec.Meta(pattern=rf"^(?:{_NAME_PATTERN[1:-2]})?\Z")]
OptionalId = Annotated[str, msgspec.Meta(pattern=rf"^(?:{_ID_PATTERN[1:-2]})?\Z")]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(one + two for one in _ALPHABET for two in _ALPHABET)
"""Two at once: an id is made for every message."""


def agent_name(text: str) -> AgentName:
    """`text` as an agent's name.

    Raises BadRequest: `^[a-z][a-z0-9-]{0,30}$` without a trailing `-`, and not a reserved word.
    """
    if not _NAME.fullmatch(text):
        raise BadRequest(
            f"{text!r:.80} is not an agent's name",
            "a name has 1 to 31 characters: small letters, digits and '-', a letter first, no '-' last",
        )
    if text in RESERVED:
        raise BadRequest(f"{text!r} is a reserved word", "choose another name")
    return AgentName(text)


def new_id() -> str:
    """A fresh id of 26 characters that sorts by the millisecond it was made (as a ULID does)."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def machine_name(name: AgentName) -> str:
    """The cage's machine name: `h-<agent>`; the manager's is its own."""
    return name if name == MANAGER else f"h-{name}"
