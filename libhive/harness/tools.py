"""The tools the model has, in one table. What a tool may do is decided behind the doors; here it is only asked for."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from libhive.clock import iso
from libhive.door_client import DoorClient
from libhive.harness.arguments import (
    AgentArguments,
    AnswerArguments,
    Arguments,
    AskArguments,
    CancelReminderArguments,
    LogsArguments,
    MessageArguments,
    NameArguments,
    NoArguments,
    ProposeArguments,
    RemindArguments,
    SendArguments,
    SpawnArguments,
    StatusArguments,
)
from libhive.harness.settings import Settings
from libhive.messages import approvals, broker, lifecycle
from libhive.messages.base import Reply, Request
from libhive.names import OPERATOR, new_id
from libhive.problems import BadRequest, Problem, Unavailable

log = logging.getLogger("hive.harness")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class Context(Protocol):
    """What a tool needs to know of the turn that calls it."""

    async def ready(self, tool_use: str) -> None:
        """Returns when the events up to this tool_use block are known here. Raises Conflict when the turn is over."""

    def first_mail(self) -> str:
        """The id of the mail this turn began with; empty when it began with none."""

    def count(self, key: str, tool_use: str) -> int:
        """How many calls equal to this one the turn has had an answer to; the same call again is not another one."""

    def answered(self, key: str, tool_use: str) -> None: ...

    def only_mail_from(self, sender: str) -> str:
        """The id of the one mail that this turn took, if it is from `sender`; else nothing."""

    async def wrote_to(self, recipients: list[str]) -> None: ...

    def asked_operator(self, question: str) -> None: ...

    async def take_waiting(self) -> list[str]:
        """Mail that waits to join the turn, taken into it now: its blocks."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    arguments: type[Arguments]
    handler: Callable[[Toolbox, Any, str], Awaitable[Any]]
    manager_only: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Without names for its parts, which some readers do not follow."""
        (schema,), parts = msgspec.json.schema_components([self.arguments], ref_template="{name}")
        found: dict[str, Any] = dict(parts[schema["$ref"]])
        found.pop("title", None)
        found.pop("description", None)
        return found


class Toolbox:
    """Runs a tool for the turn that calls it."""

    def __init__(self, settings: Settings, mail: DoorClient, context: Context) -> None:
        self.settings, self.context = settings, context
        self._doors = {"broker": mail}
        self.tools = {tool.name: tool for tool in TOOLS if settings.is_manager or not tool.manager_only}

    async def run(self, name: str, given: Any, tool_use: str = "") -> tuple[str, bool]:
        """The text for the model, and whether it is an error."""
        try:
            reply = await self._run(name, given, tool_use)
        except Problem as problem:
            return f"{problem.code}: {problem.message}" + (f" ({problem.hint})" if problem.hint else ""), True
        return json.dumps(msgspec.to_builtins(reply), ensure_ascii=False), False

    async def close(self) -> None:
        for service, door in self._doors.items():
            if service != "broker":
                await door.close()

    async def _run(self, name: str, given: Any, tool_use: str) -> Any:
        tool = self.tools.get(name)
        if tool is None:
            raise BadRequest(f"there is no tool {name!r:.80}", f"the tools are {', '.join(self.tools)}")
        try:
            arguments = msgspec.convert(given, tool.arguments)
        except msgspec.ValidationError as error:
            fields = ", ".join(tool.schema["properties"]) or "none"
            raise BadRequest(f"{name}: {error}", f"its arguments are: {fields}") from None
        await self.context.ready(tool_use)
        key = json.dumps([name, given], sort_keys=True, ensure_ascii=True)
        id = command_id(self.context.first_mail(), key, self.context.count(key, tool_use))
        try:
            reply = await tool.handler(self, arguments, id)
        except Unavailable:
            raise  # not known whether it took effect: the next equal call is this one again
        except Problem:
            self.context.answered(key, tool_use)
            raise
        self.context.answered(key, tool_use)
        return reply

    async def call(self, request: Request[Any], id: str, seconds: float = 0) -> Any:
        service = request.KIND.partition(".")[0]
        if service not in self._doors:
            self._doors[service] = DoorClient(self.settings.doors / f"{service}.sock")
        return await self._doors[service].call(
            _checked(request), id=id, timeout_seconds=seconds or self.settings.door_seconds_max
        )


def command_id(first_mail: str, key: str, nth: int) -> str:
    """The id of what a tool call does. A turn that is repeated, because it was cut off, gives the same call the same
    id, and the hive does it once. It sorts beside the mail that caused it."""
    if not first_mail:
        return new_id()
    digest = int.from_bytes(hashlib.sha256(f"{first_mail}\0{key}\0{nth}".encode()).digest()[:10], "big")
    tail = "".join(_ALPHABET[digest >> shift & 31] for shift in range(75, -1, -5))
    return (first_mail[:10] if len(first_mail) == len(new_id()) else "0" * 10) + tail


def _checked(request: Request[Any]) -> Request[Any]:
    """Told here rather than refused as a frame by the service: the model reads which field it was."""
    try:
        checked: Request[Any] = msgspec.convert(msgspec.to_builtins(request), type(request))
    except msgspec.ValidationError as error:
        raise BadRequest(f"{request.KIND}: {error}", "a name has small letters, digits and '-'") from None
    return checked


def _instant(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(int(at.timestamp() * 1000), 1)
    except (ValueError, OverflowError):
        raise BadRequest(f"{text!r:.80} is not an instant", "write it like 2026-11-23T15:00:00Z") from None


# ---- for everybody


async def _answer(box: Toolbox, a: AnswerArguments, id: str) -> Reply:
    await box.call(broker.Answer(question=a.question, text=a.text), id)
    return broker.Asked(id=a.question)


async def _ask(box: Toolbox, a: AskArguments, id: str) -> Reply:
    request = broker.Ask(
        to=a.to,
        question=a.question,
        choices=a.choices,
        deadline_seconds=a.deadline_seconds,
        default=a.default,
    )
    asked: broker.Asked = await box.call(request, id)
    if a.to == OPERATOR:
        box.context.asked_operator(asked.id)
    return asked


async def _loose_ends(box: Toolbox, a: NoArguments, id: str) -> Reply:
    ends: broker.LooseEndList = await box.call(broker.LooseEnds(), new_id())
    return ends


async def _message_status(box: Toolbox, a: MessageArguments, id: str) -> Any:
    found: broker.ReceiptList = await box.call(broker.MessageStatus(id=a.id), new_id())
    return {"id": a.id, "receipts": [_receipt(one) for one in found.receipts]}


def _receipt(one: broker.Receipt) -> dict[str, Any]:
    """Without its body, which whoever asks has written or read."""
    steps = ("stored", "offered", "seen", "acked", "ended")
    instants = {step: iso(at) for step in steps if (at := getattr(one, f"{step}_ms"))}
    told = {"attempts": one.attempts, "turn": one.turn, "reason": one.reason}
    return {"to": one.recipient, "state": one.state, **instants, **{k: v for k, v in told.items() if v}}


async def _peers(box: Toolbox, a: NoArguments, id: str) -> Any:
    found: broker.PeerList = await box.call(broker.Peers(), new_id())
    return {
        "peers": [
            {"name": peer.name, "state": peer.state, "status": peer.status}
            for peer in found.peers
            if peer.name != box.settings.agent
        ]
    }


async def _recv(box: Toolbox, a: NoArguments, id: str) -> Any:
    taken = await box.context.take_waiting()
    return (
        {"mail": taken}
        if taken
        else {"mail": [], "note": "nothing new; mail joins your turn or wakes you by itself"}
    )


async def _cancel_reminder(box: Toolbox, a: CancelReminderArguments, id: str) -> Any:
    await box.call(broker.CancelReminder(id=a.id), id)
    return {"cancelled": a.id}


async def _remind(box: Toolbox, a: RemindArguments, id: str) -> Any:
    if [a.after_seconds, a.at, a.cron].count(None) != 2:
        raise BadRequest(
            "a reminder is at an instant, after some seconds, or by a cron line",
            "give one of `at`, `after_seconds` and `cron`",
        )
    request = broker.Remind(
        text=a.text,
        at_ms=_instant(a.at) if a.at is not None else 0,
        after_seconds=a.after_seconds or 0,
        cron=a.cron or "",
        zone=a.zone,
        catch_up=a.catch_up,
    )
    reminded: broker.Reminded = await box.call(request, id)
    return {"id": reminded.id, "due_ms": reminded.due_ms, "due": iso(reminded.due_ms)}


async def _reminders(box: Toolbox, a: NoArguments, id: str) -> Any:
    found: broker.ReminderList = await box.call(broker.Reminders(), new_id())
    return {"reminders": [_reminder(one) for one in found.reminders]}


def _reminder(one: broker.Reminder) -> dict[str, Any]:
    shown = {"id": one.id, "text": one.text, "due": iso(one.due_ms), "set_by": one.set_by}
    return shown | (
        {"cron": one.cron, "zone": one.zone or "UTC", "catch_up": one.catch_up} if one.cron else {}
    )


async def _send(box: Toolbox, a: SendArguments, id: str) -> Reply:
    to = [a.to] if isinstance(a.to, str) else a.to
    answers = a.in_reply_to or (box.context.only_mail_from(to[0]) if len(to) == 1 else "")
    sent: broker.Sent = await box.call(broker.Send(to=to, body=a.text, in_reply_to=answers), id)
    await box.context.wrote_to(sent.recipients)
    return sent


async def _status(box: Toolbox, a: StatusArguments, id: str) -> Any:
    await box.call(broker.SetStatus(text=a.text), id)
    return {"status": a.text}


# ---- for the manager, whose directory has the doors


async def _agents(box: Toolbox, a: NoArguments, id: str) -> Any:
    found: lifecycle.AgentList = await box.call(lifecycle.Agents(), new_id())
    return {"agents": [_agent(agent) for agent in found.agents]}


def _agent(agent: lifecycle.Agent) -> dict[str, Any]:
    shown = ("name", "desired", "cage", "revision", "generation", "detail")
    return {name: getattr(agent, name) for name in shown} | {
        "model": agent.spec.model,
        "packages": agent.spec.packages,
    }


async def _logs(box: Toolbox, a: LogsArguments, id: str) -> Reply:
    text: lifecycle.LogText = await box.call(lifecycle.Logs(name=a.name, lines=a.lines), new_id())
    return text


async def _propose(box: Toolbox, a: ProposeArguments, id: str) -> Reply:
    request = approvals.Propose(agent=a.agent, files=a.files, message=a.message, rationale=a.rationale)
    proposed: approvals.Proposed = await box.call(request, id)
    return proposed


async def _read_config(box: Toolbox, a: AgentArguments, id: str) -> Any:
    config: approvals.Config = await box.call(approvals.ReadConfig(agent=a.agent), new_id())
    return {"agent": config.agent, "revision": config.revision, "files": config.files}


async def _spawn(box: Toolbox, a: SpawnArguments, id: str) -> Reply:
    request = approvals.Spawn(
        agent=a.name, prompt=a.prompt, model=a.model, packages=a.packages, rationale=a.rationale
    )
    proposed: approvals.Proposed = await box.call(request, id)
    return proposed


def _verb(
    kind: type[lifecycle.Start | lifecycle.Stop | lifecycle.Restart],
) -> Callable[[Toolbox, Any, str], Awaitable[Any]]:
    async def handler(box: Toolbox, a: NameArguments, id: str) -> Any:
        seconds = box.settings.cage_verb_seconds_max
        agent: lifecycle.Agent = await box.call(kind(name=a.name), id, seconds)
        return _agent(agent)

    return handler


TOOLS = (
    Tool(
        "agents",
        "Every agent of the hive: what is desired of it and how its cage is.",
        NoArguments,
        _agents,
        manager_only=True,
    ),
    Tool("answer", "Answer a question you were asked. The first answer counts.", AnswerArguments, _answer),
    Tool(
        "ask",
        "Ask one agent or the operator. Never blocks: the answer comes as a message, so end your turn.",
        AskArguments,
        _ask,
    ),
    Tool(
        "cancel_reminder",
        "Cancel a reminder that you have set, one that recurs for good.",
        CancelReminderArguments,
        _cancel_reminder,
    ),
    Tool("logs", "The last lines of what an agent's cage wrote.", LogsArguments, _logs, manager_only=True),
    Tool(
        "loose_ends",
        "What is still open for you: questions, reminders, mail not dealt with.",
        NoArguments,
        _loose_ends,
    ),
    Tool(
        "message_status",
        "Where a message is that you sent or got, for each recipient: stored, offered, seen, acked; dead or expired.",
        MessageArguments,
        _message_status,
    ),
    Tool("peers", "Who else is there, and what they are at.", NoArguments, _peers),
    Tool(
        "propose_config",
        "Propose a change of an agent's configuration. The operator decides; you are woken by her decision.",
        ProposeArguments,
        _propose,
        manager_only=True,
    ),
    Tool(
        "read_config",
        "The approved configuration of an agent.",
        AgentArguments,
        _read_config,
        manager_only=True,
    ),
    Tool(
        "recv", "New mail that has come since, at once instead of after your next step.", NoArguments, _recv
    ),
    Tool("remind", "Wake yourself later with a text, once or again and again.", RemindArguments, _remind),
    Tool("reminders", "The reminders that will still wake you, the next first.", NoArguments, _reminders),
    Tool(
        "request_spawn",
        "Propose a new agent. The operator decides; you are woken when it is decided, and when the agent is up.",
        SpawnArguments,
        _spawn,
        manager_only=True,
    ),
    Tool("restart", "Restart an agent's cage.", NameArguments, _verb(lifecycle.Restart), manager_only=True),
    Tool("send", "Send a message.", SendArguments, _send),
    Tool(
        "start", "Start an agent that is stopped.", NameArguments, _verb(lifecycle.Start), manager_only=True
    ),
    Tool(
        "status", "Say in one line what you are at; peers and the operator see it.", StatusArguments, _status
    ),
    Tool("stop", "Stop an agent; its mail waits.", NameArguments, _verb(lifecycle.Stop), manager_only=True),
)
