"""What is known of one turn: the mail it took, what its tools did, and how it ended. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from libhive.harness.cli import Event
from libhive.harness.policy import Outcome
from libhive.harness.tools import command_id
from libhive.harness.transcript import TurnEnd, Usage
from libhive.messages.broker import BODY_CHARACTERS_MAX, Mail, Send
from libhive.names import OPERATOR

_KEPT_CHARACTERS = 4_000


@dataclass(slots=True)
class Turn:
    """Begins with at least one mail; others join it."""

    id: str
    session: str
    started_ms: int
    mails: list[Mail]
    written_to: set[str]
    calls: dict[str, list[str]] = field(default_factory=dict)
    """By call, the tool_use blocks that had an answer."""
    tool_uses: set[str] = field(default_factory=set)
    error: str = ""
    resets_at_ms: int = 0
    interrupted: bool = False

    @property
    def first_mail(self) -> str:
        return self.mails[0].id

    def newest_from(self, sender: str) -> str:
        return next((mail.id for mail in reversed(self.mails) if mail.sender == sender), "")

    def only_mail_from(self, sender: str) -> str:
        """The one mail of this turn, if it is from `sender`. With several, which one is meant is the model's to say: a
        wrong guess would hand somebody who waits for a reply another one's."""
        return self.mails[0].id if len(self.mails) == 1 and self.mails[0].sender == sender else ""

    def count(self, key: str, tool_use: str) -> int:
        known = self.calls.get(key, [])
        return known.index(tool_use) if tool_use and tool_use in known else len(known)

    def answered(self, key: str, tool_use: str) -> None:
        known = self.calls.setdefault(key, [])
        if not tool_use or tool_use not in known:
            known.append(tool_use)

    def hear_assistant(self, event: Event) -> None:
        self.error = str(event.get("error") or "")
        self.tool_uses |= {
            str(block.get("id")) for block in _blocks(event) if block.get("type") == "tool_use"
        }

    def hear_rate_limit(self, event: Event) -> None:
        info = plain(event.get("rate_limit_info"))
        resets = info.get("resetsAt")
        if info.get("status") == "rejected" and isinstance(resets, int | float):
            self.resets_at_ms = int(resets * 1000)

    def end(self, result: Event, outcome: Outcome, *, settles: bool) -> TurnEnd:
        text = str(result.get("result") or "")
        reply = self.reply(text) if outcome is Outcome.DONE else None
        return TurnEnd(
            turn=self.id,
            session=self.session,
            outcome=outcome.value,
            woken_by="\n".join(f"{mail.sender}: {mail.body}" for mail in self.mails)[:_KEPT_CHARACTERS],
            text=text[:_KEPT_CHARACTERS],
            usage=usage_of(result),
            mails=tuple(mail.id for mail in self.mails) if settles else (),
            reply_id=command_id(self.first_mail, "final text", 0) if reply else "",
            reply=reply,
        )

    def reply(self, text: str) -> Send | None:
        """The final text goes to the operator when she woke the turn and it has not written to her."""
        asked = self.newest_from(OPERATOR)
        if not asked or OPERATOR in self.written_to or not text.strip():
            return None
        return Send(to=[OPERATOR], body=text[:BODY_CHARACTERS_MAX], in_reply_to=asked)


def said(result: Event) -> str:
    """Why a result is an error, in the CLI's own words."""
    errors = result.get("errors")
    text = result.get("result") or (" ".join(map(str, errors)) if isinstance(errors, list) else "")
    return " ".join(str(text or result.get("subtype")).split())[:400]


def usage_of(result: Event) -> Usage:
    """What this turn used. `usage` and `modelUsage` add up over a session, so they are not it."""
    models = [plain(model) for model in plain(result.get("model_usage_since_last_result")).values()]
    return Usage(
        input_tokens=_sum(models, "inputTokens"),
        output_tokens=_sum(models, "outputTokens"),
        cache_read_tokens=_sum(models, "cacheReadInputTokens"),
        cache_write_tokens=_sum(models, "cacheCreationInputTokens"),
    )


def plain(value: Any) -> dict[str, Any]:
    """A part of an event that ought to be a map: the CLI releases often, and no event of it may be fatal."""
    return value if isinstance(value, dict) else {}


def plain_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _blocks(event: Event) -> list[dict[str, Any]]:
    return [plain(block) for block in plain_list(plain(event.get("message")).get("content"))]


def _sum(models: Iterable[dict[str, Any]], name: str) -> int:
    return sum(model[name] for model in models if isinstance(model.get(name), int))
