"""What may happen between a broker and those who speak to it, and nothing else: holds a history, and the store it left,
against that.

A finding is a line whose first word is its kind:

    lost       confirmed, and not there                          undone    confirmed, and not so any more
    doubled    happened twice                                    unasked   nobody ever asked for this
    order      first offers not in the order of sending          half      what belongs together is there in part
    returned   offered although it was acknowledged or dropped   stale     a lease counts that has been taken over
    held       offered while its reader was held                 evicted   the one who holds the lease was refused
    wrong      an answer by the wrong one, or no choice          late      an answer after the end of its question
    early      before its time                                   attempts  not counted, or too many
    skipped    not offered again to a new lease, while newer mail was
    stuck      never came to its end                             refused   for no reason that is known
    changed    a repeated command was answered otherwise         damaged   the file is not whole

What was never answered may have happened or not, but only once, and only as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from libhive.clock import iso
from libhive.messages import broker as say
from libhive.names import HIVE, OPERATOR
from tests.proofs import store as stored
from tests.proofs.history import Call, History, word_of

ATTEMPTS_MAX = 5
NEVER = 1 << 62
MINUTE_MS = 60_000
FIRES_WITHIN_MS = 5_000
"""After its minute has begun, unless it is cancelled before that."""
LEASED = ("recv", "seen", "ack", "report_state")
REFUSALS = {
    "ack": {"stale-lease"},
    "answer": {"bad-request", "conflict", "not-found"},
    "cancel_reminder": {"conflict", "not-found"},
    "drop_mail": {"conflict", "not-found"},
    "hello": {"stale-lease"},
    "message_status": {"not-found"},
    "recv": {"stale-lease"},
    "report_state": {"stale-lease"},
    "retry_mail": {"conflict", "not-found"},
    "seen": {"stale-lease"},
}
"""Which problems a right broker may answer here; when exactly, the rules below say."""


class Offer(NamedTuple):
    call: Call
    mail: say.Mail


class Model:
    """The history, sorted by what the rules ask about."""

    def __init__(self, history: History, store: stored.Store) -> None:
        self.store, self.deaths = store, history.deaths
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.commands: dict[str, Call] = {}
        """By id: sends, questions, answers and reminders."""
        self.repeats: list[tuple[Call, Call]] = []
        for call in history.calls:
            self.calls[call.verb].append(call)
            self._note_command(call)
        self.offers: dict[tuple[str, str], list[Offer]] = defaultdict(list)
        self.received = sorted((call for call in self.calls["recv"] if call.ok), key=lambda call: call.ended)
        self.lost_recvs: dict[str, list[int]] = defaultdict(list)
        for call in self.calls["recv"]:
            if not call.ended:
                self.lost_recvs[call.actor].append(call.begun)
        self.lost_leases = {call.request.lease for call in self.calls["recv"] if not call.ended}
        self.given: dict[tuple[str, str], dict[str, say.Mail]] = defaultdict(dict)
        """What each lease of an agent was offered."""
        for call in self.received:
            self.given[call.actor, call.request.lease] |= {mail.id: mail for mail in call.reply.mail}
            for mail in call.reply.mail:
                self.offers[mail.id, call.actor].append(Offer(call, mail))
        self.greetings: dict[str, list[Call]] = defaultdict(list)
        """Those that ask for a new lease, per agent."""
        for call in self.calls["hello"]:
            if not call.request.resume:
                self.greetings[call.actor].append(call)
        self.rows = {(row.id, row.recipient): row for row in store.mail}
        self.copies: dict[str, list[tuple[str, str]]] = defaultdict(list)
        """The keys of a message's rows, by its id."""
        for key in self.rows:
            self.copies[key[0]].append(key)

    def _note_command(self, call: Call) -> None:
        if call.verb in ("send", "ask", "answer", "remind"):
            if first := self.commands.get(call.id):
                self.repeats.append((first, call))
            else:
                self.commands[call.id] = call

    def death_between(self, begin: int, end: int) -> bool:
        at = bisect_left(self.deaths, begin)
        return at < len(self.deaths) and self.deaths[at] < end

    def over(self, call: Call) -> int:
        """From here on it cannot take effect any more, if it has not."""
        if call.ended:
            return call.ended
        at = bisect_left(self.deaths, call.begun)
        return self.deaths[at] if at < len(self.deaths) and call.tries == 1 else NEVER

    def confirmed(self, id: str) -> bool:
        return any(call.ok for call in self.said(id))

    def said(self, id: str) -> list[Call]:
        """The command, and its repetitions."""
        first = self.commands.get(id)
        return [first, *(again for one, again in self._repeats_of(id) if one is first)] if first else []

    def _repeats_of(self, id: str) -> list[tuple[Call, Call]]:
        if not hasattr(self, "_by_id"):
            self._by_id: dict[str, list[tuple[Call, Call]]] = defaultdict(list)
            for first, again in self.repeats:
                self._by_id[first.id].append((first, again))
        return self._by_id.get(id, [])


def findings(history: History, store: stored.Store) -> list[str]:
    if store.damage:
        return [f"damaged: {store.damage}"]
    model = Model(history, store)
    return [finding for rule in RULES for finding in rule(model)]


# ---- commands


def repeats(model: Model) -> Iterator[str]:
    for first, again in model.repeats:
        if first.ok and again.ok and first.reply != again.reply and first.verb != "answer":
            yield f"changed: {first.id} was answered {first.reply}, then {again.reply}"


def refusals(model: Model) -> Iterator[str]:
    for verb, calls in model.calls.items():
        for call in calls:
            if call.problem and call.problem not in REFUSALS.get(verb, ()):
                yield f"refused: {call}"


def sends(model: Model) -> Iterator[str]:
    """A send reaches all its recipients or, when it was never confirmed, perhaps none."""
    there: dict[str, set[str]] = defaultdict(set)
    for row in model.store.mail:
        there[row.id].add(row.recipient)
    for call in model.commands.values():
        if call.verb not in ("send", "ask"):
            continue
        wanted, found = _recipients(call), there.get(call.id, set())
        missing = (wanted or found) - found
        if missing and model.confirmed(call.id):
            yield f"lost: {call.id} to {sorted(missing)}"
        elif missing and found:
            yield f"half: {call.id} is not there for {sorted(missing)}"


def rows(model: Model) -> Iterator[str]:
    """Every message in the store is one that somebody has sent, as it was sent."""
    bodies = Counter(
        (row.sender, row.recipient, row.body) for row in model.store.mail if row.kind == "message"
    )
    for row in model.store.mail:
        if row.kind == "message" and bodies[row.sender, row.recipient, row.body] > 1:
            yield f"doubled: {row.id} is there again under another id"
        elif not _was_commanded(model, row):
            yield f"unasked: nobody has sent {row!r:.300}"


def _was_commanded(model: Model, row: stored.Mail) -> bool:
    if row.kind == "reminder":
        call = model.commands.get(row.details.get("reminder", ""))
        return call is not None and (call.actor, call.request.text) == (row.recipient, row.body)
    if row.kind == "news":
        return row.sender == HIVE and row.details.get("what") == "message_dead"
    if row.kind == "answer" and row.sender == HIVE:
        asked = model.commands.get(row.question)
        return asked is not None and asked.actor == row.recipient and asked.request.deadline_seconds > 0
    call = model.commands.get(row.id)
    if call is None or call.actor != row.sender:
        return False
    if isinstance(call.request, say.Send):
        wanted = _recipients(call)
        return row.body == call.request.body and (not wanted or row.recipient in wanted)
    if isinstance(call.request, say.Ask):
        return (row.body, row.recipient) == (call.request.question, call.request.to)
    asked = model.commands.get(row.question)
    return asked is not None and (row.recipient, row.body) == (asked.actor, call.request.text)


def _recipients(call: Call) -> set[str]:
    """Empty while it is not known whom `all` were."""
    if isinstance(call.request, say.Ask):
        return {call.request.to}
    if "all" in call.request.to:
        return set(call.reply.recipients) if call.ok else set()
    return set(call.request.to)


# ---- offers


def offers(model: Model) -> Iterator[str]:
    """What is offered is in the store as it was sent, and the next offer of it is to another lease. Only a broker that died
    forgets what it had just handed out, unless it had confirmed more than that."""
    marked = _marked(model)
    for (id, name), given in model.offers.items():
        row = model.rows.get((id, name))
        for offer in given:
            mail = offer.mail
            if row is None or (row.sender, row.kind, row.body) != (mail.sender, mail.kind, mail.body):
                yield f"unasked: {name} was offered {mail!r:.300}"
        for before, after in pairwise(given):
            if before.call.request.lease == after.call.request.lease:
                forgotten = model.death_between(before.call.begun, after.call.ended)
                known = any(
                    tick < after.call.begun for tick in marked.get((id, before.call.request.lease), ())
                )
                if not forgotten or known:
                    yield f"doubled: {id} was offered to {name} twice by one lease"


def _marked(model: Model) -> dict[tuple[str, str], list[int]]:
    """By lease, when it was confirmed that what it had been offered was seen."""
    given: dict[tuple[str, str], int] = {}
    for call in model.received:
        for mail in call.reply.mail:
            given.setdefault((mail.id, call.request.lease), call.ended)
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for call in model.calls["seen"]:
        for id in call.request.ids if call.ok else ():
            if given.get((id, call.request.lease), NEVER) < call.begun:
                found[id, call.request.lease].append(call.ended)
    return found


def order(model: Model) -> Iterator[str]:
    """Per sender and recipient, first offers come in the order of the sends."""
    newest: dict[tuple[str, str], int] = {}
    for call in model.received:
        for mail in call.reply.mail:
            sent = model.commands.get(mail.id)
            if sent is None or sent.verb != "send" or not sent.ok or not _is_first(model, call, mail, sent):
                continue
            pair = (sent.actor, call.actor)
            if sent.begun < newest.get(pair, 0):
                yield f"order: {call.actor} was offered {mail.id} after a later one of {sent.actor}"
            newest[pair] = max(sent.begun, newest.get(pair, 0))


def _is_first(model: Model, call: Call, mail: say.Mail, sent: Call) -> bool:
    """Not when it was, or may have been, offered before in an answer that was lost."""
    if mail.attempts != 1 or model.offers[mail.id, call.actor][0].call is not call:
        return False
    lost = model.lost_recvs[call.actor]
    at = bisect_left(lost, sent.begun)
    return not (at < len(lost) and lost[at] < call.begun and model.death_between(lost[at], call.ended))


def ended_mail(model: Model) -> Iterator[str]:
    """Nothing is offered after it was acknowledged, or dropped."""
    ended: dict[tuple[str, str], int] = {}
    for call in model.calls["ack"]:
        for id in call.request.ids if call.ok else ():
            ended[id, call.actor] = min(call.ended, ended.get((id, call.actor), NEVER))
    for call in model.calls["drop_mail"]:
        if call.ok:
            key = (call.request.id, call.request.recipient)
            ended[key] = min(call.ended, ended.get(key, NEVER))
    for key, tick in ended.items():
        for offer in model.offers.get(key, ()):
            if offer.call.begun > tick:
                yield f"returned: {key} was offered after its end"


def attempts(model: Model) -> Iterator[str]:
    """Each lease's offer counts one more; a broker that died may have forgotten its last."""
    retries: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in model.calls["retry_mail"]:
        if call.perhaps:
            retries[call.request.id, call.request.recipient].append(call)
    for key, given in model.offers.items():
        for before, after in pairwise(given):
            retried = any(
                call.begun < after.call.ended and model.over(call) > before.call.begun
                for call in retries.get(key, ())
            )
            forgotten = model.death_between(before.call.begun, after.call.ended)
            counted = not (forgotten or _taken_meanwhile(model, before.call))
            if not retried and after.mail.attempts < before.mail.attempts + counted:
                yield f"attempts: {key} was offered as {before.mail.attempts}, then as {after.mail.attempts}"
        if any(not 1 <= offer.mail.attempts <= ATTEMPTS_MAX for offer in given):
            yield f"attempts: {key} was offered too often"


def _taken_meanwhile(model: Model, recv: Call) -> bool:
    """Whether a new lease was asked for at the same time: it may have come first, and given this back unread."""
    greetings = model.greetings[recv.actor]
    return any(call.begun < recv.ended and model.over(call) > recv.begun for call in greetings)


def given_back(model: Model) -> Iterator[str]:
    """A new lease is offered, before anything newer, what the last one had and did not acknowledge."""
    acks = [call for call in model.calls["ack"] if call.perhaps]
    settled = {(id, call.actor): call.begun for call in reversed(acks) for id in call.request.ids}
    meddled = {
        (call.request.id, call.request.recipient)
        for verb in ("drop_mail", "retry_mail")
        for call in model.calls[verb]
    }
    for name, greetings in model.greetings.items():
        known = [call.reply.lease for call in greetings if call.ok]
        for before, after in pairwise(known):
            newest, at = _newest(model, name, after)
            for mail in model.given[name, before].values():
                key = (mail.id, name)
                row = model.rows.get(key)
                left_out = row is not None and row.seq < newest and mail.id not in model.given[name, after]
                counts = mail.kind == "message" and mail.attempts < ATTEMPTS_MAX and key not in meddled
                if counts and left_out and settled.get(key, NEVER) > at:
                    yield f"skipped: {key} was not offered to the lease {after}"


def _newest(model: Model, name: str, lease: str) -> tuple[int, int]:
    """The number of the newest message that it was offered, and when; 0 when not every answer to it is known."""
    if lease in model.lost_leases:
        return 0, 0
    offered = [
        (model.rows[id, name].seq, model.offers[id, name][-1].call.ended)
        for id in model.given[name, lease]
        if (id, name) in model.rows
    ]
    return max((seq for seq, _ in offered), default=0), max((tick for _, tick in offered), default=0)


def holds(model: Model) -> Iterator[str]:
    per_agent: dict[str, list[Call]] = defaultdict(list)
    for call in model.calls["set_hold"]:
        per_agent[call.request.agent].append(call)
    given: dict[str, list[Call]] = defaultdict(list)
    for call in model.calls["recv"]:
        if call.ok and call.reply.mail:
            given[call.actor].append(call)
    for name, calls in per_agent.items():
        for begin, end in _held_spans(model, calls):
            for call in given.get(name, ()):
                if begin < call.begun and call.ended < end:
                    yield f"held: {call}"


def _held_spans(model: Model, calls: list[Call]) -> Iterator[tuple[int, int]]:
    """From a confirmed hold to the next release, where no other call makes it doubtful."""
    releases = [call for call in calls if not call.request.held]
    for hold in calls:
        if hold.request.held and hold.ok:
            doubtful = any(call.begun < hold.ended and model.over(call) > hold.begun for call in releases)
            if not doubtful:
                yield (
                    hold.ended,
                    min((call.begun for call in releases if call.begun > hold.ended), default=NEVER),
                )


# ---- leases


def leases(model: Model) -> Iterator[str]:
    """Each new lease is another, and from then on the only one that counts."""
    taken = model.greetings
    given = Counter(call.reply.lease for calls in taken.values() for call in calls if call.ok)
    yield from (f"doubled: the lease {lease} was given twice" for lease, times in given.items() if times > 1)
    for name, calls in taken.items():
        yield from _lease_of(model, name, calls)


def _lease_of(model: Model, name: str, taken: list[Call]) -> Iterator[str]:
    known = [call for call in taken if call.ok]
    ends = sorted(call.ended for call in known)
    begun = {call.reply.lease: call for call in known}
    for call in (call for verb in LEASED for call in model.calls[verb] if call.actor == name and call.ended):
        lease = begun.get(call.request.lease)
        if lease is None:
            continue
        others = [one for one in _later(known, ends, lease.ended) if one is not lease]
        if call.ok and any(lease.ended < one.begun and one.ended < call.begun for one in others[:1]):
            yield f"stale: {call}"
        if call.problem == "stale-lease" and not _doubtful(model, taken, lease, call):
            yield f"evicted: {call}"


def _later(known: list[Call], ends: list[int], tick: int) -> list[Call]:
    return known[bisect_left(ends, tick + 1) :]


def _doubtful(model: Model, taken: list[Call], lease: Call, call: Call) -> bool:
    """Whether another greeting may have come between."""
    return any(one is not lease and one.begun < call.ended and model.over(one) > lease.begun for one in taken)


# ---- questions


def answers(model: Model) -> Iterator[str]:
    """One answer counts, of the one who was asked, before the end of the question, among its choices."""
    accepted: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in model.calls["answer"]:
        if call.ok:
            accepted[call.request.question].setdefault(call.id, call)
    for question, found in accepted.items():
        asked = model.commands[question].request
        if len(found) > 1:
            yield f"doubled: {question} was answered by {sorted(found)}"
        for call in found.values():
            if call.actor != asked.to or (asked.choices and call.request.text not in asked.choices):
                yield f"wrong: {call}"
    yield from _late(model, accepted)


def _late(model: Model, accepted: dict[str, dict[str, Call]]) -> Iterator[str]:
    for given in model.offers.values():
        offer = given[0]
        for call in accepted.get(offer.mail.question, {}).values() if offer.mail.kind == "answer" else ():
            if call.id != offer.mail.id and offer.call.ended < call.begun:
                yield f"late: {call}"


def questions(model: Model) -> Iterator[str]:
    """Each that has ended has told its asker so once, and says the same itself."""
    told: dict[str, list[stored.Mail]] = defaultdict(list)
    for row in model.store.mail:
        if row.kind == "answer":
            told[row.question].append(row)
    there = {question.id: question for question in model.store.questions}
    for id in {call.id for call in model.calls["ask"]} | there.keys():
        question, mail = there.get(id), told.get(id, [])
        if question is None:
            if (id, model.commands[id].request.to) in model.rows:
                yield f"half: the question {id} is only a message"
            continue
        if (id, model.commands[id].request.to) not in model.rows:
            yield f"half: the question {id} reached nobody"
        if len(mail) != (question.state != "open"):
            kind = "doubled" if len(mail) > 1 else "half"
            yield f"{kind}: the question {id} is {question.state} and was told {len(mail)} times"
        elif mail and (mail[0].body, mail[0].sender) != (question.answer, question.answered_by):
            yield f"half: the answer to {id} is {question.answer!r:.80}, and {mail[0].body!r:.80} was told"
    for call in model.calls["answer"]:
        kept = there.get(call.request.question)
        if call.ok and (kept is None or kept.answer_id != call.id):
            yield f"undone: {call}"


def deadlines(model: Model) -> Iterator[str]:
    for given in model.offers.values():
        mail = given[0].mail
        if mail.kind != "answer" or mail.sender != HIVE:
            continue
        asked = model.commands.get(mail.question)
        if asked is not None and mail.sent_ms < asked.begun_ms + asked.request.deadline_seconds * 1000:
            yield f"early: the question {mail.question} ended at {mail.sent_ms}"


# ---- reminders


def reminders(model: Model) -> Iterator[str]:
    fired = Counter(row.details["reminder"] for row in model.store.mail if row.kind == "reminder")
    cancelled = {call.request.id for call in model.calls["cancel_reminder"] if call.ok}
    maybe = {call.request.id for call in model.calls["cancel_reminder"] if call.perhaps}
    there = {reminder.id: reminder for reminder in model.store.reminders}
    for id in {call.id for call in model.calls["remind"] if not call.request.cron}:
        if fired[id] > 1:
            yield f"doubled: the reminder {id} fired {fired[id]} times"
        if id in cancelled and fired[id]:
            yield f"undone: the reminder {id} was cancelled and has fired"
        if id not in there and model.confirmed(id):
            yield f"lost: the reminder {id}"
        if id in there and id not in maybe and not fired[id]:
            yield f"stuck: the reminder {id} is {there[id].state} and never fired"


def recurring(model: Model) -> Iterator[str]:
    """One that comes every minute has come at each, from when it was set until it was cancelled."""
    fired: dict[str, Counter[str]] = defaultdict(Counter)
    for row in model.store.mail:
        if row.kind == "reminder":
            fired[row.details["reminder"]][row.details["due"]] += 1
    cancelled = {
        call.request.id: call.begun_ms for call in reversed(model.calls["cancel_reminder"]) if call.perhaps
    }
    for call in model.commands.values():
        if call.verb != "remind" or not call.request.cron or not model.confirmed(call.id):
            continue
        begun = min(said.ended_ms for said in model.said(call.id) if said.ok)
        wanted = {
            iso(at)
            for at in range(
                begun // MINUTE_MS * MINUTE_MS + MINUTE_MS, cancelled[call.id] - FIRES_WITHIN_MS, MINUTE_MS
            )
        }
        yield from (
            f"doubled: the reminder {call.id} came {n} times at {due}"
            for due, n in fired[call.id].items()
            if n > 1
        )
        if missing := wanted - fired[call.id].keys():
            yield f"stuck: the reminder {call.id} did not come at {sorted(missing)}"


def too_early(model: Model) -> Iterator[str]:
    for given in model.offers.values():
        call, mail = given[0]
        asked = model.commands.get(mail.details.get("reminder", "")) if mail.kind == "reminder" else None
        if asked is None:
            continue
        due = asked.request.at_ms or _milliseconds(mail.details["due"])
        if min(mail.sent_ms, call.ended_ms) < due:
            yield f"early: the reminder {asked.id} came at {mail.sent_ms}, not {due}"


def _milliseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


# ---- looking back


def searches(model: Model) -> Iterator[str]:
    """A search finds what was confirmed before it began, once for each recipient, and nothing that does not have its word."""
    commands = {word_of(call.request): call.id for call in model.commands.values()}
    for call in model.calls["search"]:
        if not call.ok:
            continue
        word = call.request.text
        found = [(receipt.id, receipt.recipient) for receipt in call.reply.receipts]
        if len(found) > len(set(found)):
            yield f"doubled: {call}"
        if any(key not in model.rows or word not in model.rows[key].body for key in found):
            yield f"unasked: {call}"
        id = commands[word]
        known = any(said.ok and said.ended < call.begun for said in model.said(id))
        missing = set(model.copies[id]) - set(found) if known else set()
        if missing and not call.reply.before:
            yield f"lost: {call} did not find {missing}"


# ---- how it all ended


def ends(model: Model) -> Iterator[str]:
    """Everything has come to an end that somebody brought about."""
    asked, acked = _acks(model)
    dropped = {(call.request.id, call.request.recipient) for call in model.calls["drop_mail"] if call.perhaps}
    for key, row in model.rows.items():
        if key in acked and row.state != "acked" and not _ended_first(model, row):
            yield f"undone: {key} was acknowledged and is {row.state}"
        if row.state in ("stored", "offered", "seen", "held"):
            yield f"stuck: {key} is {row.state}"
        elif row.state == "acked" and key not in asked and not _settled(model, row):
            yield f"unasked: nobody acknowledged {key}"
        elif row.state == "dead" and row.attempts < ATTEMPTS_MAX:
            yield f"unasked: {key} is dead after {row.attempts} offers"
        elif row.state == "expired" and key not in dropped and not _is_over(model, row):
            yield f"unasked: {key} has expired"


def _ended_first(model: Model, row: stored.Mail) -> bool:
    """The operator reads what has expired as well. And a broker that died may have forgotten that this was handed out, and
    ended it as unread before its reader came to acknowledge it."""
    return row.state == "expired" and (row.recipient == OPERATOR or bool(model.deaths))


def _acks(model: Model) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What somebody wanted to acknowledge, and what was confirmed. Only what the lease had been given counts."""
    had = {
        (call.actor, call.request.lease, mail.id)
        for call in model.calls["recv"]
        if call.ok
        for mail in call.reply.mail
    }
    asked, confirmed = set(), set()
    for call in (*model.calls["ack"], *model.calls["ack_inbox"]):
        for id in call.request.ids:
            if call.perhaps:
                asked.add((id, call.actor))
            if call.ok and (call.actor == OPERATOR or (call.actor, call.request.lease, id) in had):
                confirmed.add((id, call.actor))
    return asked, confirmed


def _settled(model: Model, row: stored.Mail) -> bool:
    """A question that is closed needs not be read by the operator any more."""
    return row.recipient == OPERATOR and row.kind == "question"


def _is_over(model: Model, row: stored.Mail) -> bool:
    call = model.commands.get(row.id)
    return row.kind == "question" and call is not None and call.request.deadline_seconds > 0


RULES = (
    repeats,
    refusals,
    sends,
    rows,
    offers,
    order,
    ended_mail,
    attempts,
    given_back,
    holds,
    leases,
    answers,
    questions,
    deadlines,
    reminders,
    recurring,
    too_early,
    searches,
    ends,
)
