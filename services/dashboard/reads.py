"""Every GET that is not a file: the snapshot, the streams, and what is too large or too rare to be in them."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from libhive.link import Link
from libhive.messages import approvals, broker, gateway, lifecycle
from libhive.messages.base import Ping
from libhive.names import HIVE, OPERATOR, Id, agent_name
from libhive.problems import BadRequest, NotFound, Problem
from services.dashboard.cagepage import CagePage
from services.dashboard.feed import EventStream, Feed, chunks
from services.dashboard.replies import json_bytes, json_reply
from services.dashboard.settings import Settings
from services.dashboard.snapshot import Snapshot
from services.dashboard.views import MessagePage, message_view

PAGE_MESSAGES = 100
PAGE_ENTRIES = 100
LOG_LINES = 200


class Reads:
    """On an agent's port `request.state.agent` names it, and nothing of another agent's is read."""

    def __init__(
        self, link: Link, feed: Feed, snapshot: Snapshot, cage_page: CagePage, settings: Settings
    ) -> None:
        self._link, self._feed, self._snapshot = link, feed, snapshot
        self._cage_page, self._settings = cage_page, settings

    # ---- on both kinds of port

    async def on_egress(self, request: Request) -> Response:
        """An agent's way out, and what it did."""
        asked = gateway.EgressStatus(agent=_own(request) or agent_name(request.path_params["name"]))
        return json_reply(
            await self._link.call("gateway", asked, timeout_seconds=self._settings.call_seconds)
        )

    async def on_message(self, request: Request) -> Response:
        """One message whole, with a receipt for each of its recipients."""
        asked = broker.MessageStatus(id=_id(request.path_params["id"]))
        receipts = (
            await self._link.call("broker", asked, timeout_seconds=self._settings.call_seconds)
        ).receipts
        agent = _own(request)
        mine = [receipt for receipt in receipts if agent in ("", receipt.sender, receipt.recipient)]
        if not mine:
            raise NotFound("there is no such message")
        return json_reply(MessagePage(messages=[message_view(one, whole=True) for one in mine]))

    async def on_messages(self, request: Request) -> Response:
        """What was said, the newest first, as far as it is what the query asks for."""
        query = request.query_params
        agent, thread = _own(request) or query.get("agent", ""), query.get("thread", "")
        asked = broker.Search(
            text=query.get("text", ""),
            agent=agent if agent in ("", OPERATOR, HIVE) else agent_name(agent),
            root=thread and _id(thread),
            since_ms=_number(query.get("since_ms", "0")),
            until_ms=_number(query.get("until_ms", "0")),
            before=_number(query.get("before", "0")),
            limit=PAGE_MESSAGES,
        )
        found = await self._link.call("broker", asked, timeout_seconds=self._settings.search_seconds)
        return json_reply(
            MessagePage(messages=[message_view(one) for one in found.receipts], before=found.before)
        )

    async def on_stream(self, request: Request) -> Response:
        watcher = self._feed.watch(request.scope["session"].hashed, _last_id(request), _own(request))
        source = chunks(self._feed, watcher, self._settings.stream_keepalive_seconds)
        return EventStream(self._feed, watcher, source, self._settings.stream_send_seconds_max)

    # ---- on the dashboard's

    async def on_config(self, request: Request) -> Response:
        asked = approvals.ReadConfig(agent=agent_name(request.path_params["name"]))
        return json_reply(
            await self._link.call("approvals", asked, timeout_seconds=self._settings.call_seconds)
        )

    async def on_logs(self, request: Request) -> Response:
        asked = lifecycle.Logs(name=agent_name(request.path_params["name"]), lines=LOG_LINES)
        return json_reply(
            await self._link.call("lifecycle", asked, timeout_seconds=self._settings.call_seconds)
        )

    async def on_proposal(self, request: Request) -> Response:
        """A long diff takes its time; whether approvals is there at all is asked first."""
        await self._link.call("approvals", Ping(), timeout_seconds=self._settings.pong_seconds)
        asked = approvals.ShowProposal(number=proposal_number(request.path_params["number"]))
        return json_reply(
            await self._link.call("approvals", asked, timeout_seconds=self._settings.slow_call_seconds)
        )

    async def on_state(self, request: Request) -> Response:
        return json_reply(self._snapshot.state())

    # ---- on an agent's

    async def on_agent_state(self, request: Request) -> Response:
        """The hive's view of the agent, and beside it what the cage says of itself, or why it does not."""
        agent, page, problem = _own(request), b"null", ""
        try:
            page = await self._cage_page.read(agent_name(agent), self._uid(agent), "/api/state")
        except Problem as error:
            problem = error.message
        state = msgspec.structs.asdict(self._snapshot.state(agent))
        return json_reply({**state, "page": msgspec.Raw(page), "page_problem": problem})

    async def on_cage_stream(self, request: Request) -> Response:
        agent = _own(request)
        watcher = self._feed.watch(request.scope["session"].hashed, self._feed.at, agent)
        source = self._cage_page.events(agent_name(agent), lambda: self._uid(agent), _last_id(request))
        return EventStream(self._feed, watcher, source, self._settings.stream_send_seconds_max)

    async def on_transcript(self, request: Request) -> Response:
        agent, query = _own(request), {"limit": str(PAGE_ENTRIES)}
        for name in ("after", "before"):
            query[name] = str(_number(request.query_params.get(name, "0")))
        return json_bytes(
            await self._cage_page.read(agent_name(agent), self._uid(agent), "/api/transcript", query)
        )

    def _uid(self, name: str) -> int:
        agent = self._snapshot.agent(name)
        if agent is None:
            raise NotFound(f"there is no agent {name!r:.80}")
        return agent.uid


def proposal_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadRequest(f"{text!r:.80} is not a proposal's number")
    return int(text)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise BadRequest(f"{text!r:.80} is not a number", "docs/dashboard-api.md says which it should be")
    return int(text)


def _own(request: Request) -> str:
    """The agent whose port this is; empty on the dashboard's."""
    return getattr(request.state, "agent", "")


def _last_id(request: Request) -> str:
    """A browser's EventSource sends the header when it reconnects, and cannot send it the first time."""
    return request.headers.get("last-event-id") or request.query_params.get("after", "")


def _id(text: str) -> str:
    try:
        return msgspec.convert(text, Id)
    except msgspec.ValidationError:
        raise BadRequest(f"{text!r:.80} is not an id") from None
