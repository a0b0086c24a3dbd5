"""Two hundred thousand calls of six agents and the operator, all at once, to one real broker; the model judges every one
of them with its answer."""

from __future__ import annotations

from collections import Counter

from libhive.testing.hive import Hive
from tests.proofs.runs import SEED, report, verdict
from tests.proofs.world import World

CALLS = 200_000
VERBS = (
    *("ack", "ack_inbox", "answer", "ask", "cancel_reminder", "drop_mail", "hello", "inbox", "loose_ends"),
    *("message_status", "recv", "remind", "report_state", "retry_mail", "search", "seen", "send"),
    *("set_hold", "status"),
)


async def test_a_concurrent_run_breaks_no_rule() -> None:
    async with Hive() as hive:
        world = World(hive, f"{SEED} history", real=True, window=32)
        try:
            world.found()
            world.until(CALLS)
            found = verdict(world)
            answered = Counter(call.verb for call in world.history.calls if call.ended)
            assert not found, report(world, found)
            assert sum(answered.values()) >= CALLS
            assert min(answered[verb] for verb in VERBS) >= 100, answered
        finally:
            world.close()
