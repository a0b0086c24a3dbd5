"""What stops a runaway conversation: budgets of hops and messages for everything that one message led to, and of
messages a minute for each pair. What goes over pauses that conversation alone, until the operator says how it goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from sqlalchemy import Connection

from libhive.messages.broker import Question
from libhive.names import HIVE, OPERATOR, new_id
from libhive.problems import ConversationPaused, NotAllowed
from libhive.sqlite import driver, rows
from services.broker.mail import Draft
from services.broker.settings import Settings

MINUTE_MS = 60_000
ROOTS_COUNTED_MAX = 10_000
"""Conversations whose messages are counted in memory; any other one is counted in the store first."""
PAIRS_COUNTED_MAX = 100_000
CONTINUE, STOP = "continue", "stop"


class Pause(msgspec.Struct, kw_only=True):
    """Why a message is held back: `question` is what the operator is asked about it."""

    question: str
    key: str = ""
    reason: str = ""
    text: str = ""
    fresh: bool = False
    """This message is the one that went over; the operator has not been asked yet."""
    asked: Any = None
    """The mail to the operator, once it is stored."""

    def as_question(self, now: int) -> Question:
        return Question(
            id=self.question,
            asker=HIVE,
            recipient=OPERATOR,
            text=self.text,
            choices=[CONTINUE, STOP],
            state="open",
            asked_ms=now,
        )


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided, or is asked, about a conversation. The bases are where its budgets began anew."""

    key: str
    state: str
    question: str = ""
    hops_base: int = 0
    messages_base: int = 0
    until_ms: int = 0


class Budgets:
    """Counts in memory what goes through; what was decided lies in the store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, Conversation] = {}
        self._pairs: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._roots: OrderedDict[str, int] = OrderedDict()
        self._decided: dict[str, Conversation] = {}
        self._counted: list[tuple[str, str]] = []

    def load(self, c: Connection) -> None:
        columns = "key, state, question, hops_base, messages_base, until_ms"
        found = rows(c, f"SELECT {columns} FROM conversations")
        self._known = {row["key"]: Conversation(**dict(row)) for row in found}

    def judge(self, c: Connection, draft: Draft, root: str, hops: int, now: int) -> list[Pause | None]:
        """Per recipient, why it is held back, if it is. Raises ConversationPaused when that was said before."""
        if draft.sender == HIVE or draft.kind in ("news", "reminder"):
            return [None] * len(draft.recipients)
        if draft.sender == OPERATOR:
            self._begin_anew(c, draft, root, hops)
            return [None] * len(draft.recipients)
        if self._known or self._decided:
            self._refuse_paused(draft, root, now)
        if hops and (why := self._over_root(c, root, hops, len(draft.recipients))):
            pause = self._pause(c, f"root:{root}", why, draft)
            return [pause] * len(draft.recipients)
        return [self._judge_pair(c, draft, recipient, now) for recipient in draft.recipients]

    def lets(self, draft: Draft, root: str, hops: int, now: int) -> bool:
        """Whether it may go to all of them, without a look into the store; if so it is counted. What is not certain goes
        through `judge`."""
        if draft.sender == HIVE or draft.kind in ("news", "reminder"):
            return True
        if draft.sender == OPERATOR:
            if hops == 0:
                self._begin_anew_with(draft)
            return hops == 0
        if self._is_decided(draft, root) or (hops and not self._root_lets(root, hops, len(draft.recipients))):
            return False
        windows = [self._window((draft.sender, recipient), now) for recipient in draft.recipients]
        if per_minute := self._settings.pair_per_minute_max:
            for window in windows:
                if _lately(window, now) >= per_minute:
                    return False
        if hops:
            self._roots[root] += len(draft.recipients)
        for window in windows:
            window[1] += 1
        return True

    def uncount(self, *, sender: str, recipient: str) -> None:
        """What `lets` has counted was not sent after all."""
        if counts := self._pairs.get((sender, recipient)):
            counts[1] = max(0, counts[1] - 1)

    def answered(self, c: Connection, question: str, go_on: bool, now: int) -> None:
        """The operator has decided: the budgets begin anew, or the conversation is over."""
        found = rows(
            c, "SELECT key, hops_base, messages_base FROM conversations WHERE question = ?", (question,)
        )
        for row in found:
            key = row["key"]
            stopped_until = now + self._settings.pair_stopped_ms if key.startswith("pair:") else 0
            decided = Conversation(
                key=key,
                state="running" if go_on else "stopped",
                hops_base=row["hops_base"],
                messages_base=row["messages_base"],
                until_ms=0 if go_on else stopped_until,
            )
            self._decide(c, decided)
            if key.startswith("pair:"):
                sender, _, recipient = key.removeprefix("pair:").partition(">")
                self._pairs.pop((sender, recipient), None)

    def committed(self) -> None:
        if self._decided:
            self._known |= self._decided
            self._decided.clear()
        self._counted.clear()

    def rolled_back(self) -> None:
        self._decided.clear()
        self._roots.clear()
        for pair in self._counted:
            if pair in self._pairs:
                self._pairs[pair][1] -= 1
        self._counted.clear()

    # ---- the rest is how it is done

    def _refuse_paused(self, draft: Draft, root: str, now: int) -> None:
        for key in _keys(draft, root):
            known = self._decided.get(key) or self._known.get(key)
            if known is None or known.state == "running" or (known.until_ms and known.until_ms <= now):
                continue
            if known.state == "stopped":
                raise NotAllowed(
                    "the operator has stopped this conversation",
                    "leave it; write to the operator if it matters",
                )
            raise ConversationPaused(
                f"this conversation is paused until the operator has answered {known.question}",
                "do something else meanwhile: what you sent before is kept",
            )

    def _over_root(self, c: Connection, root: str, hops: int, more: int) -> str:
        """Why this is too much; empty when it is not."""
        base = self._decided.get(f"root:{root}") or self._known.get(f"root:{root}")
        hops_base, messages_base = (base.hops_base, base.messages_base) if base else (0, 0)
        messages = self._messages(c, root)
        self._roots[root] = messages + more
        hops_max, messages_max = self._settings.hops_max, self._settings.root_messages_max
        if hops_max and hops - hops_base > hops_max:
            return f"it went back and forth {hops - hops_base} times; {hops_max} is the limit"
        if messages_max and messages + more - messages_base > messages_max:
            return f"it has led to {messages + more - messages_base} messages; {messages_max} is the limit"
        return ""

    def _messages(self, c: Connection, root: str) -> int:
        if root in self._roots:
            self._roots.move_to_end(root)
            return self._roots[root]
        if len(self._roots) >= ROOTS_COUNTED_MAX:
            self._roots.popitem(last=False)
        query = "SELECT (SELECT count(*) FROM mail WHERE root = ?1 AND hops > 0) + (SELECT count(*) FROM mail WHERE id = ?1)"
        return int(driver(c).execute(query, (root,)).fetchone()[0])

    def _judge_pair(self, c: Connection, draft: Draft, recipient: str, now: int) -> Pause | None:
        per_minute, window = self._settings.pair_per_minute_max, self._window((draft.sender, recipient), now)
        window[1] += 1
        self._counted.append((draft.sender, recipient))
        lately = _lately(window, now)
        if not per_minute or lately <= per_minute:
            return None
        why = f"{draft.sender} wrote to {recipient} {lately} times within a minute; {per_minute} is the limit"
        return self._pause(c, f"pair:{draft.sender}>{recipient}", why, draft)

    def _window(self, pair: tuple[str, str], now: int) -> list[int]:
        """The current minute, and how many there were in it and in the one before."""
        window, minute = self._pairs.get(pair), now // MINUTE_MS
        if window is None:
            window = self._pairs[pair] = [minute, 0, 0]
            if len(self._pairs) > PAIRS_COUNTED_MAX:
                self._pairs.popitem(last=False)
        elif window[0] != minute:
            window[:] = [minute, 0, window[1] if window[0] == minute - 1 else 0]
        return window

    def _is_decided(self, draft: Draft, root: str) -> bool:
        """Whether the operator has decided, or is asked, something about this conversation or one of these pairs."""
        if not self._known and not self._decided:
            return False
        return any(key in self._known or key in self._decided for key in _keys(draft, root))

    def _root_lets(self, root: str, hops: int, more: int) -> bool:
        if root not in self._roots:
            return False
        self._roots.move_to_end(root)
        hops_max, messages_max = self._settings.hops_max, self._settings.root_messages_max
        return (not hops_max or hops <= hops_max) and (
            not messages_max or self._roots[root] + more <= messages_max
        )

    def _pause(self, c: Connection, key: str, why: str, draft: Draft) -> Pause:
        question = new_id()
        root = key.removeprefix("root:") if key.startswith("root:") else ""
        hops, messages = self._spent(c, root) if root else (0, 0)
        paused = Conversation(
            key=key, state="paused", question=question, hops_base=hops, messages_base=messages
        )
        self._decide(c, paused)
        return Pause(
            question=question,
            key=key,
            reason="paused: the operator is asked whether this conversation goes on",
            text=_question_text(why, key, draft),
            fresh=True,
        )

    def _spent(self, c: Connection, root: str) -> tuple[int, int]:
        """Hops and messages so far: where the budgets begin anew if it goes on."""
        row = driver(c).execute("SELECT max(hops) FROM mail WHERE root = ?1 AND hops > 0", (root,)).fetchone()
        return int(row[0] or 0), self._roots.get(root, 0)

    def _begin_anew(self, c: Connection, draft: Draft, root: str, hops: int) -> None:
        """The operator takes part: what comes of her message has the whole budget, and so has who answers her."""
        self._begin_anew_with(draft)
        if hops:
            messages = self._messages(c, root) + len(draft.recipients)
            self._roots[root] = messages
            self._decide(
                c, Conversation(key=f"root:{root}", state="running", hops_base=hops, messages_base=messages)
            )

    def _begin_anew_with(self, draft: Draft) -> None:
        for recipient in draft.recipients:
            self._pairs.pop((recipient, OPERATOR), None)

    def _decide(self, c: Connection, conversation: Conversation) -> None:
        driver(c).execute(
            "INSERT OR REPLACE INTO conversations (key, state, question, hops_base, messages_base, until_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(conversation),
        )
        self._decided[conversation.key] = conversation


def _lately(window: list[int], now: int) -> int:
    """Within the last minute: a sliding window out of two fixed ones, of which the last one counts for as much as is left
    of it."""
    _, this, last = window
    return this + last * (MINUTE_MS - now % MINUTE_MS) // MINUTE_MS


def _keys(draft: Draft, root: str) -> list[str]:
    """Of everything that may be paused or stopped and holds this message back."""
    return [f"root:{root}", *(f"pair:{draft.sender}>{name}" for name in draft.recipients)]


def _question_text(why: str, key: str, draft: Draft) -> str:
    who = f"{draft.sender} and {', '.join(draft.recipients)}"
    stop = "stop: what is held back is dropped, and nothing more of it is taken"
    if key.startswith("pair:"):
        stop += " for an hour"
    return (
        f"A conversation is paused: {why}. It is between {who}; everybody else goes on.\n\n"
        f"The last message:\n{draft.body[:500]}\n\n{CONTINUE}: it goes on, with its whole budget anew. {stop}."
    )
