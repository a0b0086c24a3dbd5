"""Frames by the hundred thousand, through a daemon's own door to a broker on a real database, in this process.

Failing, it prints the seed that replays it: HIVE_TEST_SEED=... . HIVE_TEST_FRAMES makes it longer, for a night of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from libhive.clock import now_ms
from libhive.messages import broker as say
from tests.door.arena import AGENTS, Arena
from tests.door.frames import seed

FRAMES = int(os.environ.get("HIVE_TEST_FRAMES", "900000"))
STORM = 500
GROWTH_MB_MAX = 48


def resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def test_every_frame_has_one_answer_and_the_broker_lives() -> None:
    number = seed()
    print(f"replay with HIVE_TEST_SEED={number}")
    began = now_ms()
    async with Arena(number) as arena:
        warm = 0.0
        for done in range(0, FRAMES, STORM):
            await arena.storm(STORM)
            assert not arena.daemon._ended.is_set(), "the service gave up"
            if done <= FRAMES // 10:
                warm = resident_mb()
        grown = resident_mb() - warm
        print(f"{arena.codes}, {arena.quick} the quick way, {grown:.0f} MB more")
        assert sum(arena.codes.values()) == FRAMES
        assert grown < GROWTH_MB_MAX
        assert_reached_far(arena)
        assert_shown_as_it_was(arena, await arena.show(), began)


def assert_reached_far(arena: Arena) -> None:
    """A fuzz that is refused at the first step proves little."""
    for code in (
        "done",
        "bad-frame",
        "bad-request",
        "not-found",
        "conflict",
        "stale-lease",
        "unsupported-version",
    ):
        assert arena.codes.get(code, 0) > FRAMES // 20_000, f"{code}: {arena.codes}"
    assert arena.codes["done"] > FRAMES // 50
    assert arena.quick > FRAMES // 100


def assert_shown_as_it_was(arena: Arena, receipts: Sequence[say.Receipt], began: int) -> None:
    """The door says whose a message is, whatever stood in the frame."""
    assert receipts
    for receipt in receipts:
        assert receipt.sender in (*AGENTS, "hive")
        assert receipt.recipient in (*AGENTS, "operator", "hive")
        assert began <= receipt.stored_ms <= now_ms()
        if receipt.kind == "message":
            assert receipt.sender == arena.senders[receipt.id]
