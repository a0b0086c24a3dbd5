"""The broker beside raw SQLite and Redis: N messages of 1 KiB from A to B, each confirmed to its sender once it is on
stable storage, each received and acknowledged by B. One server, one process of senders, one of receivers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from libhive.testing.hive import Hive
from tests.bench.limits import RawSqlite
from tests.bench.processes import Client, Redis, Side
from tests.bench.rows import Row, percentile, row
from tests.bench.usage import cpu_seconds

ENVIRON = {"HIVE_BROKER_PAIR_PER_MINUTE_MAX": "1000000000"}
"""The budgets count, and do not stop what is no storm but a measurement."""
SQLITE, REDIS = "raw SQLite FULL", "Redis, appendfsync always"
NOT_HERE = "Redis, which is not here"


class Work(NamedTuple):
    connections: int
    depth: int
    """Messages in flight on each of them."""

    @property
    def width(self) -> int:
        return self.connections * self.depth

    def senders(self) -> list[str]:
        return [f"sender-{number}" for number in range(self.connections)]


WORKS = {"seq": Work(1, 1), "c16": Work(16, 1), "p64": Work(1, 64)}
BARS = {
    "seq": {"sqlite": ">= 0.5", "redis": ">= 1.0"},
    "c16": {"sqlite": "", "redis": ">= 1.3"},
    "p64": {"sqlite": ">= 0.4", "redis": ">= 1.7"},
    "latency": {"p50": "<= 1.1", "p99": "<= 1.5"},
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the figures of `make bench`."""

    rounds: int = 5
    messages: dict[str, int] = field(default_factory=lambda: {"seq": 1_500, "c16": 8_000, "p64": 16_000})
    paced: int = 300
    per_second: int = 100
    agents: int = 1_000
    fanned: int = 5_000
    pollers: int = 100
    settle_seconds: float = 2
    idle_seconds: float = 20
    stored: int = 1_000_000
    recvs: int = 500
    flooded: int = 300
    with_redis: bool = True


class Outcome(NamedTuple):
    per_second: float
    microseconds: list[float]
    """From the making of each message to its being in the receiver's hands."""


Figures = dict[str, list[Any]]
"""By system, one figure for each round."""


async def measure(parts: Sequence[str], scale: Scale) -> list[Row]:
    """The rows of `parts` out of seq, c16, p64 and latency. Every round runs every system once for each of them."""
    async with Hive(ENVIRON) as hive:
        await hive.start("broker")
        for name in ("bob", *WORKS["c16"].senders()):
            await hive.open_mailbox(name)
        door = await door_of(hive)
        raw = RawSqlite(hive.root / "raw.sqlite")
        with maybe_redis(hive, scale) as redis:
            runs = {part: _systems(part, scale, door, redis, raw) for part in parts}
            for systems in runs.values():
                for run in systems.values():
                    run()  # once for nothing: logs have grown and caches are warm
            found = rounds(scale.rounds, runs)
        raw.close()
    return [made for part in parts for made in _rows(part, found[part])]


def rounds(number: int, runs: Mapping[str, Mapping[str, Callable[[], Any]]]) -> dict[str, Figures]:
    """Interleaved, and each round begins with another system, so that none has the better place."""
    found: dict[str, Figures] = {part: {name: [] for name in systems} for part, systems in runs.items()}
    for turn in range(number):
        for part, systems in runs.items():
            names = list(systems)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found[part][name].append(systems[name]())
    return found


def _systems(
    part: str, scale: Scale, door: Side, redis: Side | None, raw: RawSqlite
) -> dict[str, Callable[[], Any]]:
    beside = sides(door, redis)
    if part == "latency":
        given = {"count": scale.paced, "per_second": scale.per_second}
        return {
            name: partial(run, side, ["sender-0"], ["bob"], "pace", given) for name, side in beside.items()
        }
    work, count = WORKS[part], scale.messages[part]
    given = {"count": count, "depth": work.depth}
    systems: dict[str, Callable[[], Any]] = {
        name: partial(run, side, work.senders(), ["bob"], "send", given) for name, side in beside.items()
    }
    return {"sqlite": partial(raw.messages_a_second, count, work.width)} | systems


def sides(door: Side, redis: Side | None) -> dict[str, Side]:
    """Each by its usual client, and by the leanest that Python can have."""
    found = {"broker": door} | ({"redis": redis} if redis else {})
    return found | {f"lean {name}": side.lean for name, side in found.items()}


def run(
    side: Side,
    senders: Sequence[str],
    receivers: Sequence[str],
    role: str,
    given: dict[str, Any],
    look: Callable[[], object] = lambda: None,
) -> Outcome:
    """Once through `side`; what it took each process goes to standard error. `look` is called at the end, while all are
    connected still."""
    with Client(side, "receive", receivers, count=given["count"]) as receiver:
        receiver.go()
        with Client(side, role, senders, to=receivers, **given) as sender:
            before = cpu_seconds([side.pid])
            sender.go()
            received, sent = receiver.result(), sender.result()
            server = cpu_seconds([side.pid]) - before
            look()
    return _outcome(side, given["count"], sent, received, server)


def _outcome(
    side: Side, count: int, sent: dict[str, Any], received: dict[str, Any], server: float
) -> Outcome:
    seconds = (received["ended_ns"] - sent["began_ns"]) / 1e9
    costs = (server, sent["cpu_seconds"], received["cpu_seconds"])
    each = "  ".join(
        f"{name} {1e6 * cost / count:6.1f}"
        for name, cost in zip(("server", "sender", "receiver"), costs, strict=True)
    )
    print(
        f"  {side.client:5} {side.system:5} {count / seconds:8,.0f}/s   us of CPU a message: {each}",
        file=sys.stderr,
        flush=True,
    )
    return Outcome(count / seconds, received["microseconds"])


def _rows(part: str, found: Figures) -> list[Row]:
    if part == "latency":
        return [made for percent in (50, 99) for made in _latency(percent, found)]
    width, sqlite = WORKS[part].width, found["sqlite"]
    rates = rates_of({name: found[name] for name in found if name != "sqlite"})
    bars, against = BARS[part], f"{SQLITE}, insert + ack, {width} a commit"
    return [
        row(f"broker.{part}.vs_sqlite", "msgs/s", rates["broker"], sqlite, against, bars["sqlite"]),
        *beside_redis(f"broker.{part}", "msgs/s", rates, bars["redis"]),
    ]


def _latency(percent: int, found: Figures) -> list[Row]:
    values = {
        name: [percentile(outcome.microseconds, percent) for outcome in outcomes]
        for name, outcomes in found.items()
    }
    return beside_redis(f"broker.latency.p{percent}", "us", values, BARS["latency"][f"p{percent}"])


def rates_of(found: Figures) -> Figures:
    return {name: [outcome.per_second for outcome in outcomes] for name, outcomes in found.items()}


def beside_redis(name: str, unit: str, found: Figures, bar: str) -> list[Row]:
    """The bar is for clients as one has them; how it looks with the leanest ones is told beside it."""
    return [
        row(f"{name}.vs_redis", unit, found["broker"], found.get("redis", []), peer(found), bar),
        row(
            f"{name}.lean.vs_redis",
            unit,
            found["lean broker"],
            found.get("lean redis", []),
            f"{peer(found)}; both by bare sockets",
        ),
    ]


def peer(found: Figures) -> str:
    return REDIS if "redis" in found else NOT_HERE


async def door_of(hive: Hive) -> Side:
    return Side(
        "door", await hive.pid_of("broker"), str(hive.paths.run / "agents" / "{name}" / "broker.sock")
    )


@contextlib.contextmanager
def maybe_redis(hive: Hive, scale: Scale) -> Iterator[Side | None]:
    if not scale.with_redis:
        yield None
        return
    with Redis(hive.root / "redis") as side:
        yield side
