"""The bench itself: its arithmetic, its reading of Redis, and a run of a few messages that must make every row."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.bench import cage, rows
from tests.bench.__main__ import BROKER, chosen, measure
from tests.bench.broker import Scale, rounds
from tests.bench.resp import Redis
from tests.bench.stream import body

TINY = Scale(
    rounds=2,
    messages={"seq": 5, "c16": 32, "p64": 128},
    paced=5,
    agents=4,
    fanned=70,
    pollers=3,
    settle_seconds=0.1,
    idle_seconds=0.2,
    stored=50,
    recvs=5,
    flooded=5,
    with_redis=False,
)
BARS = {
    "broker.seq.vs_sqlite": ">= 0.5",
    "broker.seq.vs_redis": ">= 1.0",
    "broker.seq.lean.vs_redis": "",
    "broker.c16.vs_sqlite": "",
    "broker.c16.vs_redis": ">= 1.3",
    "broker.c16.lean.vs_redis": "",
    "broker.p64.vs_sqlite": ">= 0.4",
    "broker.p64.vs_redis": ">= 1.7",
    "broker.p64.lean.vs_redis": "",
    "broker.latency.p50.vs_redis": "<= 1.1",
    "broker.latency.p50.lean.vs_redis": "",
    "broker.latency.p99.vs_redis": "<= 1.5",
    "broker.latency.p99.lean.vs_redis": "",
    "broker.fan1000.vs_redis": ">= 2",
    "broker.fan1000.lean.vs_redis": "",
    "broker.fan1000.memory": "< 1",
    "broker.idle.cpu": "< 1",
    "broker.idle.memory": "< 1",
    "broker.backlog.start": "< 1",
    "broker.backlog.recv_p99.vs_empty": "< 3",
    "door.flood.p99": "< 1",
}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    made = rows.row("x", "msgs/s", [10, 40, 30], [10, 10, 20], "y", ">= 1.5")
    assert (made.value, made.reference) == (30, 10)
    assert (made.ratio, made.ratio_min, made.ratio_max) == (1.5, 1, 4)  # of 1, 4 and 1.5; not 30 / 10
    assert made.met is True


@pytest.mark.parametrize(
    ("ratio", "bar", "met"),
    [
        (0.5, ">= 0.5", True),
        (0.499, ">= 0.5", False),
        (1.1, "<= 1.1", True),
        (1.101, "<= 1.1", False),
        (3.0, "< 3", False),
        (2.999, "< 3", True),
    ],
)
def test_a_bar_is_about_the_ratio(ratio: float, bar: str, met: bool) -> None:
    assert rows.row("x", "us", [ratio * 8], [8], "y", bar).met is met


def test_without_a_peer_there_is_no_ratio_and_its_bar_is_not_met() -> None:
    made = rows.row("x", "us", [5], [], "a peer", "<= 1.1")
    assert (made.reference, made.ratio, made.met) == (0, 0, False)
    assert rows.row("x", "us", [5], [], "a peer").met is None


def test_a_round_that_lacks_its_reference_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="2 values beside 1 reference"):
        rows.row("x", "us", [5, 6], [5], "y")


def test_the_table_says_what_is_met_and_the_file_holds_it_all(tmp_path: Path) -> None:
    found = [
        rows.row("good", "us", [1], [2], "y", "< 1"),
        rows.row("bad", "us", [2], [1], "y", "< 1"),
        rows.row("free", "us", [2], [1], "y"),
    ]
    said = rows.table(found).splitlines()[1:]
    assert [("yes" in line, "NO" in line) for line in said] == [(True, False), (False, True), (False, False)]
    rows.save(found, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == [dataclasses.asdict(each) for each in found]


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (rows.percentile(values, 50), rows.percentile(values, 99), rows.percentile([7.0], 99)) == (
        51,
        100,
        7,
    )


def test_each_round_runs_every_system_once_and_begins_with_another() -> None:
    order: list[str] = []
    systems = {name: partial(order.append, name) for name in ("a", "b", "c")}
    found = rounds(3, {"part": systems})
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {name: len(outcomes) for name, outcomes in found["part"].items()} == {"a": 3, "b": 3, "c": 3}


def test_parts_can_be_chosen() -> None:
    assert chosen([]) == [*BROKER, "hive", "cage"]
    assert chosen(["broker"]) == list(BROKER)
    assert chosen(["broker", "backlog"]) == ["backlog"]
    assert chosen(["seq", "hive"]) == ["seq", "hive"]
    with pytest.raises(SystemExit):
        chosen(["brokr"])


async def test_a_few_messages_make_every_row() -> None:
    made = await measure(list(BROKER), TINY)
    assert {each.name: each.bar for each in made} == BARS
    assert all(each.value > 0 for each in made if each.name != "broker.idle.cpu")
    without_peer = {each.name for each in made if not each.reference}
    assert without_peer == {name for name in BARS if name.endswith(".vs_redis")}


async def test_a_few_cages_make_their_rows() -> None:
    """Those by nspawn, and memory, are made in tests/booted/test_cages.py: a whole hive is there already."""
    few = cage.Scale(rounds=1, crowd=2, crowds=1, with_hive=False, with_nspawn=False)
    made = await cage.measure(few)
    assert [each.name for each in made] == ["cage.bubblewrap.start", "cage.start30"]
    assert all(each.value > 0 and each.reference > 0 for each in made)


# ---- Redis is no part of the tests, so what it says is played back, cut at every place


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[Redis, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client = Redis(str(tmp_path / "s"), ["bob"])
        peer, _ = server.accept()
        with peer, client.socket:
            client.greet()
            peer.sendall(b"+OK\r\n")
            client.greeted()
            peer.recv(1 << 16)
            yield client, peer


def entries(*ids: str) -> bytes:
    said = body(1)
    parts = [f"*2\r\n${len(id)}\r\n{id}\r\n*2\r\n$1\r\nb\r\n${len(said)}\r\n{said}\r\n" for id in ids]
    return f"*1\r\n*2\r\n$3\r\nbob\r\n*{len(ids)}\r\n{''.join(parts)}".encode()


def test_mail_and_acks_are_read_wherever_they_are_cut(redis: tuple[Redis, socket.socket]) -> None:
    client, peer = redis
    said = b":3\r\n" + entries("1700-0", "1700-1") + b":2\r\n" + entries("1701-0")
    for cut in range(1, len(said)):
        acked, ids = 0, []
        for piece in (said[:cut], said[cut:]):
            peer.sendall(piece)
            progress = client.take()
            acked += progress.acked
            ids += [mail.id for mail in progress.delivered]
        assert (acked, ids, client.rest) == (5, ["1700-0", "1700-1", "1701-0"], b""), cut
        assert peer.recv(1 << 16).count(b"XACK") == 2


def test_confirmations_are_counted_wherever_they_are_cut(redis: tuple[Redis, socket.socket]) -> None:
    client, peer = redis
    said = b"$6\r\n1700-0\r\n$6\r\n1700-1\r\n"
    for cut in range(1, len(said)):
        confirmed = 0
        for piece in (said[:cut], said[cut:]):
            peer.sendall(piece)
            confirmed += client.confirmed()
        assert (confirmed, client.rest) == (2, b""), cut


def test_a_refusal_of_redis_ends_the_measurement(redis: tuple[Redis, socket.socket]) -> None:
    client, peer = redis
    peer.sendall(b"$6\r\n1700-0\r\n-ERR no\r\n")
    with pytest.raises(RuntimeError, match="ERR no"):
        client.confirmed()
