"""What each tool takes: the schema the model sees, and the check of what it sends, are the same Struct."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from libhive.messages.broker import BODY_CHARACTERS_MAX, LINE_CHARACTERS_MAX, CatchUp


def says(description: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=description, **limits)


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


Text = Annotated[str, msgspec.Meta(min_length=1, max_length=BODY_CHARACTERS_MAX)]
Who = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class NoArguments(Arguments, frozen=True, kw_only=True):
    pass


class SendArguments(Arguments, frozen=True, kw_only=True):
    to: Annotated[
        str | list[str], says("an agent's name, `operator`, `manager` or `all`; or a list of names")
    ]
    text: Text
    in_reply_to: Annotated[
        str, says("the id of the message this answers; by default the newest one from them")
    ] = ""


class AskArguments(Arguments, frozen=True, kw_only=True):
    to: Annotated[Who, says("an agent's name, `operator` or `manager`")]
    question: Text
    choices: Annotated[
        list[str], says("the answers to choose from; leave it out for a free answer", max_length=12)
    ] = []
    deadline_seconds: Annotated[
        int, says("after so long the default is the answer; 0: never", ge=0, le=30 * 86_400)
    ] = 0
    default: Annotated[str, says("the answer when the deadline passes", max_length=LINE_CHARACTERS_MAX)] = ""


class AnswerArguments(Arguments, frozen=True, kw_only=True):
    question: Annotated[str, says("the `question` attribute of the message that asks")]
    text: Text


class RemindArguments(Arguments, frozen=True, kw_only=True):
    text: Text
    after_seconds: (
        Annotated[int, msgspec.Meta(description="from now; give this or `at`", ge=1, le=366 * 86_400)] | None
    ) = None
    at: Annotated[str | None, says("an instant in ISO 8601, e.g. 2026-11-23T15:00:00Z")] = None
    cron: Annotated[
        str | None,
        says(
            "to be reminded again and again: minute, hour, day of month, month, day of week, e.g. `0 9 * * MON-FRI`"
        ),
    ] = None
    zone: Annotated[
        str, says("the time zone of `cron`, e.g. Europe/Berlin; UTC by default", max_length=64)
    ] = ""
    catch_up: Annotated[
        CatchUp,
        says("after a time when the hive was down, of `cron`: one for all that were missed, none, or each"),
    ] = "once"


class CancelReminderArguments(Arguments, frozen=True, kw_only=True):
    id: Annotated[str, says("the reminder's id, as `remind` gave it or `reminders` lists it")]


class StatusArguments(Arguments, frozen=True, kw_only=True):
    text: Annotated[str, says("what you are at, in one line", max_length=LINE_CHARACTERS_MAX)]


class AgentArguments(Arguments, frozen=True, kw_only=True):
    agent: Who


class MessageArguments(Arguments, frozen=True, kw_only=True):
    id: Annotated[str, says("the message's id, as `send` or `ask` gave it")]


class NameArguments(Arguments, frozen=True, kw_only=True):
    name: Annotated[Who, says("the agent's name")]


class LogsArguments(Arguments, frozen=True, kw_only=True):
    name: Annotated[Who, says("the agent's name")]
    lines: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 100


class ProposeArguments(Arguments, frozen=True, kw_only=True):
    agent: Who
    files: Annotated[
        dict[str, str], says("whole files by path: agent.toml, prompt.md; others stay as they are")
    ]
    message: Annotated[str, says("what changes, in one line", min_length=1, max_length=500)]
    rationale: Annotated[str, says("why; the operator reads it last", max_length=8_000)] = ""


class SpawnArguments(Arguments, frozen=True, kw_only=True):
    name: Annotated[Who, says("small letters, digits and '-'")]
    prompt: Annotated[str, says("who the agent is and what it does, as text to it", min_length=1)]
    model: Annotated[str, says("haiku (default), sonnet or opus", max_length=80)] = ""
    packages: Annotated[list[str], says("programs it needs, by package name")] = []
    rationale: Annotated[str, says("why; the operator reads it last", max_length=8_000)] = ""
