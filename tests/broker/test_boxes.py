"""What is kept in memory of a mailbox never offers a message twice, out of order, or not at all."""

from __future__ import annotations

from libhive.messages.broker import Mail
from services.broker.boxes import IN_HAND_MAX, READY_BYTES_MAX, READY_MAX, UNWRITTEN_MS, Boxes, Ready


def mail(number: int, body: str = "hi") -> Mail:
    return Mail(id=f"{number:08}", sender="alice", recipient="bob", kind="message", body=body, sent_ms=1)


def offered(boxes: Boxes, limit: int = 64, now: int = 0) -> list[int]:
    return [int(one.id) for one in boxes.offer("bob", "lease", limit, now)]


def test_what_does_not_fit_in_memory_is_looked_up_again() -> None:
    boxes = Boxes()
    boxes.refill("bob", [], complete=True)
    for number in range(READY_MAX + 10):
        boxes.stored("bob", number + 1, mail(number + 1))
    assert not boxes.of("bob").complete
    assert offered(boxes, READY_MAX * 2) == list(range(1, READY_MAX + 1))
    boxes.stored("bob", READY_MAX + 11, mail(READY_MAX + 11))
    assert offered(boxes) == [], "older mail goes first"


def test_large_messages_are_few_and_one_that_is_too_large_still_comes() -> None:
    boxes = Boxes()
    boxes.refill("bob", [], complete=True)
    for number in range(3):
        boxes.stored("bob", number + 1, mail(number + 1, "x" * (READY_BYTES_MAX // 2)))
    assert offered(boxes) == [1]
    boxes.forget("bob")
    boxes.refill("bob", [Ready(4, mail(4, "x" * 2 * READY_BYTES_MAX))], complete=True)
    assert offered(boxes) == [4]


def test_who_has_too_much_in_hand_gets_no_more() -> None:
    boxes = Boxes()
    given = 0
    while True:
        boxes.refill("bob", [Ready(n, mail(n)) for n in range(given + 1, given + 101)], complete=False)
        if not (now := len(offered(boxes, 100))):
            break
        given += now
    assert given == IN_HAND_MAX
    boxes.acked("bob", [mail(1).id])
    assert len(offered(boxes)) == 1


def test_an_offer_is_written_when_it_is_old_enough_and_not_once_it_is_acknowledged() -> None:
    boxes = Boxes()
    boxes.refill("bob", [Ready(n, mail(n)) for n in (1, 2)], complete=True)
    offered(boxes, 1, now=1_000)
    offered(boxes, 1, now=1_000 + UNWRITTEN_MS)
    assert boxes.unwritten_since(1_000) == []
    assert [offer.seq for offer in boxes.unwritten_since(1_000 + UNWRITTEN_MS)] == [1]
    boxes.acked("bob", [mail(2).id])
    assert [offer.seq for offer in boxes.unwritten("bob")] == [1]
    boxes.written(boxes.unwritten())
    assert boxes.unwritten() == []


def test_a_new_lease_has_nothing_in_hand() -> None:
    boxes = Boxes()
    boxes.refill("bob", [Ready(1, mail(1))], complete=True)
    offered(boxes)
    boxes.released("bob")
    assert (boxes.unwritten(), boxes.of("bob").in_hand, boxes.of("bob").complete) == ([], {}, False)
    boxes.refill("bob", [Ready(1, mail(1))], complete=True)
    assert offered(boxes) == [1]


def test_what_does_not_fit_is_not_overtaken_by_what_does() -> None:
    boxes = Boxes()
    half = "x" * (READY_BYTES_MAX // 2)
    found = [Ready(1, mail(1, half)), Ready(2, mail(2, half)), Ready(3, mail(3))]
    boxes.refill("bob", found, complete=False)
    assert offered(boxes) == [1]
    boxes.refill("bob", found[1:], complete=False)
    assert offered(boxes) == [2, 3]
