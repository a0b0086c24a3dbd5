"""How a turn can end, and what follows from each. Pure: the closed list is here, and nothing is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from libhive.messages.broker import HarnessState


class Outcome(StrEnum):
    """How a turn, or the attempt to begin one, has ended."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    """The operator cut it."""
    NEEDS_LOGIN = "needs-login"
    LIMITED = "limited"
    """The plan's limit, or too many requests."""
    NO_CREDIT = "no-credit"
    NO_MODEL = "no-model"
    OVERLOADED = "overloaded"
    """The API is there and has a bad time."""
    OFFLINE = "offline"
    """No answer from the API at all."""
    TOO_LONG = "too-long"
    """The conversation does not fit the model any more, and compacting did not help."""
    BAD_REQUEST = "bad-request"
    """The API refuses what we sent: this mail, or a conversation that went wrong."""
    SESSION_LOST = "session-lost"
    """The CLI cannot resume its session."""
    CANNOT_START = "cannot-start"
    TOOLS_MISSING = "tools-missing"
    """The CLI runs, but without the hive's tools."""
    CRASHED = "crashed"
    """The CLI went away in mid-turn."""
    NO_SPACE = "no-space"
    FAILED = "failed"
    """Anything else that the CLI calls an error."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`mail`: acknowledge it; keep it and try again ourselves, because it is not to blame; or give it back, so that
    the broker counts the attempt and a mail that breaks its reader each time ends as dead."""

    mail: Literal["ack", "keep", "give-back"]
    state: HarnessState
    wait_seconds: float = 0.0
    """Doubled with each time in a row, up to:"""
    wait_seconds_max: float = 0.0
    fresh_session_at: int = 0
    """At so many times in a row the session is given up; 0: never."""


POLICIES: dict[Outcome, Policy] = {
    Outcome.DONE: Policy("ack", "idle"),
    Outcome.INTERRUPTED: Policy("ack", "idle"),
    Outcome.NEEDS_LOGIN: Policy("keep", "needs-login", 5, 60),
    Outcome.LIMITED: Policy("keep", "limited", 30, 900),
    Outcome.NO_CREDIT: Policy("keep", "limited", 60, 900),
    Outcome.NO_MODEL: Policy("keep", "failed", 60, 900),
    Outcome.OVERLOADED: Policy("keep", "limited", 5, 300),
    Outcome.OFFLINE: Policy("keep", "limited", 2, 60),
    Outcome.TOO_LONG: Policy("give-back", "starting", 1, 300, fresh_session_at=1),
    Outcome.BAD_REQUEST: Policy("give-back", "failed", 1, 300, fresh_session_at=2),
    Outcome.SESSION_LOST: Policy("keep", "starting", 0, 60, fresh_session_at=1),
    Outcome.CANNOT_START: Policy("keep", "failed", 1, 60, fresh_session_at=3),
    Outcome.TOOLS_MISSING: Policy("keep", "starting", 1, 30),
    Outcome.CRASHED: Policy("give-back", "starting", 0.2, 60, fresh_session_at=3),
    Outcome.NO_SPACE: Policy("keep", "failed", 5, 60),
    Outcome.FAILED: Policy("give-back", "failed", 2, 300, fresh_session_at=3),
}

_BY_ERROR = {
    "authentication_failed": Outcome.NEEDS_LOGIN,
    "oauth_org_not_allowed": Outcome.NEEDS_LOGIN,
    "billing_error": Outcome.NO_CREDIT,
    "model_not_found": Outcome.NO_MODEL,
    "overloaded": Outcome.OVERLOADED,
    "rate_limit": Outcome.LIMITED,
    "server_error": Outcome.OVERLOADED,
}
_BY_STATUS = {
    401: Outcome.NEEDS_LOGIN,
    402: Outcome.NO_CREDIT,
    403: Outcome.NEEDS_LOGIN,
    404: Outcome.NO_MODEL,
    413: Outcome.TOO_LONG,
    429: Outcome.LIMITED,
}


def outcome_of(result: dict[str, Any], error: str = "", *, interrupted: bool = False) -> Outcome:
    """What a `result` event says. Its subtype is "success" even for errors of the API; `error` is the code that the
    assistant event before it carried."""
    if not result.get("is_error"):
        return Outcome.DONE
    reason, status = str(result.get("terminal_reason")), result.get("api_error_status")
    if interrupted and reason.startswith("aborted"):
        return Outcome.INTERRUPTED
    if reason == "prompt_too_long":
        return Outcome.TOO_LONG
    if error in _BY_ERROR:
        return _BY_ERROR[error]
    text = str(result.get("result", "")).lower()
    return _by_status(status, text) if isinstance(status, int) else _without_status(reason)


def _by_status(status: int, text: str) -> Outcome:
    if status == 400 and "credit" in text:
        return Outcome.NO_CREDIT
    if status == 400 and "too long" in text:
        return Outcome.TOO_LONG
    if status >= 500:
        return Outcome.OVERLOADED
    return _BY_STATUS.get(status, Outcome.BAD_REQUEST)


def _without_status(reason: str) -> Outcome:
    return Outcome.OFFLINE if reason == "api_error" else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the CLI has to be stopped. `resets_at_ms`: when a limit ends, if the API has said so."""

    outcome: Outcome
    why: str
    resets_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. `until_ms` is when to try again, 0: at once."""

    mail: Literal["ack", "keep", "give-back"]
    state: HarnessState
    fresh_session: bool
    until_ms: int


def next_step(outcome: Outcome, times: int, now_ms: int, resets_at_ms: int = 0) -> Step:
    """`times`: how often in a row it has ended like this, this time included."""
    policy = POLICIES[outcome]
    wait = min(policy.wait_seconds * 2 ** min(times - 1, 20), policy.wait_seconds_max)
    until_ms = now_ms + int(wait * 1000) if wait else 0
    if outcome is Outcome.LIMITED and resets_at_ms > now_ms:
        until_ms = resets_at_ms
    fresh = policy.fresh_session_at > 0 and times % policy.fresh_session_at == 0
    return Step(policy.mail, policy.state, fresh, until_ms)
