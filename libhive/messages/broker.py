"""The broker's vocabulary: mail, receipts, questions, reminders, who is there."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from libhive.messages.base import Count, Done, Event, Reply, Request
from libhive.names import Id, Name, OptionalId, OptionalName

BODY_CHARACTERS_MAX = 60_000
LINE_CHARACTERS_MAX = 500

Body = Annotated[str, msgspec.Meta(min_length=1, max_length=BODY_CHARACTERS_MAX)]
Line = Annotated[str, msgspec.Meta(max_length=LINE_CHARACTERS_MAX)]
Choices = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=200)]], msgspec.Meta(max_length=12)
]
WaitMs = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]

MailKind = Literal["message", "question", "answer", "reminder", "news"]
ReceiptState = Literal["stored", "offered", "seen", "acked", "dead", "expired"]
QuestionState = Literal["open", "answered", "expired"]
CatchUp = Literal["once", "skip", "all"]
"""What a recurring reminder does with the firings that fell into a time when the broker was down: one mail for all of
them, none, or one each."""
HarnessState = Literal[
    "starting", "idle", "running", "waiting-operator", "needs-login", "limited", "paused", "failed", "unknown"
]


class Mail(Reply, frozen=True, kw_only=True):
    """One message as its recipient gets it. `attempts` counts how often it was offered, this time included."""

    id: str
    sender: str
    recipient: str
    kind: MailKind
    body: str
    sent_ms: int
    attempts: int = 0
    in_reply_to: str = ""
    root: str = ""
    hops: int = 0
    question: str = ""
    """For a question or an answer: the question's id."""
    choices: list[str] = []
    deadline_ms: int = 0
    details: dict[str, str] = {}
    """For news: what happened, in words a program can tell apart (`what`, `agent`, `proposal` ...)."""


class Receipt(Reply, frozen=True, kw_only=True):
    """Where one message is, for one recipient. An instant that has not come is 0."""

    id: str
    sender: str
    recipient: str
    kind: MailKind
    state: ReceiptState
    attempts: int
    stored_ms: int
    offered_ms: int = 0
    seen_ms: int = 0
    acked_ms: int = 0
    turn: str = ""
    ended_ms: int = 0
    """When it became dead or expired."""
    reason: str = ""
    """Why it is dead or expired, or, while it is stored, what it waits for: its conversation is paused."""
    body: str = ""
    in_reply_to: str = ""
    root: str = ""
    """The message that the conversation began with."""
    hops: int = 0
    question: str = ""
    seq: int = 0
    """Counts what the broker ever stored: the key to page by."""


class Question(Reply, frozen=True, kw_only=True):
    id: str
    asker: str
    recipient: str
    text: str
    choices: list[str]
    state: QuestionState
    asked_ms: int
    deadline_ms: int = 0
    default: str = ""
    answer: str = ""
    answered_by: str = ""
    answered_ms: int = 0


class Reminder(Reply, frozen=True, kw_only=True):
    """`due_ms` is the next firing; one with a `cron` line has another after it."""

    id: str
    agent: str
    text: str
    due_ms: int
    created_ms: int
    cron: str = ""
    zone: str = ""
    catch_up: CatchUp = "once"
    set_by: str = ""
    """The agent itself, or `operator`."""
    fired: int = 0
    last_ms: int = 0
    """When it last fired; 0 until then."""


class Peer(Reply, frozen=True, kw_only=True):
    """Who is there, as far as its own harness says; `unknown` when no harness is connected."""

    name: str
    connected: bool
    state: HarnessState
    status: str = ""
    detail: str = ""
    turn: str = ""
    model: str = ""
    generation: int = 0
    incarnation: str = ""
    version: str = ""
    unacked: int = 0
    holds: list[str] = []
    since_ms: int = 0


# ---- what an agent says through its door, and the operator or the hive over the bus


class Sent(Reply, frozen=True, kw_only=True):
    """Durable. `id` is the command's own, and the message's; one receipt exists per recipient, and
    their copies have at most 8,000,000 characters together."""

    id: str
    recipients: list[str]
    paused: str = ""
    """The operator's question when this message went over a conversation's budget: it is kept, and offered once she
    lets the conversation go on."""


class Send(Request[Sent], frozen=True, kw_only=True):
    """A message to agents, `operator`, `manager` or `all`; its id is the request's id."""

    KIND = "broker.send"
    REPLY = Sent

    to: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]
    body: Body
    in_reply_to: OptionalId = ""


class Asked(Reply, frozen=True, kw_only=True):
    id: str


class Ask(Request[Asked], frozen=True, kw_only=True):
    """A question; its answer, or its default once `deadline_ms` has passed, comes as mail."""

    KIND = "broker.ask"
    REPLY = Asked

    to: Name
    question: Body
    choices: Choices = []
    deadline_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400)] = 0
    """0: no deadline."""
    default: Line = ""


class Answer(Request[Done], frozen=True, kw_only=True):
    """The first accepted answer wins; a question with choices takes one of them or nothing."""

    KIND = "broker.answer"
    REPLY = Done

    question: Id
    text: Body


class Reminded(Reply, frozen=True, kw_only=True):
    id: str
    due_ms: int


class Remind(Request[Reminded], frozen=True, kw_only=True):
    """Mail to myself at `at_ms`, `after_seconds` from now, or whenever `cron` says so in the time zone `zone`; exactly
    one of the three."""

    KIND = "broker.remind"
    REPLY = Reminded

    text: Body
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_000)] = 0
    after_seconds: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 0
    cron: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Five fields, minute first; at most once a minute."""
    zone: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """An IANA name such as `Europe/Berlin`; UTC when empty."""
    catch_up: CatchUp = "once"
    agent: OptionalName = ""
    """Whom to remind: the operator names an agent, an agent nobody but itself."""


class CancelReminder(Request[Done], frozen=True, kw_only=True):
    KIND = "broker.cancel_reminder"
    REPLY = Done

    id: Id


class SetStatus(Request[Done], frozen=True, kw_only=True):
    """The agent's own one-line status."""

    KIND = "broker.status"
    REPLY = Done

    text: Line


class PeerList(Reply, frozen=True, kw_only=True):
    peers: list[Peer]


class Peers(Request[PeerList], frozen=True, kw_only=True):
    KIND = "broker.peers"
    REPLY = PeerList


class LooseEndList(Reply, frozen=True, kw_only=True):
    """What is still open for the caller: questions asked of it or by it, its reminders, its unacknowledged mail."""

    asked_of_me: list[Question]
    asked_by_me: list[Question]
    reminders: list[Reminder]
    unacked: list[Receipt]


class LooseEnds(Request[LooseEndList], frozen=True, kw_only=True):
    KIND = "broker.loose_ends"
    REPLY = LooseEndList


# ---- what a harness says for its agent


class Welcome(Reply, frozen=True, kw_only=True):
    """`lease` fences this harness: whoever says Hello after it without resuming takes the mailbox over."""

    agent: str
    lease: str
    resumed: bool
    sequence: int


class Hello(Request[Welcome], frozen=True, kw_only=True):
    """A harness takes the mailbox. With `resume`, it goes on with the lease it had (after a broke connection);
    otherwise what an earlier one was offered and did not acknowledge is offered again."""

    KIND = "broker.hello"
    REPLY = Welcome

    generation: Count
    incarnation: Line
    version: Line
    resume: OptionalId = ""


class Received(Reply, frozen=True, kw_only=True):
    """`sequence` counts what ever came to this mailbox: an empty `mail` with the same number is truly empty."""

    mail: list[Mail]
    sequence: int
    holds: list[str] = []
    """Why nothing is offered although there may be mail: `operator` (paused), `update` (draining)."""


class Recv(Request[Received], frozen=True, kw_only=True):
    """Offers mail to the lease, oldest first; waits up to `wait_ms` for some."""

    KIND = "broker.recv"
    REPLY = Received

    lease: Id
    wait_ms: WaitMs = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16


class Seen(Request[Done], frozen=True, kw_only=True):
    """The model has got these: the CLI said so."""

    KIND = "broker.seen"
    REPLY = Done

    lease: Id
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=64)]
    turn: Line


class Ack(Request[Done], frozen=True, kw_only=True):
    """The turn that took these has ended; they will not be offered again."""

    KIND = "broker.ack"
    REPLY = Done

    lease: Id
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=64)]


class ReportState(Request[Done], frozen=True, kw_only=True):
    KIND = "broker.report_state"
    REPLY = Done

    lease: Id
    state: HarnessState
    detail: Line = ""
    turn: Line = ""
    model: Line = ""


# ---- the bus only


class OpenMailbox(Request[Done], frozen=True, kw_only=True):
    """Lifecycle: this agent exists, its cage runs as `uid`, and it may be written to."""

    KIND = "broker.open_mailbox"
    REPLY = Done

    name: Name
    uid: Count
    allowed_recipients: list[Name] | None = None
    """None: everybody."""


class CloseMailbox(Request[Done], frozen=True, kw_only=True):
    """Lifecycle: the agent is destroyed. What is in the mailbox stays; new mail is refused."""

    KIND = "broker.close_mailbox"
    REPLY = Done

    name: Name


class Mailbox(Reply, frozen=True, kw_only=True):
    name: str
    uid: int
    open: bool


class MailboxList(Reply, frozen=True, kw_only=True):
    mailboxes: list[Mailbox]


class Mailboxes(Request[MailboxList], frozen=True, kw_only=True):
    """Who has a mailbox, and which user its cage runs as: what another service needs to open a door."""

    KIND = "broker.mailboxes"
    REPLY = MailboxList


class News(Request[Done], frozen=True, kw_only=True):
    """System news from `hive` to whom it concerns; `what` is one of a closed list in docs/protocol.md."""

    KIND = "broker.news"
    REPLY = Done

    to: Name
    what: Line
    body: Body
    details: dict[str, str] = {}


class SetHold(Request[Done], frozen=True, kw_only=True):
    """While an agent is held its mail stays stored; the running turn goes on to its end."""

    KIND = "broker.set_hold"
    REPLY = Done

    agent: Name
    reason: Literal["operator", "update"]
    held: bool


class ReceiptList(Reply, frozen=True, kw_only=True):
    receipts: list[Receipt]


class MessageStatus(Request[ReceiptList], frozen=True, kw_only=True):
    """Where a message is, per recipient. An agent sees only what it sent or got."""

    KIND = "broker.message_status"
    REPLY = ReceiptList

    id: Id


class History(Request[ReceiptList], frozen=True, kw_only=True):
    """The newest messages first; `before` is the id of the last one already seen."""

    KIND = "broker.history"
    REPLY = ReceiptList

    agent: OptionalName = ""
    before: OptionalId = ""
    limit: Limit = 100


class Inbox(Request[ReceiptList], frozen=True, kw_only=True):
    """The operator's mail, oldest first; only what is not acknowledged, unless `all`."""

    KIND = "broker.inbox"
    REPLY = ReceiptList

    all: bool = False
    limit: Limit = 100


class AckInbox(Request[Done], frozen=True, kw_only=True):
    """The operator has read these."""

    KIND = "broker.ack_inbox"
    REPLY = Done

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=500)]


class AwaitReply(Request[ReceiptList], frozen=True, kw_only=True):
    """Waits up to `wait_ms` for a message to the operator that answers `message`; empty when none came."""

    KIND = "broker.await_reply"
    REPLY = ReceiptList

    message: Id
    wait_ms: WaitMs = 0


class QuestionList(Reply, frozen=True, kw_only=True):
    questions: list[Question]


class Questions(Request[QuestionList], frozen=True, kw_only=True):
    KIND = "broker.questions"
    REPLY = QuestionList

    open_only: bool = True
    limit: Limit = 100


class ReminderList(Reply, frozen=True, kw_only=True):
    reminders: list[Reminder]


class Reminders(Request[ReminderList], frozen=True, kw_only=True):
    """What is still to fire, the next first. An agent sees its own."""

    KIND = "broker.reminders"
    REPLY = ReminderList

    agent: OptionalName = ""


class RetryMail(Request[Done], frozen=True, kw_only=True):
    """The operator: offer this dead message again, with all its attempts before it."""

    KIND = "broker.retry_mail"
    REPLY = Done

    id: Id
    recipient: Name


class DropMail(Request[Done], frozen=True, kw_only=True):
    """The operator: never offer this dead, or not yet offered, message again. It becomes `expired`, with her reason."""

    KIND = "broker.drop_mail"
    REPLY = Done

    id: Id
    recipient: Name
    reason: Line = ""


class Found(Reply, frozen=True, kw_only=True):
    receipts: list[Receipt]
    before: int = 0
    """Give it back as `before` for the next page; 0: there is no more."""


class Search(Request[Found], frozen=True, kw_only=True):
    """Messages, the newest first. Whatever is given has to hold."""

    KIND = "broker.search"
    REPLY = Found

    text: Line = ""
    """Words that are all in the body; "several words" in quotes stand together, and `begin*` matches what begins so."""
    agent: OptionalName = ""
    """Who sent or got it."""
    root: OptionalId = ""
    """The conversation."""
    since_ms: Count = 0
    until_ms: Count = 0
    """0: until now."""
    before: Count = 0
    limit: Limit = 50


class Retained(Reply, frozen=True, kw_only=True):
    """What a retention of `days` removes, or has removed."""

    days: int
    messages: int
    questions: int = 0
    bytes: int = 0
    """Of their texts."""
    oldest_ms: int = 0
    newest_ms: int = 0
    applied: bool = False


class Retain(Request[Retained], frozen=True, kw_only=True):
    """Removes what ended more than `days` ago; a dry run unless `apply`. What is not acknowledged, dead or expired stays, as does
    every message of a conversation that has such a one."""

    KIND = "broker.retain"
    REPLY = Retained

    days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0
    """0: as the broker's settings say."""
    apply: bool = False


class Purged(Reply, frozen=True, kw_only=True):
    """What is gone."""

    messages: int
    questions: int
    reminders: int


class PurgeMailbox(Request[Purged], frozen=True, kw_only=True):
    """Updater: remove a closed mailbox with its mail, questions and reminders. What it wrote to others is theirs, and
    stays."""

    KIND = "broker.purge_mailbox"
    REPLY = Purged

    name: Name


# ---- news to subscribers


class MessageStored(Event, frozen=True, kw_only=True):
    KIND = "broker.message_stored"
    receipt: Receipt


class ReceiptChanged(Event, frozen=True, kw_only=True):
    KIND = "broker.receipt_changed"
    id: str
    recipient: str
    state: ReceiptState
    at_ms: int
    attempts: int = 0
    turn: str = ""
    reason: str = ""


class QuestionChanged(Event, frozen=True, kw_only=True):
    KIND = "broker.question_changed"
    question: Question


class ReminderChanged(Event, frozen=True, kw_only=True):
    KIND = "broker.reminder_changed"
    reminder: Reminder
    what: Literal["set", "fired", "skipped", "cancelled"]


class PeerChanged(Event, frozen=True, kw_only=True):
    KIND = "broker.peer_changed"
    peer: Peer


class MailboxPurged(Event, frozen=True, kw_only=True):
    KIND = "broker.mailbox_purged"
    name: str


class MailboxChanged(Event, frozen=True, kw_only=True):
    KIND = "broker.mailbox_changed"
    mailbox: Mailbox
