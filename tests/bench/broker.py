"""The broker alone, through agents' doors, 1 KiB bodies, each send durable before it is confirmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from libhive.testing.hive import Guest, Hive
from tests.bench import limits
from tests.bench.rows import Row, percentile, row

ROUNDS = 5
SENDS = {1: 1_000, 16: 4_000, 64: 8_000}
NAMES = {1: "broker.seq", 16: "broker.c16", 64: "broker.p64"}
PACED = 300
PER_SECOND = 100


async def measure() -> list[Row]:
    async with Hive() as hive:
        await hive.start("broker")
        for name in ("alice", "bob"):
            await hive.open_mailbox(name)
        alice, bob = await hive.join("alice"), await hive.join("bob")
        throughput: dict[int, list[tuple[float, float]]] = {depth: [] for depth in SENDS}
        latencies: list[tuple[Sequence[float], Sequence[float]]] = []
        for _ in range(ROUNDS):
            for depth, count in SENDS.items():
                raw = limits.raw_sqlite(hive.root, count, depth)
                throughput[depth].append((await _sends_a_second(alice, count, depth), raw))
                await _empty(bob)
            raw_latency = limits.paced_sqlite_commits(hive.root, PACED, PER_SECOND)
            latencies.append((await _delivery(alice, bob), raw_latency))
    rows = [
        row(
            f"{NAMES[depth]}.vs_sqlite",
            "sends/s",
            [ours for ours, _ in rounds],
            [raw for _, raw in rounds],
            f"raw SQLite FULL, {depth} rows a commit",
        )
        for depth, rounds in throughput.items()
    ]
    for percent in (50, 99):
        rows.append(
            row(
                f"broker.latency.p{percent}.vs_sqlite",
                "us",
                [percentile(ours, percent) for ours, _ in latencies],
                [percentile(raw, percent) for _, raw in latencies],
                f"raw SQLite FULL commit at {PER_SECOND}/s",
            )
        )
    return rows


async def _sends_a_second(alice: Guest, count: int, depth: int) -> float:
    async def one_after_the_other(times: int) -> None:
        for _ in range(times):
            await alice.send("bob", limits.BODY)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other(count // depth) for _ in range(depth)))
    return count // depth * depth / (time.perf_counter() - began)


async def _empty(bob: Guest) -> None:
    while mail := await bob.recv(limit=64):
        await bob.ack(*(item.id for item in mail))


async def _delivery(alice: Guest, bob: Guest) -> list[float]:
    """Microseconds from the send to the moment it is in the receiver's hands, PER_SECOND a second."""
    sent: dict[str, float] = {}
    took: list[float] = []

    async def receive() -> None:
        while len(took) < PACED:
            for mail in await bob.recv(wait_ms=5_000):
                took.append((time.perf_counter() - sent[mail.body]) * 1e6)
                await bob.ack(mail.id)

    receiving = asyncio.create_task(receive())
    for number in range(PACED):
        body = f"{number:08}{limits.BODY}"
        sent[body] = time.perf_counter()
        await alice.send("bob", body)
        await asyncio.sleep(1 / PER_SECOND)
    await receiving
    return took
