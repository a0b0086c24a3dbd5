"""Every URL there is, in two tables: the dashboard's own port, and an agent's. docs/dashboard-api.md is the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libhive.messages.base import Done
from libhive.names import agent_name
from libhive.problems import BadRequest, InternalError, NotFound, Problem
from services.dashboard import actions
from services.dashboard.actions import Actions, Asked, Form, NoForm, OnAction
from services.dashboard.feed import Feed
from services.dashboard.files import Files
from services.dashboard.guard import Guard, TooLarge
from services.dashboard.reads import Reads, proposal_number
from services.dashboard.replies import json_reply, problem_reply
from services.dashboard.sessions import Sessions
from services.dashboard.settings import Settings

F = TypeVar("F", bound=msgspec.Struct)
Endpoint = Callable[[Request], Awaitable[Response]]


class WrongMethod(Problem):
    code: ClassVar[str] = "wrong-method"


class LoginForm(Form, frozen=True, kw_only=True):
    token: str


@dataclass(frozen=True, slots=True)
class Button:
    """A POST route: where, what form, what it does."""

    path: str
    form: type[Form]
    act: OnAction


class Web:
    """The apps of all ports."""

    def __init__(
        self, actions: Actions, reads: Reads, files: Files, sessions: Sessions, feed: Feed, settings: Settings
    ) -> None:
        self._actions, self._reads, self._files = actions, reads, files
        self._sessions, self._feed, self._settings = sessions, feed, settings

    # ---- the two tables

    def dashboard_routes(self) -> list[Route]:
        reads: list[tuple[str, Endpoint]] = [
            ("/", self._file("index.html")),
            ("/api/agents/{name}/config", self._reads.on_config),
            ("/api/agents/{name}/egress", self._reads.on_egress),
            ("/api/agents/{name}/logs", self._reads.on_logs),
            ("/api/messages", self._reads.on_messages),
            ("/api/messages/{id}", self._reads.on_message),
            ("/api/proposals/{number}", self._reads.on_proposal),
            ("/api/state", self._reads.on_state),
            ("/events/stream", self._reads.on_stream),
            ("/login", self._file("login.html")),
            ("/static/{path:path}", self._files.on_static),
        ]
        sessions = [
            Route("/api/login", self.on_login, methods=["POST"]),
            Route("/api/logout", self.on_logout, methods=["POST"]),
        ]
        buttons = [self._press(button) for button in self.dashboard_buttons()]
        return [*(Route(path, read, methods=["GET"]) for path, read in reads), *sessions, *buttons]

    def dashboard_buttons(self) -> list[Button]:
        act = self._actions
        return [
            Button("/api/ack", actions.AckForm, act.on_ack),
            Button("/api/agents/{name}/destroy", actions.DestroyForm, act.on_destroy),
            Button("/api/agents/{name}/egress-propose", NoForm, act.on_egress_propose),
            Button("/api/agents/{name}/hold", actions.HoldForm, act.on_hold),
            Button("/api/agents/{name}/interrupt", NoForm, act.on_interrupt),
            Button("/api/agents/{name}/model", actions.ModelForm, act.on_model),
            Button("/api/agents/{name}/purge", actions.PurgeForm, act.on_purge),
            Button("/api/agents/{name}/rebuild", NoForm, act.on_rebuild),
            Button("/api/agents/{name}/remind", actions.RemindForm, act.on_remind),
            Button("/api/agents/{name}/restart", NoForm, act.on_restart),
            Button("/api/agents/{name}/start", NoForm, act.on_start),
            Button("/api/agents/{name}/stop", NoForm, act.on_stop),
            Button("/api/answer", actions.AnswerForm, act.on_answer),
            Button("/api/cancel-reminder", actions.CancelReminderForm, act.on_cancel_reminder),
            Button("/api/drop", actions.DropForm, act.on_drop),
            Button("/api/proposals/{number}/approve", actions.ApproveForm, act.on_approve),
            Button("/api/proposals/{number}/deny", actions.DenyForm, act.on_deny),
            Button("/api/retry", actions.RetryForm, act.on_retry),
            Button("/api/send", actions.SendForm, act.on_send),
            Button("/api/spawn", actions.SpawnForm, act.on_spawn),
        ]

    def agent_routes(self, agent: str) -> list[Route]:
        """Everything on an agent's port is about this agent, whatever the form says."""
        reads: list[tuple[str, Endpoint]] = [
            ("/", self._file("agent.html")),
            ("/api/egress", self._reads.on_egress),
            ("/api/messages", self._reads.on_messages),
            ("/api/messages/{id}", self._reads.on_message),
            ("/api/state", self._reads.on_agent_state),
            ("/api/transcript", self._reads.on_transcript),
            ("/events/hive", self._reads.on_stream),
            ("/events/stream", self._reads.on_cage_stream),
            ("/static/{path:path}", self._files.on_static),
        ]
        buttons = [self._press(button, agent) for button in self.agent_buttons()]
        return [*(Route(path, _for(agent, read), methods=["GET"]) for path, read in reads), *buttons]

    def agent_buttons(self) -> list[Button]:
        act = self._actions
        return [
            Button("/api/answer", actions.AnswerForm, act.on_answer),
            Button("/api/egress-propose", NoForm, act.on_egress_propose),
            Button("/api/hold", actions.HoldForm, act.on_hold),
            Button("/api/interrupt", NoForm, act.on_interrupt),
            Button("/api/model", actions.ModelForm, act.on_model),
            Button("/api/restart", NoForm, act.on_restart),
            Button("/api/send", actions.SendHereForm, act.on_send_here),
            Button("/api/start", NoForm, act.on_start),
            Button("/api/stop", NoForm, act.on_stop),
        ]

    # ---- the apps

    def dashboard_app(self) -> Guard:
        return self._guarded(self.dashboard_routes(), self._settings.port)

    def agent_app(self, agent: str, port: int) -> Guard:
        return self._guarded(self.agent_routes(agent), port)

    def _guarded(self, routes: list[Route], port: int) -> Guard:
        refusals = {Problem: _on_problem, HTTPException: _on_http, Exception: _on_bug}
        return Guard(
            Starlette(routes=routes, exception_handlers=refusals),
            hosts=self._settings.hosts(port),
            sessions=self._sessions,
            login_port=self._settings.port,
            body_bytes_max=self._settings.body_bytes_max,
        )

    # ---- logging in and out

    async def on_login(self, request: Request) -> Response:
        form = await self._form(request, LoginForm)
        secret = await self._sessions.log_in(form.token)
        return json_reply(Done(), headers={"set-cookie": self._sessions.cookie(secret)})

    async def on_logout(self, request: Request) -> Response:
        await self._form(request, NoForm)
        session = request.scope["session"]
        await self._sessions.log_out(session)
        self._feed.end(lambda key: key == session.hashed)
        return json_reply(Done(), headers={"set-cookie": self._sessions.cookie("")})

    # ---- from a table's row to a route

    def _press(self, button: Button, agent: str = "") -> Route:
        async def press(request: Request) -> Response:
            form = await self._form(request, button.form)
            name = agent or request.path_params.get("name", "")
            number = request.path_params.get("number", "")
            asked = Asked(agent_name(name) if name else "", proposal_number(number) if number else 0, form)
            return json_reply(await button.act(asked))

        return Route(button.path, press, methods=["POST"])

    async def _form(self, request: Request, kind: type[F]) -> F:
        """The body as this form. Raises BadRequest that names the field."""
        data = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds_max):
                async for part in request.stream():
                    data += part
                    if len(data) > self._settings.body_bytes_max:
                        raise TooLarge(f"the body is larger than {self._settings.body_bytes_max} bytes")
        except TimeoutError:
            raise BadRequest("the body did not come in time") from None
        try:
            return msgspec.json.decode(bytes(data) or b"{}", type=kind)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            hint = "docs/dashboard-api.md lists the fields"
            raise BadRequest(f"the form is not right: {error}"[:300], hint) from error

    def _file(self, name: str) -> Endpoint:
        file = self._files.named(name)

        async def answer(request: Request) -> Response:
            return file.reply(request)

        return answer


def _for(agent: str, read: Endpoint) -> Endpoint:
    async def bound(request: Request) -> Response:
        request.state.agent = agent
        return await read(request)

    return bound


async def _on_problem(request: Request, problem: Any) -> Response:
    return problem_reply(problem)


async def _on_http(request: Request, error: Any) -> Response:
    """Starlette's own: no such route, or not with this method."""
    if error.status_code == 405:
        return problem_reply(WrongMethod(f"{request.method} is not for this address"))
    return problem_reply(NotFound("there is nothing at this address"))


async def _on_bug(request: Request, error: Exception) -> Response:
    """Unlike on the bus, a bug here does not end the process: a request leaves nothing half done in it, and every
    state that matters is another service's. Starlette raises it again after this answer: its traceback is logged."""
    return problem_reply(InternalError("the dashboard failed at this", "its log has the details"))
