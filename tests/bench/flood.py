"""What the others notice while one agent does its worst at its door, each way for itself."""

from __future__ import annotations

import sys

from libhive.messages import broker as say
from libhive.names import AgentName
from libhive.testing.hive import Hive
from tests.bench.broker import ENVIRON, Scale, door_of, run
from tests.bench.processes import Side
from tests.bench.rows import Row, percentile, row
from tests.door.flooder import WAYS, flooding

P99_MS = 250.0
"""The budget."""
FLOOD_SECONDS_MAX = 120
REMINDERS = 60
REMINDER_CHARACTERS = 60_000


async def measure(scale: Scale) -> list[Row]:
    """From the making of a message to its being in its recipient's hands, 100 a second."""
    found: dict[str, float] = {}
    async with Hive(ENVIRON) as hive:
        await hive.start("broker")
        for name in ("alice", "bob", "mallory"):
            await hive.open_mailbox(name)
        side = await door_of(hive)
        lease = await _prepare(hive)
        calm = _p99_ms(side, scale)
        for way in WAYS:
            with flooding(
                way, hive.paths.door(AgentName("mallory"), "broker"), lease, FLOOD_SECONDS_MAX
            ) as flood:
                found[way] = _p99_ms(side, scale)
                if flood.poll() is not None:
                    raise RuntimeError(f"the flood {way!r} was over before the measurement")
            print(f"  {way:9} p99 {found[way]:6.1f} ms", file=sys.stderr, flush=True)
    worst = max(found, key=lambda way: found[way])
    against = f"its budget; the worst of {len(found)} floods: {worst}; without one {calm:.1f} ms"
    return [row("door.flood.p99", "ms", [found[worst]], [P99_MS], against, "< 1")]


async def _prepare(hive: Hive) -> str:
    """The flood's own lease, and reminders that make its list of loose ends as long as it can be."""
    mallory = await hive.join("mallory")
    for _ in range(REMINDERS):
        await mallory.door.call(say.Remind(text="x" * REMINDER_CHARACTERS, after_seconds=86_400))
    await mallory.close()
    return mallory.lease


def _p99_ms(side: Side, scale: Scale) -> float:
    given = {"count": scale.flooded, "per_second": scale.per_second}
    return percentile(run(side, ["alice"], ["bob"], "pace", given).microseconds, 99) / 1000
