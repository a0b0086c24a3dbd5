"""What can go wrong on purpose: a stable code, a sentence for a person, a hint of what to try.

A `Problem` travels the wire and is printed by hive-admin; anything else that is raised is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class Problem(Exception):  # noqa: N818 - an expected outcome with a code, not an error of the program
    """Something expected went wrong; `code` is stable, `message` and `hint` are for people."""

    code: ClassVar[str] = "problem"
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "", details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details = details or {}


class AlreadyExists(Problem):
    code = "already-exists"


class BadFrame(Problem):
    """The bytes are not one msgpack map within the caps of `libhive.wire`."""

    code = "bad-frame"


class BadRequest(Problem):
    """The frame is whole, but what it asks is not of the form the message has."""

    code = "bad-request"


class Conflict(Problem):
    """The thing is not in the state that the request needs."""

    code = "conflict"


class ConversationPaused(Problem):
    """It went over its budget, and the operator has not decided yet how it goes on."""

    code = "conversation-paused"


class InternalError(Problem):
    """A bug on the other side; its log has the traceback, and its supervisor restarts it."""

    code = "internal-error"
    default_hint = "the service's log has the details: hive-admin logs --service NAME"


class NeedsLogin(Problem):
    code = "needs-login"
    default_hint = "log in with: hive-admin login"


class NoSpace(Problem):
    code = "no-space"
    default_hint = "free some disk space; reading and stopping still work"


class NotAllowed(Problem):
    code = "not-allowed"


class NotFound(Problem):
    code = "not-found"


class StaleApproval(Problem):
    """What was reviewed is not what would be deployed: the base, the tree or the effect has moved."""

    code = "stale"
    default_hint = "look at the proposal again: hive-admin proposal N"


class StaleLease(Problem):
    """Another harness has taken over this mailbox since the lease was given."""

    code = "stale-lease"


class TooMany(Problem):
    code = "too-many"


class Unavailable(Problem):
    """Nobody answered in time. For a command this says nothing about whether it took effect: repeat it by its id."""

    code = "unavailable"
    default_hint = (
        "it should be back soon: hive-admin status; a hive that is down is started with: make up "
        "(or, where it is installed: sudo systemctl start hyperhive.target)"
    )


class UnknownRecipient(Problem):
    code = "unknown-recipient"
    default_hint = "who is there: hive-admin agents"


class UnsupportedVersion(Problem):
    code = "unsupported-version"


PROBLEMS: dict[str, type[Problem]] = {
    kind.code: kind
    for kind in (
        AlreadyExists,
        BadFrame,
        BadRequest,
        Conflict,
        ConversationPaused,
        InternalError,
        NeedsLogin,
        NoSpace,
        NotAllowed,
        NotFound,
        StaleApproval,
        StaleLease,
        TooMany,
        Unavailable,
        UnknownRecipient,
        UnsupportedVersion,
    )
}


def problem_from(code: str, message: str, hint: str = "", details: dict[str, str] | None = None) -> Problem:
    """The problem a peer sent. A code of a newer version keeps its text and loses only its own type."""
    kind = PROBLEMS.get(code)
    if kind is None:
        return Problem(f"{message} ({code})", hint, details)
    return kind(message, hint, details)
