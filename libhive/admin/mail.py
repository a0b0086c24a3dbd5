"""Commands about messages: writing to agents, reading what they write, answering what they ask."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from libhive.admin.session import Session
from libhive.admin.standing import asleep, hints_the_way_back
from libhive.logs import safe_text
from libhive.messages.broker import BODY_CHARACTERS_MAX, Question, QuestionList, Receipt, ReceiptList
from libhive.names import OPERATOR, new_id
from libhive.problems import BadRequest, NotFound, Unavailable

WAIT_MS_MAX = 30_000
QUESTIONS_MAX = 500
WHOLE_ID = re.compile(r"[0-9a-z][0-9a-z-]{7,63}")


async def send(session: Session, given: Namespace) -> int:
    body = worded(given.text)
    async with hints_the_way_back(session, given.name):
        sent = await session.broker.send(given.name, body, id=new_id())
    if given.wait is None:
        session.show(
            sent,
            f"sent to {', '.join(sent.recipients)}; a reply comes to: hive-admin inbox\n"
            f"where it is: hive-admin message {sent.id}",
        )
    if not session.as_json:
        for sentence in await asleep(session, sent.recipients):
            sys.stderr.write(safe_text(f"{sentence}\n"))
    if given.wait is None:
        return 0
    replies = await _replies(session, sent.id, given.wait)
    if not session.show(ReceiptList(receipts=list(replies))):
        for reply in replies:
            session.screen.say(reply.body)
    if not replies:
        sys.stderr.write(f"no reply within {given.wait:g} s; where it is: hive-admin message {sent.id}\n")
        return 1
    await session.broker.ack_inbox([reply.id for reply in replies])
    return 0


async def _replies(session: Session, message: str, seconds: float) -> Sequence[Receipt]:
    """The replies that have come when the first has. A broker that restarts meanwhile is asked again."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            if replies := await session.broker.await_reply(message, min(WAIT_MS_MAX, int(left * 1000) + 1)):
                return replies
        except Unavailable:
            continue
    return []


async def inbox(session: Session, given: Namespace) -> int:
    """An open question stays in it until it is answered: reading is not answering."""
    found = await session.broker.inbox(all=given.all)
    asked = await _open_questions(session) if any(mail.kind == "question" for mail in found) else {}
    if not session.show(ReceiptList(receipts=found)):
        session.screen.mail(found, asked)
        if not found:
            session.screen.say(
                "no mail" if given.all else "no new mail; hive-admin inbox --all shows what was read"
            )
    unread = [mail.id for mail in found if mail.state != "acked" and mail.id not in asked]
    if unread and not given.peek:
        await session.broker.ack_inbox(unread)
    return 0


async def _open_questions(session: Session) -> dict[str, Question]:
    """Those that wait for the operator's answer."""
    asked = await session.broker.questions(limit=QUESTIONS_MAX)
    return {question.id: question for question in asked if question.recipient == OPERATOR}


async def answer(session: Session, given: Namespace) -> int:
    asked = list((await _open_questions(session)).values())
    if given.id is None:
        if not session.show(QuestionList(questions=asked)):
            session.screen.questions(asked)
            if asked:
                session.screen.say("answer with: hive-admin answer ID TEXT (an end of the ID is enough)")
        return 0
    question = the_one(asked, given.id)
    text = chosen(question, " ".join(given.text) if given.text else _asked_for(session, question))
    if not text.strip():
        raise BadRequest("the answer is empty; the question stays open")
    done = await session.broker.answer(question.id if question else given.id, text)
    session.show(done, f"answered: {text}" if question and question.choices else "answered")
    return 0


def chosen(question: Question | None, typed: str) -> str:
    """A choice's number stands for the choice, unless it is itself one."""
    choices = question.choices if question else []
    if typed not in choices and typed.isascii() and typed.isdigit() and len(typed) < 10:
        return choices[int(typed) - 1] if 1 <= int(typed) <= len(choices) else typed
    return typed


def the_one(questions: Sequence[Question], given: str) -> Question | None:
    """The open question with this id, or this end of it if no other has it. None: it may be the whole id of one
    that is closed, about which the broker shall say."""
    found = [question for question in questions if question.id.endswith(given)]
    if len(found) > 1:
        raise BadRequest(f"{given!r:.64} is the end of {len(found)} questions' ids", "give more of it")
    if not found and not WHOLE_ID.fullmatch(given):
        raise NotFound(f"no open question's id ends with {given!r:.64}", "the open ones: hive-admin answer")
    return found[0] if found else None


def _asked_for(session: Session, question: Question | None) -> str:
    if question is None:
        raise NotFound("no open question has this id", "the open ones: hive-admin answer")
    if not session.can_ask():
        raise BadRequest("no answer was given", f"hive-admin answer {question.id} TEXT")
    session.screen.questions([question])
    return session.ask("your answer" + (" (a number or the words)" if question.choices else "") + ": ")


def worded(words: Sequence[str]) -> str:
    """The words as one text; a single `-` stands for standard input."""
    text = sys.stdin.read() if list(words) == ["-"] else " ".join(words)
    if not text.strip() or len(text) > BODY_CHARACTERS_MAX:
        raise BadRequest(f"the message has {len(text)} characters", f"it needs 1 to {BODY_CHARACTERS_MAX}")
    return text
