"""What was asked: read from the messages of a request, as the CLI sends them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAIL_MAX = 64
BODY_CHARACTERS_MAX = 60_000
_CLOSE = "\n</message>"
_ATTRIBUTE = re.compile(r'([a-z_]{1,40})="([^"]*)"')
_TAG = re.compile(r"&lt;(?=/?message)", re.IGNORECASE)
_JOINED = "The user sent a new message while you were working:"
_CUT_OFF = ("[Tool call interrupted", "[Request interrupted")

Block = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One `<message ...>` block."""

    id: str
    sender: str
    kind: str
    body: str
    attributes: dict[str, str]

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    @property
    def choices(self) -> list[str]:
        try:
            found = json.loads(self.get("choices") or "[]")
        except (ValueError, RecursionError):
            return []
        return [str(choice) for choice in found] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool call gave."""

    text: str
    is_error: bool = False

    def get(self, key: str) -> Any:
        """A field of the reply, when the text is the JSON of one; else None."""
        try:
            reply = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return reply.get(key) if isinstance(reply, dict) else None


@dataclass(slots=True)
class PastCall:
    id: str
    name: str
    input: dict[str, Any]
    result: Result | None = None
    """None: it was cut off, and what became of it is not known."""


@dataclass(frozen=True, slots=True)
class Asked:
    mail: list[Mail]
    """Of the current turn, in the order they came."""
    tools: frozenset[str]
    past: dict[str, PastCall] = field(default_factory=dict)
    """Every call of the conversation by its id, oldest first."""


def read(body: dict[str, Any]) -> Asked:
    messages = [message for message in _list(body.get("messages")) if isinstance(message, dict)]
    tools = frozenset(str(tool.get("name")) for tool in _list(body.get("tools")) if isinstance(tool, dict))
    turn = messages[_turn_begins(messages) :]
    mail = {mail.id: mail for message in turn for text in _texts(message) for mail in _mail(text)}
    return Asked(list(mail.values())[:MAIL_MAX], tools, _past(messages))


def last_text(body: dict[str, Any]) -> str:
    """The newest text of the user, mail or not."""
    for message in reversed(_list(body.get("messages"))):
        if isinstance(message, dict) and message.get("role") == "user":
            return "\n".join(_texts(message))
    return ""


def _turn_begins(messages: list[Block]) -> int:
    """The place after the last assistant message that ended a turn: one that called no tool."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if message.get("role") == "assistant" and not any(_blocks(message, "tool_use")):
            return place + 1
    return 0


def _texts(message: Block) -> list[str]:
    """Where mail may stand: in what the user typed, and in the system's note of what joined the turn. What a tool
    printed is not mail, whatever it looks like."""
    content = message.get("content")
    texts = (
        [content]
        if isinstance(content, str)
        else [str(block.get("text")) for block in _blocks(message, "text")]
    )
    if message.get("role") == "user":
        return texts
    if message.get("role") == "system":
        return [text for text in texts if text.startswith(_JOINED)]
    return []


def _mail(text: str) -> Iterator[Mail]:
    """By hand rather than by one pattern: a text of many openings and no end would take a pattern for ever."""
    end = 0
    while (start := text.find("<message ", end)) >= 0:
        opened = text.find(">\n", start)
        closed = text.find(_CLOSE, max(opened, 0))
        if opened < 0 or closed < 0:
            return
        end = closed + len(_CLOSE)
        attributes = {
            name: html.unescape(value)
            for name, value in _ATTRIBUTE.findall(text[start : min(opened, start + 8_000)])
        }
        body = text[opened + 2 : closed][:BODY_CHARACTERS_MAX]
        yield Mail(
            id=attributes.get("id", ""),
            sender=attributes.get("from", ""),
            kind=attributes.get("kind", "message"),
            body=_TAG.sub("<", body),
            attributes=attributes,
        )


def _past(messages: list[Block]) -> dict[str, PastCall]:
    past: dict[str, PastCall] = {}
    for message in messages:
        for block in _blocks(message, "tool_use"):
            given = block.get("input")
            id = str(block.get("id"))
            past[id] = PastCall(id, str(block.get("name")), given if isinstance(given, dict) else {})
        for block in _blocks(message, "tool_result"):
            if call := past.get(str(block.get("tool_use_id"))):
                call.result = _result(block)
    return past


def _result(block: Block) -> Result | None:
    content = block.get("content")
    text = (
        content
        if isinstance(content, str)
        else "\n".join(str(part.get("text")) for part in _blocks(block, "text"))
    )
    return None if text.startswith(_CUT_OFF) else Result(text, bool(block.get("is_error")))


def _blocks(message: Block, kind: str) -> Iterator[Block]:
    for block in _list(message.get("content")):
        if isinstance(block, dict) and block.get("type") == kind:
            yield block


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
