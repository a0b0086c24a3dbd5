"""One client process of a measurement: `python -m tests.bench.client`, told what it is by a line of JSON.

Those that are `usual` are in usual.py; the others are here. It connects, says `ready`, waits for a line, does its part,
prints what it saw as JSON, and stays connected until its standard input ends.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench import usual
from tests.bench.door import WAIT_MS, Door
from tests.bench.resp import Redis
from tests.bench.stream import Delivered, Stream, ready, tally

SYSTEMS: dict[str, type[Stream]] = {"door": Door, "redis": Redis}


def main(client: str, **what: Any) -> None:
    main_of = usual.main if client == "usual" else lean
    main_of(ready=begin, tell=tell, **what)


def begin() -> None:
    say("ready")
    sys.stdin.readline()


def tell(seen: dict[str, Any]) -> None:
    """Returns when nobody minds any more whether we are connected."""
    say(json.dumps(seen))
    sys.stdin.readline()


def lean(
    role: str,
    system: str,
    paths: Sequence[str],
    targets: Sequence[Sequence[str]],
    ready: Callable[[], None],
    tell: Callable[[dict[str, Any]], None],
    **given: Any,
) -> None:
    streams = []
    for path, names in zip(paths, targets, strict=True):
        streams.append(SYSTEMS[system](path, names))
        if role in ("receive", "idle"):
            streams[-1].greet()  # at once: a door gives a connection two seconds to speak
    if role in ("receive", "idle"):
        for stream in streams:
            stream.greeted()
    if role == "receive":
        for stream in streams:
            stream.ask()
    if role == "idle":  # as harnesses do: their waits end one after the other, not all at once
        for number, stream in enumerate(streams, 1):
            stream.ask(WAIT_MS * number // len(streams))
    ready()
    before = time.process_time()
    seen = ROLES[role](streams, **given)
    tell({**seen, "cpu_seconds": time.process_time() - before})


def send(streams: Sequence[Stream], count: int, depth: int) -> dict[str, Any]:
    """`depth` messages are in flight on each connection: a confirmed one is followed by the next."""
    wait, sent, confirmed = ready(streams), 0, 0
    began = time.monotonic_ns()
    for stream in streams:
        stream.send(depth)
        sent += depth
    while confirmed < count:
        for stream in wait():
            news = stream.confirmed()
            confirmed += news
            if more := min(news, count - sent):
                stream.send(more)
                sent += more
    return {"began_ns": began}


def pace(streams: Sequence[Stream], count: int, per_second: int) -> dict[str, Any]:
    """At its instant each, whether or not the last one was confirmed: who is slow is not spared."""
    (stream,) = streams
    began, confirmed = time.monotonic(), 0
    for number in range(count):
        while (left := began + number / per_second - time.monotonic()) > 0:
            if confirmed == number:
                time.sleep(left)
                continue
            if select.select([stream.socket], [], [], left)[0]:
                confirmed += stream.confirmed()
        stream.send(1)
    while confirmed < count:
        confirmed += stream.confirmed()
    return {"began_ns": int(began * 1e9)}


def receive(streams: Sequence[Stream], count: int) -> dict[str, Any]:
    wait, acked = ready(streams), 0
    came: dict[Stream, list[Delivered]] = {stream: [] for stream in streams}
    while acked < count:
        for stream in wait():
            progress = stream.take()
            acked += progress.acked
            came[stream] += progress.delivered
    ended = time.monotonic_ns()
    return {"ended_ns": ended, "microseconds": tally(count, acked, came.values())}


def idle(streams: Sequence[Stream]) -> dict[str, Any]:
    """Until it is killed."""
    wait = ready(streams)
    while True:
        for stream in wait():
            stream.take()


ROLES: dict[str, Callable[..., dict[str, Any]]] = {
    "send": send,
    "pace": pace,
    "receive": receive,
    "idle": idle,
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(**json.loads(sys.stdin.readline()))
