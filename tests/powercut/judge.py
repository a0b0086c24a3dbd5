"""Holds what an image has against all that was commanded, and against what had been confirmed before the cut.

A finding is a line whose first word is its kind: `damaged`, `lost`, `undone`, `half`, `doubled` or `invented`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.powercut.state import Mail, Progress, State
from tests.powercut.strace import Said
from tests.powercut.workload import Command

Key = tuple[str, str]
_RANK = {"stored": 0, "offered": 1, "seen": 2, "acked": 3}


class Judge:
    """Knows the whole ledger; `confirm` takes the replies in their order, up to the cut."""

    def __init__(self, ledger: Mapping[str, Command]) -> None:
        self.ledger = ledger
        self.possible = _possible_mail(ledger)
        self.sends = [c for c in ledger.values() if c.kind == "broker.send" and len(c.body["to"]) > 1]
        self.reminders = {c.body["text"]: c for c in ledger.values() if c.kind == "broker.remind"}
        self.acks = _targets(ledger, "broker.ack")
        self.statuses = _statuses(ledger)
        self.mail: set[Key] = set()
        self.ranks: dict[Key, int] = {}
        self.attempts: dict[Key, int] = {}
        self.turns: dict[Key, str] = {}
        self.answers: dict[str, Command] = {}
        self.due: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.status: dict[str, int] = {}
        self.boarded: set[str] = set()

    # ---- what was confirmed

    def confirm(self, said: Said) -> None:
        command = self.ledger.get(said.id)
        if command is None:
            return
        self.boarded.add(command.agent)
        note = _NOTES.get(command.kind)
        if said.ok and note:
            note(self, command, said.body)

    def _sent(self, command: Command, reply: dict[str, Any]) -> None:
        self.mail |= {(command.id, recipient) for recipient in reply["recipients"]}

    def _received(self, command: Command, reply: dict[str, Any]) -> None:
        """An offer is written a few milliseconds after it was made: only the offers before this one are on disk."""
        for mail in reply["mail"]:
            key = (mail["id"], command.agent)
            self.mail.add(key)
            self.attempts[key] = max(mail["attempts"] - 1, self.attempts.get(key, 0))

    def _seen(self, command: Command, reply: dict[str, Any]) -> None:
        for id in command.body["ids"]:
            self._reached((id, command.agent), "seen")
            self.turns[id, command.agent] = command.body["turn"]

    def _acked(self, command: Command, reply: dict[str, Any]) -> None:
        for id in command.body["ids"]:
            self._reached((id, command.agent), "acked")

    def _reached(self, key: Key, state: str) -> None:
        self.ranks[key] = max(_RANK[state], self.ranks.get(key, 0))

    def _asked(self, command: Command, reply: dict[str, Any]) -> None:
        self.mail.add((command.id, command.body["to"]))

    def _answered(self, command: Command, reply: dict[str, Any]) -> None:
        self.answers[command.body["question"]] = command

    def _reminded(self, command: Command, reply: dict[str, Any]) -> None:
        self.due[command.id] = reply["due_ms"]

    def _cancelled(self, command: Command, reply: dict[str, Any]) -> None:
        self.cancelled.add(command.body["id"])

    def _status(self, command: Command, reply: dict[str, Any]) -> None:
        self.status[command.agent] = self.statuses[command.agent].index(command.body["text"])

    # ---- what is there

    def findings(self, state: State) -> list[str]:
        if state.damage:
            return [f"damaged: {state.damage}"]
        found: list[str] = []
        for check in (
            self._mail,
            self._progress,
            self._wholes,
            self._questions,
            self._reminders,
            self._peers,
        ):
            found.extend(check(state))
        return found

    def _mail(self, state: State) -> Iterator[str]:
        for key in self.mail - state.mail.keys():
            yield f"lost: message {key}"
        for key, mail in state.mail.items():
            if self.possible.get(key) != mail and not self._made_by_the_hive(key, mail):
                yield f"invented: {key} {mail!r:.200}"

    def _made_by_the_hive(self, key: Key, mail: Mail) -> bool:
        """Reminders that fired, questions that expired, and news have ids of their own."""
        _, recipient = key
        if mail.kind == "reminder":
            return mail.body in self.reminders and self.reminders[mail.body].agent == recipient
        asked = self.ledger.get(mail.question)
        if mail.kind == "answer":
            return mail.sender == "hive" and asked is not None and asked.body.get("deadline_seconds", 0) > 0
        return mail.kind == "news" and mail.sender == "hive"

    def _progress(self, state: State) -> Iterator[str]:
        there = {
            key: progress for key, progress in state.progress.items() if not self._may_expire(key, progress)
        }
        for key, rank in self.ranks.items():
            if key in there and _RANK.get(there[key].state, -1) < rank:
                yield f"undone: {key} is {there[key].state}"
        for key, attempts in self.attempts.items():
            if key in there and there[key].attempts < attempts:
                yield f"undone: {key} was offered {attempts} times, not {there[key].attempts}"
        for key, turn in self.turns.items():
            if key in there and there[key].turn != turn:
                yield f"undone: {key} was seen by {turn}, not by {there[key].turn!r}"
        for key, progress in there.items():
            if progress.state == "acked" and key not in self.acks:
                yield f"invented: nobody acknowledged {key}"

    def _may_expire(self, key: Key, progress: Progress) -> bool:
        """A question that nobody was offered, as far as the disk knew, when its deadline passed."""
        asked = self.ledger.get(key[0])
        return progress.state == "expired" and asked is not None and bool(asked.body.get("deadline_seconds"))

    def _wholes(self, state: State) -> Iterator[str]:
        """A send reaches all or none; a question and its mail, an answer and its mail are one."""
        for send in self.sends:
            there = [(send.id, name) in state.mail for name in send.body["to"]]
            if any(there) and not all(there):
                yield f"half: {send.id} reached only some"
        questions = {id for (id, _), mail in state.mail.items() if mail.kind == "question"}
        if questions != state.questions.keys():
            yield f"half: questions without their mail, or the reverse: {questions ^ state.questions.keys()}"
        answers = Counter(mail.question for mail in state.mail.values() if mail.kind == "answer")
        closed = {id: 1 for id, question in state.questions.items() if question.state != "open"}
        for id in answers.keys() | closed.keys():
            if answers[id] != closed.get(id, 0):
                word = "doubled" if answers[id] > 1 else "half"
                yield f"{word}: question {id} has {answers[id]} answers"

    def _questions(self, state: State) -> Iterator[str]:
        for id, command in self.answers.items():
            there = state.questions.get(id)
            if there is None:
                yield f"lost: question {id}"
            elif (there.state, there.answer, there.answered_by) != (
                *("answered", command.body["text"], command.agent),
            ):
                yield f"undone: the answer to {id}, which is {there.state}"
        for id, there in state.questions.items():
            asked = self.ledger.get(id)
            if asked is None or (asked.agent, asked.body["to"], asked.body["question"]) != there[:3]:
                yield f"invented: question {id} {there!r:.200}"

    def _reminders(self, state: State) -> Iterator[str]:
        fired = Counter(mail.body for mail in state.mail.values() if mail.kind == "reminder")
        for id, due in self.due.items():
            if id not in state.reminders:
                yield f"lost: reminder {id}"
            elif state.reminders[id].due_ms != due:
                yield f"undone: reminder {id} is due at {state.reminders[id].due_ms}, not {due}"
        for id, there in state.reminders.items():
            if self.reminders.get(there.text) != self.ledger.get(id) or id not in self.ledger:
                yield f"invented: reminder {id} {there!r:.200}"
            if fired[there.text] != (there.state == "fired"):
                word = "doubled" if fired[there.text] > 1 else "half"
                yield f"{word}: reminder {id} is {there.state} and fired {fired[there.text]} times"
            if id in self.cancelled and there.state != "cancelled":
                yield f"undone: reminder {id} is {there.state}, not cancelled"

    def _peers(self, state: State) -> Iterator[str]:
        for name in self.boarded - state.statuses.keys():
            yield f"lost: mailbox {name}"
        for name, text in state.statuses.items():
            said = self.statuses.get(name, [""])
            if text not in said or said.index(text) < self.status.get(name, 0):
                yield f"undone: the status of {name} is {text!r}"


_NOTES: dict[str, Callable[[Judge, Command, dict[str, Any]], None]] = {
    "broker.ack": Judge._acked,
    "broker.answer": Judge._answered,
    "broker.ask": Judge._asked,
    "broker.cancel_reminder": Judge._cancelled,
    "broker.recv": Judge._received,
    "broker.remind": Judge._reminded,
    "broker.seen": Judge._seen,
    "broker.send": Judge._sent,
    "broker.status": Judge._status,
}


def _possible_mail(ledger: Mapping[str, Command]) -> dict[Key, Mail]:
    """Every mail that a command may have made, by its key."""
    found: dict[Key, Mail] = {}
    for c in ledger.values():
        if c.kind == "broker.send":
            found |= {(c.id, name): Mail(c.agent, "message", c.body["body"], "") for name in c.body["to"]}
        elif c.kind == "broker.ask":
            found[c.id, c.body["to"]] = Mail(c.agent, "question", c.body["question"], c.id)
        elif c.kind == "broker.answer" and (asked := ledger.get(c.body["question"])):
            found[c.id, asked.agent] = Mail(c.agent, "answer", c.body["text"], asked.id)
    return found


def _targets(ledger: Mapping[str, Command], kind: str) -> set[Key]:
    return {(id, c.agent) for c in ledger.values() if c.kind == kind for id in c.body["ids"]}


def _statuses(ledger: Mapping[str, Command]) -> dict[str, list[str]]:
    """What each agent ever said of itself, in order; nothing at first."""
    found: dict[str, list[str]] = {}
    for c in ledger.values():
        said = found.setdefault(c.agent, [""])
        if c.kind == "broker.status":
            said.append(c.body["text"])
    return found
