"""What stands in the cells of hive-admin's tables: one thing as one row, each text made safe to show."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from libhive.admin import times
from libhive.clock import now_ms
from libhive.logs import safe_text
from libhive.messages.broker import Peer, Receipt, Reminder
from libhive.messages.gateway import EgressDecision
from libhive.messages.lifecycle import Agent

EXCERPT_CHARACTERS = 160
ONE_LINE = frozenset[str]()
GOOD, BAD, WARN, DIM, STRONG = "green", "red", "yellow", "dim", "bold"
_UNITS = ("B", "kB", "MB", "GB", "TB")
STATE_STYLES = {
    **dict.fromkeys(("running", "idle", "acked", "deployed", "answered"), GOOD),
    **dict.fromkeys(("broken", "failed", "dead", "denied", "needs-login", "stale"), BAD),
    **dict.fromkeys(
        ("unknown", "starting", "proposed", "open", "limited", "paused", "waiting-operator"), WARN
    ),
}


def line(text: str, style: str = "") -> Text:
    """On one line, whatever it holds."""
    return Text(safe_text(" ".join(text.split("\n")), keep=ONE_LINE), style=style)


def state(text: str) -> Text:
    return line(text, STATE_STYLES.get(text, ""))


def agent_row(agent: Agent, peer: Peer | None, page_port_shift: int) -> Sequence[Text | str]:
    gone = agent.desired == "destroyed"
    at_work = peer.state if peer else "unknown"
    shown = at_work if agent.cage == "running" else "-"
    doing = agent.detail or (peer and (peer.status or peer.detail)) or ""
    held = f" held: {', '.join(peer.holds)}" if peer and peer.holds else ""
    unread = "-" if gone else str(peer.unacked) if peer else "?"
    model = (peer and peer.model) or agent.spec.model
    page = "-" if gone else f":{agent.page_port + page_port_shift}"
    cage = "destroyed" if gone and agent.cage == "absent" else agent.cage
    return agent.name, state(cage), state(shown), unread, model, page, doing + held


def decision_row(one: EgressDecision) -> Sequence[Text | str]:
    verdict = line(one.verdict, {"allowed": GOOD, "refused": BAD}.get(one.verdict, WARN))
    where = f"{one.host}:{one.port}" if one.host else "-"
    to = f"to {one.address}" if one.address else ""
    still = "open" if one.verdict == "allowed" and not one.ended_ms else ""
    what = ", ".join(filter(None, (one.reason, to, one.detail, still)))
    return when(one.at_ms), verdict, where, str(one.times), size(one.bytes_up), size(one.bytes_down), what


def size(count: int) -> str:
    """As people say it, three digits at most."""
    amount, unit = float(count), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if amount >= 99.5 or not unit else f"{amount:.3g} {_UNITS[unit]}"


def steps(receipt: Receipt) -> list[tuple[str, int, str]]:
    """What has become of it so far, each with its instant and what there is to say. A step that was gone back on, by a
    turn that ended before its time, is still told."""
    waits = receipt.reason if receipt.state == "stored" else ""
    tries = f"{receipt.attempts} time{'' if receipt.attempts == 1 else 's'}" if receipt.attempts else ""
    turn = f"turn {receipt.turn}" if receipt.turn else ""
    all_steps = [
        ("stored", receipt.stored_ms, waits),
        ("offered", receipt.offered_ms, tries),
        ("seen", receipt.seen_ms, turn),
        ("acked", receipt.acked_ms, ""),
        (receipt.state, receipt.ended_ms, receipt.reason),
    ]
    return [step for step in all_steps if step[1]]


def reminder_row(reminder: Reminder) -> Sequence[Text | str]:
    again = f"{reminder.cron} {reminder.zone or 'UTC'}" if reminder.cron else "-"
    again += f", {reminder.catch_up}" if reminder.catch_up != "once" else ""
    due = times.until(reminder.due_ms, now_ms())
    return reminder.id, reminder.agent, reminder.set_by, due, again, reminder.text


def change(before: str, after: str) -> str:
    return f"{before} -> {after or 'nothing'}" if before else after


def excerpt(body: str) -> str:
    return body if len(body) <= EXCERPT_CHARACTERS else f"{body[:EXCERPT_CHARACTERS]} ..."


def indented(text: str) -> str:
    return "\n".join(f"  {part}" for part in text.rstrip("\n").split("\n"))


def when(instant_ms: int) -> str:
    return times.when(instant_ms, now_ms())
