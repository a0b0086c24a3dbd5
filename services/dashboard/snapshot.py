"""What the other services said last, put together, and told to the browsers whenever it comes out
differently.

Every change goes one way: a service's words land in a table here, `_show` puts the view together that a page
needs and publishes it only if it is not what was published before. Events may so come twice, late or after a
refetch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from libhive.clock import Clock
from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.messages.base import Event, Pong
from libhive.names import MANAGER, OPERATOR
from libhive.release import package_version
from services.dashboard import rules
from services.dashboard.feed import Feed
from services.dashboard.settings import Settings
from services.dashboard.views import (
    SERVICES,
    AgentView,
    GatewayView,
    HiveView,
    LineView,
    ServiceView,
    StateView,
    message_view,
    reminder_view,
)

encode = msgspec.json.encode
NOBODY: frozenset[str] = frozenset()


class Snapshot:
    def __init__(self, feed: Feed, settings: Settings, clock: Clock) -> None:
        self._feed, self._settings, self._clock = feed, settings, clock
        self._services = {name: ServiceView(name=name, state="unknown") for name in SERVICES}
        self._agents: dict[str, lifecycle.Agent] = {}
        self._peers: dict[str, broker.Peer] = {}
        self._receipts: dict[tuple[str, str], broker.Receipt] = {}
        self._questions: dict[str, broker.Question] = {}
        self._reminders: dict[str, broker.Reminder] = {}
        self._proposals: dict[int, approvals.Proposal] = {}
        self._deploys: dict[str, updater.Deploy] = {}
        self._report: gateway.GatewayReport | None = None
        self._usage: dict[str, gateway.Usage] = {}
        self._page_problems: dict[str, str] = {}
        self._lines: deque[LineView] = deque(maxlen=settings.lines_kept_max)
        self._line_id = 0
        self._shown: dict[tuple[str, str], bytes] = {}
        self.on_agents: Callable[[], None] = lambda: None
        """Called when there are other agents than before, or other ports."""

    # ---- what is known

    def agent(self, name: str) -> lifecycle.Agent | None:
        return self._agents.get(name)

    def question(self, key: str) -> broker.Question | None:
        return self._questions.get(key)

    def pages(self) -> dict[str, int]:
        """The port of each agent that has not been destroyed."""
        agents = self._agents.values()
        return {
            agent.name: agent.page_port + self._settings.shift
            for agent in agents
            if agent.desired != "destroyed"
        }

    def service_up(self, name: str) -> bool:
        return self._services[name].state == "up"

    def state(self, about: str = "") -> StateView:
        """Everything, or with `about` what concerns this one agent."""
        agents = [self._agents[about]] if about in self._agents else [] if about else self._sorted_agents()
        receipts = [
            receipt
            for receipt in self._receipts.values()
            if not about or about in (receipt.sender, receipt.recipient)
        ]
        receipts.sort(key=lambda receipt: (receipt.stored_ms, receipt.id), reverse=True)
        return StateView(
            event=self._feed.at,
            hive=self._hive(),
            services=list(self._services.values()),
            gateway=self._gateway_view(),
            agents=[self._agent_view(agent) for agent in agents],
            proposals=_newest(self._proposals.values(), about, lambda proposal: proposal.number),
            messages=[msgspec.Raw(encode(message_view(receipt))) for receipt in receipts],
            questions=[q for q in self._questions.values() if not about or about in (q.asker, q.recipient)],
            reminders=[reminder_view(one) for one in self._reminders.values() if about in ("", one.agent)],
            deploys=_newest(self._deploys.values(), about, lambda deploy: deploy.started_ms),
            lines=[line for line in self._lines if about in ("", line.agent)],
        )

    # ---- what a service says about itself

    def service_answers(self, name: str, pong: Pong) -> bool:
        """True when it was away before, or is another process than before: then what it said is to be fetched
        again."""
        before = self._services[name]
        after = ServiceView(
            name=name, state="up", version=pong.version, pid=pong.pid, up_since_ms=pong.up_since_ms
        )
        self._set_service(after)
        return (before.state, before.pid, before.up_since_ms) != ("up", pong.pid, pong.up_since_ms)

    def service_silent(self, name: str, detail: str) -> None:
        self._set_service(msgspec.structs.replace(self._services[name], state="down", pid=0, detail=detail))

    def _set_service(self, after: ServiceView) -> None:
        before, self._services[after.name] = self._services[after.name], after
        self._show("service", after.name, after)
        if before.state != after.state:
            self._tell(after.name, "dashboard.service", rules.service_line(before.state, after))
            self.show_agents()
            self._show_gateway()

    # ---- a whole slice, fetched

    def take_agents(self, agents: Iterable[lifecycle.Agent]) -> None:
        before, self._agents = self._agents, {agent.name: agent for agent in agents}
        for name in before.keys() - self._agents.keys():
            self._gone("agent", name)
        self.show_agents()
        self.on_agents()

    def take_peers(self, peers: Iterable[broker.Peer]) -> None:
        self._peers = {peer.name: peer for peer in peers}
        self.show_agents()

    def take_receipts(self, receipts: Iterable[broker.Receipt]) -> None:
        for receipt in receipts:
            self._receipts[receipt.id, receipt.recipient] = receipt
            self._show_receipt(receipt)
        self._forget_receipts()

    def take_questions(self, questions: Iterable[broker.Question]) -> None:
        before, self._questions = self._questions, {question.id: question for question in questions}
        self._forget("question", before.keys() - self._questions.keys())
        for question in self._questions.values():
            self._show_question(question)

    def take_reminders(self, reminders: Iterable[broker.Reminder]) -> None:
        before, self._reminders = self._reminders, {reminder.id: reminder for reminder in reminders}
        for key in before.keys() - self._reminders.keys():
            self._gone("reminder", key)
        for reminder in self._reminders.values():
            self._show("reminder", reminder.id, reminder_view(reminder), reminder.agent)

    def take_proposals(self, proposals: Iterable[approvals.Proposal]) -> None:
        before, self._proposals = self._proposals, {proposal.number: proposal for proposal in proposals}
        self._forget("proposal", map(str, before.keys() - self._proposals.keys()))
        for proposal in self._proposals.values():
            self._show("proposal", str(proposal.number), proposal, proposal.agent)

    def take_deploys(self, deploys: Iterable[updater.Deploy]) -> None:
        before, self._deploys = self._deploys, {deploy.id: deploy for deploy in deploys}
        self._forget("deploy", before.keys() - self._deploys.keys())
        for deploy in self._deploys.values():
            self._show("deploy", deploy.id, deploy, deploy.agent)
        self.show_agents()

    def take_gateway(self, report: gateway.GatewayReport) -> None:
        self._report, self._usage = report, {usage.agent: usage for usage in report.usage}
        self._show_gateway()
        self.show_agents()

    def take_page_problems(self, problems: dict[str, str]) -> None:
        self._page_problems = dict(problems)
        self.show_agents()

    # ---- one event

    def apply(self, event: Event) -> None:
        """The event in its table, on the stream, and as a line."""
        told = self._is_news(event)
        self._count_unacked(event)
        match event:
            case lifecycle.AgentChanged(agent=agent):
                self._agents[agent.name] = agent
                self._show_agent(agent.name)
                self.on_agents()
            case lifecycle.AgentForgotten(name=name):
                self._usage.pop(name, None)
                self.take_agents([agent for agent in self._agents.values() if agent.name != name])
            case broker.MailboxPurged(name=name):
                self._forget_mailbox(name)
            case broker.PeerChanged(peer=peer):
                self._peers[peer.name] = peer
                self._show_agent(peer.name)
            case broker.MessageStored(receipt=receipt):
                self._receipts[receipt.id, receipt.recipient] = receipt
                self._show_receipt(receipt)
                self._forget_receipts()
            case broker.ReceiptChanged():
                self._apply_receipt(event)
            case broker.QuestionChanged(question=question):
                self._questions[question.id] = question
                self._show_question(question)
            case broker.ReminderChanged(reminder=reminder, what=what):
                self._apply_reminder(reminder, what)
            case approvals.ProposalChanged(proposal=proposal):
                self._proposals[proposal.number] = proposal
                self._show("proposal", str(proposal.number), proposal, proposal.agent)
            case updater.DeployChanged(deploy=deploy):
                self._deploys[deploy.id] = deploy
                self._show("deploy", deploy.id, deploy, deploy.agent)
                self._show_agent(deploy.agent)
            case gateway.GatewayChanged(mode=mode, last_error=error):
                if self._report:
                    self._report = msgspec.structs.replace(self._report, mode=mode, last_error=error)
                    self._show_gateway()
            case gateway.EgressUsed(agent=name):
                self._feed.publish("egress", encode(event), frozenset({name}))
            case gateway.RequestServed(agent=name):
                self._usage[name] = rules.usage_after(self._usage.get(name), event, self._clock())
                self._show_agent(name)
        if told and (line := rules.line_of(event)):
            self._tell(event.KIND.partition(".")[0], event.KIND, line)

    def _is_news(self, event: Event) -> bool:
        """Harnesses and cages repeat themselves; their lines are told only when something is different."""
        match event:
            case lifecycle.AgentChanged(agent=agent):
                before = self._agents.get(agent.name)
                return before is None or (before.cage, before.desired, before.detail) != (
                    agent.cage,
                    agent.desired,
                    agent.detail,
                )
            case broker.PeerChanged(peer=peer):
                was = self._peers.get(peer.name)
                now = (peer.connected, peer.state, peer.detail, peer.status)
                return was is None or (was.connected, was.state, was.detail, was.status) != now
        return True

    def _count_unacked(self, event: Event) -> None:
        """Broker says a peer's count with the peer; between two such words it is kept here."""
        name, by = rules.unacked_change(event)
        if by and (peer := self._peers.get(name)):
            self._peers[name] = msgspec.structs.replace(peer, unacked=max(0, peer.unacked + by))
            self._show_agent(name)

    def _apply_receipt(self, event: broker.ReceiptChanged) -> None:
        before = self._receipts.get((event.id, event.recipient))
        if before is not None:
            after = self._receipts[event.id, event.recipient] = rules.receipt_after(before, event)
            self._show_receipt(after)

    def _apply_reminder(self, reminder: broker.Reminder, what: str) -> None:
        if rules.still_reminds(reminder, what):
            self._reminders[reminder.id] = reminder
            self._show("reminder", reminder.id, reminder_view(reminder), reminder.agent)
        elif self._reminders.pop(reminder.id, None):
            self._gone("reminder", reminder.id)

    # ---- views, and telling

    def show_agents(self) -> None:
        for name in self._agents:
            self._show_agent(name)

    def _show_agent(self, name: str) -> None:
        if agent := self._agents.get(name):
            self._show("agent", name, self._agent_view(agent), name)

    def _show_receipt(self, receipt: broker.Receipt) -> None:
        self._show(
            "message",
            f"{receipt.id}/{receipt.recipient}",
            message_view(receipt),
            receipt.sender,
            receipt.recipient,
        )

    def _show_question(self, question: broker.Question) -> None:
        self._show("question", question.id, question, question.asker, question.recipient)

    def _show_gateway(self) -> None:
        self._show("gateway", "", self._gateway_view())

    def _show(self, kind: str, key: str, view: Any, *about: str) -> None:
        data = encode(view)
        if self._shown.get((kind, key)) != data:
            self._shown[kind, key] = data
            self._feed.publish(kind, data, frozenset(about))

    def _gone(self, kind: str, key: str) -> None:
        self._shown.pop((kind, key), None)
        self._feed.publish("gone", encode({"what": kind, "key": key}))

    def _forget(self, kind: str, keys: Iterable[str]) -> None:
        """Too old to be kept; pages that still show it may go on."""
        for key in keys:
            self._shown.pop((kind, key), None)

    def _tell(self, service: str, kind: str, line: rules.Line) -> None:
        self._line_id += 1
        view = LineView(
            id=self._line_id,
            at_ms=self._clock(),
            service=service,
            kind=kind,
            agent=line.agent,
            level=line.level,
            text=line.text,
        )
        self._lines.append(view)
        self._feed.publish("line", encode(view), frozenset({line.agent}) if line.agent else NOBODY)

    def _forget_mailbox(self, name: str) -> None:
        self._peers.pop(name, None)
        for key in [key for key in self._receipts if key[1] == name]:
            del self._receipts[key]
            self._gone("message", "/".join(key))
        for question in [one for one in self._questions.values() if name in (one.asker, one.recipient)]:
            del self._questions[question.id]
            self._gone("question", question.id)
        self.take_reminders([one for one in self._reminders.values() if one.agent != name])

    def _forget_receipts(self) -> None:
        """The oldest beyond what is kept, but never the operator's unread mail."""
        over = len(self._receipts) - self._settings.messages_kept_max
        if over < self._settings.messages_kept_max // 4:
            return
        read = [key for key, r in self._receipts.items() if r.recipient != OPERATOR or r.state == "acked"]
        for key in sorted(read, key=lambda key: self._receipts[key].stored_ms)[:over]:
            del self._receipts[key]
            self._shown.pop(("message", "/".join(key)), None)

    def _sorted_agents(self) -> list[lifecycle.Agent]:
        return sorted(self._agents.values(), key=lambda agent: (agent.name != MANAGER, agent.name))

    def _hive(self) -> HiveView:
        return HiveView(
            version=package_version(),
            manager=MANAGER,
            dashboard_port=self._settings.port,
            now_ms=self._clock(),
        )

    def _gateway_view(self) -> GatewayView:
        if self._report is None or not self.service_up("gateway"):
            return GatewayView(mode="unknown", upstream="", last_error="")
        return GatewayView(
            mode=self._report.mode, upstream=self._report.upstream, last_error=self._report.last_error
        )

    def _agent_view(self, agent: lifecycle.Agent) -> AgentView:
        broker_up, lifecycle_up = self.service_up("broker"), self.service_up("lifecycle")
        peer = self._peers.get(agent.name) if broker_up else None
        state = rules.agent_state(
            agent, peer, lifecycle_up=lifecycle_up, broker_up=broker_up, now=self._clock()
        )
        spec = agent.spec
        return AgentView(
            name=agent.name,
            manager=agent.name == MANAGER,
            state=state.word,
            why=state.why,
            desired=agent.desired,
            cage=agent.cage if lifecycle_up else "unknown",
            cage_kind=agent.cage_kind,
            controls=agent.controls,
            limits=spec.limits,
            revision=agent.revision,
            generation=agent.generation,
            since_ms=agent.since_ms,
            page_port=agent.page_port + self._settings.shift,
            page_problem=self._page_problems.get(agent.name, ""),
            connected=bool(peer and peer.connected),
            status=peer.status if peer else "",
            turn=peer.turn if peer else "",
            model=(peer.model if peer else "") or spec.model,
            spec_model=spec.model,
            packages=spec.packages,
            env_names=sorted(spec.env),
            mcp_servers=sorted(spec.mcp_servers),
            allowed_recipients=spec.allowed_recipients,
            egress_mode=spec.egress.mode,
            unacked=peer.unacked if peer else 0,
            holds=peer.holds if peer else [],
            version=peer.version if peer else "",
            usage=self._usage.get(agent.name),
            deploy_step=rules.deploy_in_progress(agent.name, list(self._deploys.values())),
        )


def _newest(things: Iterable[Any], about: str, order: Callable[[Any], int]) -> list[msgspec.Raw]:
    chosen = [thing for thing in things if about in ("", thing.agent)]
    return [msgspec.Raw(encode(thing)) for thing in sorted(chosen, key=order, reverse=True)]
