"""A proposal, and the tags that tell its story: `proposal/3`, `approved/3`, `building/3`, `deployed/3` ..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, get_args

import msgspec

from libhive.messages.approvals import ProposalKind, ProposalState
from libhive.names import AgentName

NEXT: Final[dict[ProposalState, tuple[ProposalState, ...]]] = {
    "proposed": ("approved", "denied", "cancelled", "expired", "stale"),
    "approved": ("building", "stale"),
    "building": ("deployed", "failed"),
}
"""Which tag may follow which; from a state that is not here nothing follows."""
ORDER: Final[tuple[ProposalState, ...]] = get_args(ProposalState)
"""In every story the states come in this order."""

_WORDS: Final = {"proposal" if state == "proposed" else state: state for state in ORDER}
_TAG: Final = re.compile(rf"({'|'.join(_WORDS)})/([1-9][0-9]{{0,8}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One proposal as the database has it."""

    number: int
    command: str
    """The id of the command that made it."""
    kind: ProposalKind
    agent: AgentName
    state: ProposalState
    requester: str
    message: str
    rationale: str
    created_ms: int
    decided_ms: int = 0
    decided_by: str = ""
    reason: str = ""
    base: str
    """The commit that `main` was at; empty for an agent that had none."""
    commit: str
    tree: str


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tag's message says to a program. With it a row can be made again from its tag."""

    command: str
    by: str
    at_ms: int
    reason: str = ""
    digest: str = ""
    kind: ProposalKind = "change_config"
    rationale: str = ""


def tag_name(state: ProposalState, number: int) -> str:
    return f"{'proposal' if state == 'proposed' else state}/{number}"


def parse_tag(name: str) -> tuple[ProposalState, int] | None:
    """None for a tag that is not part of a story (`deployed/0`, or somebody's own)."""
    found = _TAG.fullmatch(name)
    return (_WORDS[found[1]], int(found[2])) if found else None


def tag_message(state: ProposalState, number: int, note: Note) -> str:
    """A sentence for people, and the note as one line of JSON, where no text can pass for another field."""
    return f"{tag_name(state, number)} by {note.by}\n\n{msgspec.json.encode(note).decode()}\n"


def read_note(message: str) -> Note | None:
    """None when the tag was not written by us."""
    lines = message.rstrip("\n").split("\n")
    try:
        return msgspec.json.decode(lines[-1], type=Note)
    except msgspec.MsgspecError:
        return None
