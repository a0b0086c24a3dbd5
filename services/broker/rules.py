"""What the broker decides: pure functions of what is known and `now`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from libhive.messages.broker import Mailbox, Question, Remind
from libhive.names import HIVE, OPERATOR
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, TooMany, UnknownRecipient

T = TypeVar("T")

ITEM_BYTES: Final = 4_096
"""What an item of a list has beside its text, at the most that matters."""
COPIED_CHARACTERS_MAX: Final = 8_000_000
"""Of one message, over all its recipients: about a tenth of a second of everybody's time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the broker knows of one mailbox when it decides who may be written to."""

    name: str
    uid: int
    open: bool
    allowed: frozenset[str] | None = None

    def as_mailbox(self) -> Mailbox:
        return Mailbox(name=self.name, uid=self.uid, open=self.open)


def recipients(sender: str, to: Sequence[str], directory: Mapping[str, Entry], manager: str) -> list[str]:
    """Who gets it, each once, in the order they were named; `all` is everybody the sender may write to but itself.

    Raises UnknownRecipient, NotAllowed, or BadRequest: one bad name refuses the whole message.
    """
    found: dict[str, None] = {}
    for name in to:
        if name == "all":
            found |= dict.fromkeys(_everybody(sender, directory))
        else:
            found[_one(sender, manager if name == "manager" else name, directory)] = None
    if not found:
        raise UnknownRecipient("there is nobody to send this to")
    return list(found)


def check_copies(recipients: Sequence[str], body: str) -> None:
    """All copies of a message are one commit, and everybody else waits for it. Raises TooMany."""
    if len(recipients) * len(body) > COPIED_CHARACTERS_MAX:
        raise TooMany(
            f"{len(body):,} characters to {len(recipients)} recipients are too much at once",
            f"all copies together have at most {COPIED_CHARACTERS_MAX:,}: send less, or to fewer",
        )


def recipient(sender: str, to: str, directory: Mapping[str, Entry], manager: str) -> str:
    """The one who is asked."""
    if to == "all":
        raise BadRequest("a question goes to one", "name an agent, `manager` or `operator`")
    return recipients(sender, [to], directory, manager)[0]


def _everybody(sender: str, directory: Mapping[str, Entry]) -> list[str]:
    return [
        name
        for name, entry in directory.items()
        if entry.open and name != sender and _may_write(sender, name, directory)
    ]


def _one(sender: str, name: str, directory: Mapping[str, Entry]) -> str:
    if name == sender:
        raise BadRequest("that would be a message to yourself", "use `remind` to hear from yourself later")
    if name == OPERATOR:
        return name
    entry = directory.get(name)
    if entry is None:
        raise UnknownRecipient(f"there is no agent {name!r}")
    if not entry.open:
        raise UnknownRecipient(
            f"the agent {name!r} was destroyed", "the operator can bring it back under its name"
        )
    if not _may_write(sender, name, directory):
        raise NotAllowed(
            f"{sender} may not write to {name}", "its configuration's `allowed_recipients` says whom it may"
        )
    return name


def _may_write(sender: str, name: str, directory: Mapping[str, Entry]) -> bool:
    entry = directory.get(sender)
    return entry is None or entry.allowed is None or name in entry.allowed


def check_answer(question: Question | None, caller: str, text: str) -> Question:
    """Raises NotFound for somebody else's question, Conflict when it is closed, BadRequest when the text is no choice."""
    if question is None or caller not in (question.recipient, HIVE):
        raise NotFound("there is no such question for you")
    if question.state == "answered":
        raise Conflict(f"{question.answered_by} has answered this already: {question.answer}")
    if question.state == "expired":
        raise Conflict("the deadline of this question has passed", "send a message instead")
    if question.choices and text not in question.choices:
        raise BadRequest(
            f"{text!r:.80} is not one of the choices", "choose one of: " + ", ".join(question.choices)
        )
    return question


def deadline(deadline_seconds: int, now: int) -> int:
    return now + deadline_seconds * 1000 if deadline_seconds else 0


def check_default(default: str, choices: Sequence[str]) -> None:
    if default and choices and default not in choices:
        raise BadRequest(
            f"the default {default!r:.80} is not one of the choices", "choose one of: " + ", ".join(choices)
        )


def due(remind: Remind, now: int) -> int:
    """When the reminder fires; an instant that has passed fires at once."""
    if bool(remind.at_ms) == bool(remind.after_seconds):
        raise BadRequest(
            "a reminder is either at an instant or after some seconds", "give one of `at` and `after_seconds`"
        )
    return remind.at_ms or now + remind.after_seconds * 1000


def fitting(items: Sequence[T], text: Callable[[T], str], bytes_max: int) -> list[T]:
    """As many of them, from the first, as one reply can carry; at least one. Whoever wants more pages on by key."""
    found: list[T] = []
    left = bytes_max
    for item in items:
        left -= len(text(item).encode()) + ITEM_BYTES
        if found and left < 0:
            break
        found.append(item)
    return found


def expiry_text(question: Question) -> str:
    if question.default:
        return question.default
    return f"{question.recipient} did not answer before the deadline, and there was no default."
