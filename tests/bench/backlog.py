"""A mailbox with 1,000,000 stored messages, beside an empty store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite

from libhive.messages import broker as say
from libhive.names import agent_name
from libhive.testing.hive import Hive
from tests.bench.broker import ENVIRON, Scale, rounds
from tests.bench.door import Door
from tests.bench.processes import accepts
from tests.bench.rows import Row, percentile, row
from tests.bench.stream import BODY_BYTES, TEXT

START_SECONDS = 2.0
"""The budget."""
STARTS = 3
LOOK_SECONDS = 0.005
START_SECONDS_MAX = 120.0
MESSAGES_A_COMMIT = 100_000


async def measure(scale: Scale) -> list[Row]:
    async with Hive(ENVIRON) as full, Hive(ENVIRON) as empty:
        for hive in (full, empty):
            await hive.start("broker")
            for name in ("alice", "bob"):
                await hive.open_mailbox(name)
        sample = _send_one(_door(full, "alice"))
        await full.stop("broker")
        fill(full.paths.database("broker"), sample, scale.stored - 1)
        full.spawn("broker")
        await full.wait_for_service("broker", START_SECONDS_MAX)
        _check_stored(full, scale.stored)
        starts: dict[str, list[float]] = {"full": [], "empty": []}
        for _ in range(STARTS):
            for name, hive in (("full", full), ("empty", empty)):
                starts[name].append(await _start_again(hive))
        recvs = _recvs(scale, {"full": full, "empty": empty})
    against = f"its budget after a SIGKILL; an empty store {sorted(starts['empty'])[STARTS // 2]:.2f} s"
    return [
        row("broker.backlog.start", "s", starts["full"], [START_SECONDS] * STARTS, against, "< 1"),
        row("broker.backlog.recv_p99.vs_empty", "us", recvs["full"], recvs["empty"], "an empty store", "< 3"),
    ]


def _recvs(scale: Scale, hives: dict[str, Hive]) -> dict[str, list[Any]]:
    def reader(hive: Hive) -> Callable[[], float]:
        alice, bob = _door(hive, "alice"), _door(hive, "bob")
        alice.ping()  # a door gives a connection two seconds to speak
        bob.greet()
        bob.greeted()
        return lambda: percentile(_recv_each(alice, bob, scale.recvs), 99)

    return rounds(scale.rounds, {"recv": {name: reader(hive) for name, hive in hives.items()}})["recv"]


def _recv_each(alice: Door, bob: Door, count: int) -> list[float]:
    """Microseconds of each recv of one message; one is sent before and acknowledged after it, so that both stores do the
    same and keep their sizes."""
    took = []
    for _ in range(count):
        _send_one(alice)
        began = time.perf_counter()
        answer = bob.call(say.Recv(lease=bob.lease, wait_ms=0, limit=1))
        took.append((time.perf_counter() - began) * 1e6)
        assert answer.body is not None
        assert answer.body.mail
        bob.call(say.Ack(lease=bob.lease, ids=[answer.body.mail[0].id]))
    return took


async def _start_again(hive: Hive) -> float:
    """Seconds from the start of the process to its first answer at a door, after a SIGKILL."""
    await hive.kill("broker")
    path = str(hive.paths.door(agent_name("bob"), "broker"))
    began = time.perf_counter()
    hive.spawn("broker")
    while not accepts(path):
        if time.perf_counter() - began > START_SECONDS_MAX or hive.processes["broker"].poll() is not None:
            raise RuntimeError("the broker did not come up")
        time.sleep(LOOK_SECONDS)
    Door(path, []).ping()
    return time.perf_counter() - began


def _door(hive: Hive, name: str) -> Door:
    return Door(str(hive.paths.door(agent_name(name), "broker")), ["bob"])


def _send_one(alice: Door) -> str:
    """Its id."""
    alice.send(1)
    return alice.answer().re


def _check_stored(hive: Hive, count: int) -> None:
    """The broker itself counts to a thousand only."""
    connection = sqlite.connect(f"file:{hive.paths.database('broker')}?mode=ro", uri=True)
    (stored,) = connection.execute("SELECT count(*) FROM mail WHERE state = 'stored'").fetchone()
    connection.close()
    assert stored == count, f"{stored} messages are stored, not {count}"


# ---- the filling


def fill(path: Path, sample: str, times: int) -> None:
    """The broker is down. Whatever it wrote for the message `sample`, in any table, is written `times` more, each under
    an id of its own; triggers do for each of them what they do for one that is sent."""
    began = time.perf_counter()
    connection = sqlite.connect(str(path), isolation_level=None)
    for pragma in ("synchronous = OFF", "journal_mode = OFF", "cache_size = -200000"):
        connection.execute(f"PRAGMA {pragma}").close()
    for start in range(1, times + 1, MESSAGES_A_COMMIT):
        connection.execute("BEGIN IMMEDIATE")
        for table in _tables(connection):
            _copy(connection, table, sample, start, min(start + MESSAGES_A_COMMIT - 1, times))
        connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL").close()
    connection.close()
    took = time.perf_counter() - began
    print(
        f"  {times:,} messages stored in {took:.0f} s, {path.stat().st_size >> 20:,} MiB",
        file=sys.stderr,
        flush=True,
    )


def _tables(connection: sqlite.Connection) -> list[str]:
    """The plain ones: not what a virtual table keeps for itself."""
    query = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(query)]


def _copy(connection: sqlite.Connection, table: str, sample: str, first: int, last: int) -> None:
    described = connection.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [name for _, name, kind, _, _, key in described if not (key and kind == "INTEGER")]
    found = connection.execute(
        f"SELECT {', '.join(columns)} FROM {table} WHERE ? IN ({', '.join(columns)})", (sample,)
    ).fetchall()
    for kept in found:
        values = {f"c{number}": value for number, value in enumerate(kept)}
        made = [_expression(*pair, sample) for pair in zip(columns, values.items(), strict=True)]
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"
            " WITH RECURSIVE counted (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM counted WHERE n < :last)"
            f" SELECT {', '.join(made)} FROM counted",
            values | {"first": first, "last": last, "text": TEXT.encode(), "sample": sample},
        )


def _expression(column: str, bound: tuple[str, Any], sample: str) -> str:
    parameter, value = bound
    if value == sample:
        return "substr(:sample, 1, 16) || printf('%010d', n)"
    if column == "body" and isinstance(value, str):
        return f"CAST(substr(:text, 1 + n * 613 % {len(TEXT) - BODY_BYTES}, {BODY_BYTES}) AS TEXT)"
    return f":{parameter}"
