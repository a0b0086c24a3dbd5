"""What each button does: one form, one request to one service, and its answer.

A form's `id` is the command's id on the bus: a browser that repeats a request after a lost answer repeats
nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from libhive.clients.learned import propose_learned
from libhive.link import Link
from libhive.messages import approvals, broker, lifecycle, updater
from libhive.messages.base import Count, Done, Ping, Reply, Request
from libhive.names import Id, Name, OptionalId, agent_name, new_id
from libhive.problems import BadRequest, NotFound
from libhive.spec import ModelName, OptionalModelName, PackageName
from services.dashboard.cagepage import CagePage
from services.dashboard.settings import Settings
from services.dashboard.snapshot import Snapshot


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: OptionalId = ""


class NoForm(Form, frozen=True, kw_only=True):
    pass


class AckForm(Form, frozen=True, kw_only=True):
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=500)]


class AnswerForm(Form, frozen=True, kw_only=True):
    question: Id
    text: broker.Body


class ApproveForm(Form, frozen=True, kw_only=True):
    """`digest` as it was shown beside the effect and the diff."""

    digest: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class CancelReminderForm(Form, frozen=True, kw_only=True):
    reminder: Id


class DenyForm(Form, frozen=True, kw_only=True):
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class DestroyForm(Form, frozen=True, kw_only=True):
    """`confirm` is the agent's name, typed once more."""

    confirm: Annotated[str, msgspec.Meta(max_length=64)]


class DropForm(Form, frozen=True, kw_only=True):
    """`message` is the message's id; the form's own is the command's."""

    message: Id
    recipient: Name
    reason: broker.Line = ""


class HoldForm(Form, frozen=True, kw_only=True):
    held: bool


class ModelForm(Form, frozen=True, kw_only=True):
    model: ModelName


class PurgeForm(Form, frozen=True, kw_only=True):
    """`confirm` is the agent's name, typed once more."""

    confirm: Annotated[str, msgspec.Meta(max_length=64)]


class RemindForm(Form, frozen=True, kw_only=True):
    """As in the broker's own: one of `at_ms`, `after_seconds` and `cron`."""

    text: broker.Body
    at_ms: Count = 0
    after_seconds: Count = 0
    cron: Annotated[str, msgspec.Meta(max_length=100)] = ""
    zone: Annotated[str, msgspec.Meta(max_length=64)] = ""
    catch_up: broker.CatchUp = "once"


class RetryForm(Form, frozen=True, kw_only=True):
    message: Id
    recipient: Name


class SendForm(Form, frozen=True, kw_only=True):
    to: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]
    body: broker.Body
    in_reply_to: OptionalId = ""


class SendHereForm(Form, frozen=True, kw_only=True):
    """On an agent's own page: to nobody else."""

    body: broker.Body
    in_reply_to: OptionalId = ""


class SpawnForm(Form, frozen=True, kw_only=True):
    agent: Name
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=approvals.FILE_CHARACTERS_MAX)]
    model: OptionalModelName = ""
    packages: Annotated[list[PackageName], msgspec.Meta(max_length=64)] = []


@dataclass(frozen=True, slots=True)
class Asked:
    """One press of a button: the agent or number in the URL, and the form. On an agent's port `agent` is
    always it."""

    agent: str
    number: int
    form: Any

    @property
    def id(self) -> str:
        return str(self.form.id) or new_id()


OnAction = Callable[[Asked], Awaitable[Reply]]


class Actions:
    def __init__(self, link: Link, snapshot: Snapshot, pages: CagePage, settings: Settings) -> None:
        self._link, self._snapshot, self._pages, self._settings = link, snapshot, pages, settings

    async def on_ack(self, asked: Asked) -> Reply:
        return await self._quick("broker", broker.AckInbox(ids=asked.form.ids), asked)

    async def on_answer(self, asked: Asked) -> Reply:
        """On an agent's port only what that agent has asked."""
        form: AnswerForm = asked.form
        question = self._snapshot.question(form.question)
        if asked.agent and (question is None or question.asker != asked.agent):
            raise NotFound(f"{asked.agent} has not asked this", "answer it in the dashboard's own questions")
        return await self._quick("broker", broker.Answer(question=form.question, text=form.text), asked)

    async def on_approve(self, asked: Asked) -> Reply:
        return await self._slow(
            "approvals", approvals.Approve(number=asked.number, digest=asked.form.digest), asked
        )

    async def on_cancel_reminder(self, asked: Asked) -> Reply:
        return await self._quick("broker", broker.CancelReminder(id=asked.form.reminder), asked)

    async def on_deny(self, asked: Asked) -> Reply:
        return await self._slow(
            "approvals", approvals.Deny(number=asked.number, reason=asked.form.reason), asked
        )

    async def on_destroy(self, asked: Asked) -> Reply:
        if asked.form.confirm != asked.agent:
            raise BadRequest(f"type the agent's name to destroy it: {asked.agent}")
        return await self._slow("lifecycle", lifecycle.Destroy(name=asked.agent), asked)

    async def on_drop(self, asked: Asked) -> Reply:
        form: DropForm = asked.form
        drop = broker.DropMail(id=form.message, recipient=form.recipient, reason=form.reason)
        return await self._quick("broker", drop, asked)

    async def on_egress_propose(self, asked: Asked) -> Reply:
        """The end of learning: one proposal with exactly what was used."""
        await self._link.call("approvals", Ping(), timeout_seconds=self._settings.pong_seconds)
        return await propose_learned(self._link, asked.agent, asked.id)

    async def on_hold(self, asked: Asked) -> Reply:
        held = broker.SetHold(agent=asked.agent, reason="operator", held=asked.form.held)
        return await self._quick("broker", held, asked)

    async def on_interrupt(self, asked: Asked) -> Reply:
        return await self._in_cage(asked.agent, "/interrupt", {})

    async def on_model(self, asked: Asked) -> Reply:
        return await self._in_cage(asked.agent, "/model", {"model": asked.form.model})

    async def on_purge(self, asked: Asked) -> Reply:
        if asked.form.confirm != asked.agent:
            raise BadRequest(f"type the agent's name to purge it: {asked.agent}")
        return await self._slow(
            "updater", updater.PurgeAgent(agent=asked.agent, confirm=asked.form.confirm), asked
        )

    async def on_rebuild(self, asked: Asked) -> Reply:
        return await self._slow("updater", updater.Rebuild(agent=asked.agent), asked)

    async def on_remind(self, asked: Asked) -> Reply:
        form: RemindForm = asked.form
        remind = broker.Remind(
            agent=asked.agent,
            text=form.text,
            at_ms=form.at_ms,
            after_seconds=form.after_seconds,
            cron=form.cron,
            zone=form.zone,
            catch_up=form.catch_up,
        )
        return await self._quick("broker", remind, asked)

    async def on_restart(self, asked: Asked) -> Reply:
        return await self._slow("lifecycle", lifecycle.Restart(name=asked.agent), asked)

    async def on_retry(self, asked: Asked) -> Reply:
        form: RetryForm = asked.form
        return await self._quick("broker", broker.RetryMail(id=form.message, recipient=form.recipient), asked)

    async def on_send(self, asked: Asked) -> Reply:
        form: SendForm = asked.form
        return await self._quick(
            "broker", broker.Send(to=form.to, body=form.body, in_reply_to=form.in_reply_to), asked
        )

    async def on_send_here(self, asked: Asked) -> Reply:
        form: SendHereForm = asked.form
        message = broker.Send(to=[asked.agent], body=form.body, in_reply_to=form.in_reply_to)
        return await self._quick("broker", message, asked)

    async def on_spawn(self, asked: Asked) -> Reply:
        form: SpawnForm = asked.form
        spawn = approvals.Spawn(
            agent=agent_name(form.agent), prompt=form.prompt, model=form.model, packages=form.packages
        )
        return await self._slow("approvals", spawn, asked)

    async def on_start(self, asked: Asked) -> Reply:
        return await self._slow("lifecycle", lifecycle.Start(name=asked.agent), asked)

    async def on_stop(self, asked: Asked) -> Reply:
        return await self._slow("lifecycle", lifecycle.Stop(name=asked.agent), asked)

    async def _quick(self, service: str, request: Request[Any], asked: Asked) -> Reply:
        reply: Reply = await self._link.call(
            service, request, id=asked.id, timeout_seconds=self._settings.call_seconds
        )
        return reply

    async def _slow(self, service: str, request: Request[Any], asked: Asked) -> Reply:
        """For a verb that may take long in a service that is there: whether it is there is asked first."""
        await self._link.call(service, Ping(), timeout_seconds=self._settings.pong_seconds)
        reply: Reply = await self._link.call(
            service, request, id=asked.id, timeout_seconds=self._settings.slow_call_seconds
        )
        return reply

    async def _in_cage(self, name: str, path: str, body: dict[str, str]) -> Reply:
        agent = self._snapshot.agent(name)
        if agent is None:
            raise NotFound(f"there is no agent {name!r:.80}")
        await self._pages.write(agent_name(name), agent.uid, path, body)
        return Done()
