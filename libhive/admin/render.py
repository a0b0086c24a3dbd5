"""What a person sees. With its cells the only module that knows rich; every text from outside goes through `safe_text` here.

On a terminal: colours, and columns that fit it. In a pipe: neither colours nor wrapping.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from libhive.admin import times
from libhive.admin.cells import (
    BAD,
    DIM,
    GOOD,
    ONE_LINE,
    STRONG,
    WARN,
    agent_row,
    change,
    decision_row,
    excerpt,
    indented,
    line,
    reminder_row,
    size,
    state,
    steps,
    when,
)
from libhive.clock import now_ms
from libhive.logs import safe_text
from libhive.messages.approvals import FileDiff, Proposal, ProposalDetail
from libhive.messages.broker import Peer, Question, Receipt, Reminder
from libhive.messages.gateway import EgressReport, GatewayReport
from libhive.messages.lifecycle import Agent, Leftovers
from libhive.names import OPERATOR


class Finding(Protocol):
    """What hive-admin doctor has looked at."""

    @property
    def check(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...
    @property
    def mend(self) -> str: ...


PIPE_COLUMNS = 10_000
EVENT_FIELDS = (
    *(
        "agent",
        "name",
        "sender",
        "asker",
        "recipient",
        "number",
        "proposal",
        "kind",
        "state",
        "cage",
        "desired",
        "step",
    ),
    *(
        "host",
        "port",
        "verdict",
        "mode",
        "status",
        "model",
        "input_tokens",
        "output_tokens",
        "what",
        "reason",
        "detail",
        "last_error",
        "text",
        "body",
    ),
)
RISK_STYLES = {"none": DIM, "low": GOOD, "medium": WARN, "high": BAD}
_MODES = {
    "none": "nothing but the model can be reached",
    "allow": "what is listed can be reached, and nothing else",
    "learn": "it learns: everything public can be reached, and what is listed",
}
_UNKNOWN = "what it may reach is not known yet: lifecycle has not said"


class Screen:
    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self.terminal = terminal
        self.console = Console(
            width=None if terminal else PIPE_COLUMNS,
            force_terminal=terminal,
            color_system="auto" if terminal else None,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(safe_text(text), style=style), soft_wrap=True)

    def head(self, text: str, style: str = "") -> None:
        """On one line: what stands in it cannot pass for another line of ours."""
        self.console.print(Text(safe_text(text, keep=ONE_LINE), style=style), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, quiet: bool) -> Iterator[Callable[[str, int], None]]:
        """What is being done, and how many bytes that was; on a terminal only, and gone at the end."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
        with Progress(
            *columns, console=self.console, transient=True, disable=quiet or not self.terminal
        ) as bar:
            tasks: dict[str, TaskID] = {}

            def step(what: str, size: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(safe_text(what, keep=ONE_LINE), total=None)
                bar.advance(tasks[what], size)

            yield step

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Text | str]], none: str) -> None:
        """The last column takes what is left of the line; an empty table is a sentence."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
        for position, column in enumerate(columns):
            table.add_column(column, no_wrap=position < len(columns) - 1, overflow="fold")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else line(cell) for cell in row))
        if table.row_count:
            self.console.print(table)
        else:
            self.say(none, DIM)

    # ---- the hive

    def rehearsal(self, report: GatewayReport) -> None:
        if report.mode == "rehearsal":
            self.say("The rehearsal model is on: agents play scripted answers, no tokens are spent.", WARN)
            self.say("Log in for the real one:  hive-admin login", WARN)
        else:
            how = "an API key" if report.mode == "api_key" else "a subscription's token"
            self.head(f"model: logged in with {how}, requests go to {report.upstream}")
        if report.last_error:
            self.head(f"the model's last error: {report.last_error}", BAD)

    def agents(self, agents: Sequence[Agent], peers: Sequence[Peer], page_port_shift: int) -> None:
        by_name = {peer.name: peer for peer in peers}
        rows = [agent_row(agent, by_name.get(agent.name), page_port_shift) for agent in agents]
        self.table(("agent", "cage", "state", "mail", "model", "page", "doing"), rows, "no agents yet")

    def agent(self, agent: Agent) -> None:
        detail = f" ({agent.detail})" if agent.detail else ""
        if agent.desired == "destroyed":
            self.head(f"{agent.name} is destroyed{detail}")
        else:
            self.head(f"{agent.name}: cage {agent.cage}, wanted {agent.desired}{detail}")

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            verdict, style = ("ok", GOOD) if finding.ok else ("MEND", BAD)
            self.console.print(line(f"{verdict:5}{finding.check:15} {finding.detail}", style), soft_wrap=True)
            if not finding.ok and finding.mend:
                self.say(f"     {finding.mend}", STRONG)

    def leftovers(self, found: Leftovers, *, applied: bool) -> None:
        rows = [
            (
                one.kind,
                one.agent or "-",
                one.path,
                size(one.bytes),
                one.problem or ("removed" if one.removed else one.why),
            )
            for one in found.leftovers
        ]
        self.table(("what", "of", "where", "size", ""), rows, "nothing is left over")
        if found.more:
            self.say("there is more: look again when this is removed")
        if rows and not applied:
            self.say("nothing was removed; to remove it: hive-admin gc --apply")

    def event(self, at_ms: int, kind: str, body: dict[str, Any]) -> None:
        """One line: when, what, and the fields that tell a person most."""
        if kind.endswith(".gap"):
            text = "some events were missed, or the service has restarted"
        else:
            nested = next((value for value in body.values() if isinstance(value, dict)), {})
            fields = {name: value for name, value in body.items() if not isinstance(value, dict)} | nested
            text = "  ".join(
                f"{name}={value}" for name in EVENT_FIELDS if (value := fields.get(name)) not in ("", None)
            )
        self.console.print(line(f"{when(at_ms)} {kind}  {text}"), soft_wrap=True)

    def egress(self, report: EgressReport) -> None:
        """What it may reach, then the newest of what it did."""
        self.head(f"{report.agent}: {_MODES[report.mode]}" if report.known else _UNKNOWN, STRONG)
        for text in report.allow:
            self.head(f"  {text}" + ("  (not in force)" if report.mode == "none" else ""))
        if report.mode == "learn":
            used = len(report.learned)
            self.head(f"used since it learns: {used or 'nothing'}", WARN)
            for text in report.learned:
                self.head(f"  {text}")
            self.head(f"end it with one proposal: hive-admin egress {report.agent} --propose", DIM)
        if report.open:
            self.head(f"open just now: {report.open}")
        rows = [decision_row(one) for one in report.decisions]
        columns = ("when", "verdict", "where", "times", "out", "in", "what")
        self.table(columns, rows, "it has asked for nothing yet")

    # ---- mail

    def mail(self, receipts: Sequence[Receipt], open_questions: Mapping[str, Question]) -> None:
        for receipt in receipts:
            about = f", in reply to {receipt.in_reply_to}" if receipt.in_reply_to else ""
            head = f"{receipt.sender}  {when(receipt.stored_ms)}  {receipt.kind} {receipt.id}{about}"
            self.head(head, STRONG)
            self.say(indented(receipt.body))
            if question := open_questions.get(receipt.id):
                self._terms(question)
                self.head(f"  answer it with: hive-admin answer {receipt.id}", DIM)

    def receipts(self, receipts: Sequence[Receipt]) -> None:
        """The message, and below it a line for each step of its way to each recipient."""
        first = receipts[0]
        about = f", in reply to {first.in_reply_to}" if first.in_reply_to else ""
        self.head(f"{first.kind} {first.id} from {first.sender}{about}", STRONG)
        self.say(indented(first.body))
        for receipt in receipts:
            self.console.print(
                line(f"to {receipt.recipient}: ").append_text(state(receipt.state)), soft_wrap=True
            )
            rows = [(f"  {name}", when(instant), note) for name, instant, note in steps(receipt)]
            self.table(("  step", "when", ""), rows, "")
            if receipt.state == "dead":
                who = f"{receipt.id} {receipt.recipient}"
                self.head(f"  again: hive-admin retry {who}, or give it up: hive-admin drop {who}", DIM)

    def found(self, receipts: Sequence[Receipt]) -> None:
        rows = [
            (
                *(
                    when(receipt.stored_ms),
                    receipt.sender,
                    receipt.recipient,
                    state(receipt.state),
                    receipt.id,
                ),
                excerpt(receipt.body),
            )
            for receipt in receipts
        ]
        self.table(("when", "from", "to", "state", "id", "what"), rows, "nothing found")

    def questions(self, questions: Sequence[Question]) -> None:
        for question in questions:
            whom = "you" if question.recipient == OPERATOR else question.recipient
            self.head(f"{question.asker} asks {whom}  {when(question.asked_ms)}  {question.id}", STRONG)
            self.say(indented(question.text))
            self._terms(question)
        if not questions:
            self.say("no open questions", DIM)

    def reminders(self, reminders: Sequence[Reminder]) -> None:
        rows = [reminder_row(reminder) for reminder in reminders]
        columns = ("id", "for", "set by", "next", "again", "what")
        self.table(columns, rows, "nobody is reminded of anything")

    def _terms(self, question: Question) -> None:
        for position, choice in enumerate(question.choices, 1):
            self.head(f"  {position}) {choice}")
        if question.deadline_ms:
            otherwise = f", else: {question.default}" if question.default else ""
            self.head(f"  until {times.until(question.deadline_ms, now_ms())}{otherwise}", DIM)

    # ---- proposals

    def proposals(self, proposals: Sequence[Proposal]) -> None:
        rows = [
            (str(p.number), state(p.state), p.kind, p.agent, p.requester, p.reason or p.message)
            for p in proposals
        ]
        self.table(("id", "state", "kind", "agent", "from", "what"), rows, "no proposals")

    def effect(self, detail: ProposalDetail) -> None:
        """Each line whole, however long: what is approved is never shown cut."""
        proposal = detail.proposal
        what = f"{proposal.kind} {proposal.agent}, from {proposal.requester}"
        self.head(f"proposal {proposal.number}: {what}", STRONG)
        for effect in detail.effect:
            note = f"  ({effect.note})" if effect.note else ""
            said = f"{effect.field}: {change(effect.before, effect.after)}{note}"
            self.head(f"  {effect.risk:7} {said}", RISK_STYLES.get(effect.risk, ""))
        if not detail.effect:
            self.say("  no effect on what runs", DIM)

    def proposal(self, detail: ProposalDetail) -> None:
        """What it does first, the exact change next, and last what its author says about it."""
        self.effect(detail)
        proposal = detail.proposal
        self.head(f"state: {proposal.state}" + (f" ({proposal.reason})" if proposal.reason else ""))
        if proposal.commit:
            self.head(f"commit {proposal.commit} on {proposal.base or 'nothing'}")
            self.head(f"tags: {' '.join(proposal.tags) or 'none'}")
        for diff in detail.diff:
            self.diff(diff)
        self.say("")
        self.head(f"In {proposal.requester}'s own words, which nobody has checked:", DIM)
        self.say(indented("\n".join(filter(None, (proposal.message, detail.rationale)))))
        if detail.blocked and proposal.state == "proposed":
            self.head(f"It cannot be approved: {detail.blocked}", BAD)

    def diff(self, diff: FileDiff) -> None:
        self.say("")
        self.head(f"{diff.path} ({diff.change})", STRONG)
        for warning in diff.warnings:
            self.head(f"  ! {warning}", BAD)
        styles = {"+": GOOD, "-": BAD, "@": DIM}
        for text in diff.lines:
            self.say(safe_text(f"  {text}", keep=frozenset("\t")), styles.get(text[:1], ""))
