"""Whatever ids come in whatever order, none that has come before is taken for a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from libhive.names import new_id
from services.broker.ids import REMEMBERED_MAX, Ids


def as_made(random: Random) -> Iterator[str]:
    while True:
        yield new_id()


def a_little_late(random: Random) -> Iterator[str]:
    """Out of many processes at once."""
    while True:
        some = [new_id() for _ in range(50)]
        random.shuffle(some)
        yield from some


def any_words(random: Random) -> Iterator[str]:
    while True:
        yield "".join(random.choices("0123456789abcdefghjkmnpqrstvwxyz", k=12))


@pytest.mark.parametrize("ids", [as_made, a_little_late, any_words])
def test_none_is_taken_for_new_that_is_not(ids: Callable[[Random], Iterator[str]]) -> None:
    random, known, stored = Random(7), Ids(), list[str]()
    for number, id in enumerate(ids(random)):
        if number == 500:
            known = Ids()  # a restart
            known.begin(max(stored))
        if number == 5 * REMEMBERED_MAX:
            break
        stored.append(id)
        known.add(id)
        assert not any(known.is_new(old) for old in (id, *random.choices(stored, k=3)))
        assert len(known._held) <= REMEMBERED_MAX
    assert not any(map(known.is_new, stored))


def test_a_fresh_one_needs_no_look_into_the_store() -> None:
    known = Ids()
    known.begin("0" * 26)
    for number in range(3 * REMEMBERED_MAX):
        id = f"{new_id()[:10]}{number:016}"
        assert known.is_new(id)
        known.add(id)


def test_who_claims_the_greatest_ids_costs_looks_and_harms_nobody() -> None:
    known = Ids()
    for number in range(2 * REMEMBERED_MAX):
        known.add(f"zzzz-{number:06}")
    assert not known.is_new(new_id()), "the store is asked"
    assert known.is_new("zzzz-999999")
