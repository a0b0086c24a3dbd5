"""Commands about one message on its way: where it is, and what becomes of one that did not arrive."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from libhive.admin import arguments
from libhive.admin.session import Session
from libhive.messages.broker import Receipt, ReceiptList, ReceiptState
from libhive.problems import BadRequest, Conflict, NotFound

DROPPED: tuple[ReceiptState, ...] = ("dead", "stored")
RETRIED: tuple[ReceiptState, ...] = ("dead",)


def message_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=arguments.message_id, help="a message's id")


def retry_arguments(parser: ArgumentParser) -> None:
    message_arguments(parser)
    parser.add_argument(
        "recipient",
        metavar="RECIPIENT",
        nargs="?",
        type=arguments.anybody,
        help="whose, when it did not reach several",
    )


def drop_arguments(parser: ArgumentParser) -> None:
    retry_arguments(parser)
    parser.add_argument(
        "--reason", metavar="TEXT", default="", type=arguments.line, help="kept with the message"
    )


async def message(session: Session, given: Namespace) -> int:
    found = await _receipts(session, given.id)
    if not session.show(ReceiptList(receipts=found)):
        session.screen.receipts(found)
    return 0


async def retry(session: Session, given: Namespace) -> int:
    receipt = await _the_one(session, given, RETRIED)
    done = await session.broker.retry_mail(receipt.id, receipt.recipient)
    session.show(done, f"{receipt.recipient} gets it again; where it is: hive-admin message {receipt.id}")
    return 0


async def drop(session: Session, given: Namespace) -> int:
    receipt = await _the_one(session, given, DROPPED)
    done = await session.broker.drop_mail(receipt.id, receipt.recipient, given.reason)
    session.show(done, f"dropped: {receipt.recipient} will not get it")
    return 0


async def _receipts(session: Session, id: str) -> list[Receipt]:
    found = await session.broker.message_status(id)
    if not found:
        raise NotFound(f"there is no message {id}")
    return found


async def _the_one(session: Session, given: Namespace, states: tuple[ReceiptState, ...]) -> Receipt:
    """The receipt that is meant: the recipient's, or the only one in such a state."""
    receipts = await _receipts(session, given.id)
    if given.recipient:
        mine = [receipt for receipt in receipts if receipt.recipient == given.recipient]
        if not mine:
            got = ", ".join(receipt.recipient for receipt in receipts)
            raise BadRequest(f"{given.recipient} was not sent this message", f"it went to: {got}")
        return mine[0]  # in whichever state: what the broker says to that is the answer
    found = [receipt for receipt in receipts if receipt.state in states]
    if len(found) > 1:
        names = ", ".join(receipt.recipient for receipt in found)
        raise BadRequest(
            f"this message is {' or '.join(states)} for {len(found)} recipients", f"name one: {names}"
        )
    if not found:
        at = ", ".join(f"{receipt.state} for {receipt.recipient}" for receipt in receipts)
        raise Conflict(f"this message is {at}", f"only one that is {' or '.join(states)} can be meant")
    return found[0]
