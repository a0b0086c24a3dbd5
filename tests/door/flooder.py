"""One process that floods a door: `python -m tests.door.flooder WAY PATH LEASE SECONDS`. Then it says how many frames it
wrote, and how many bytes it was answered."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from libhive import doorway, wire
from libhive.messages import broker as say
from libhive.messages.base import Request
from libhive.names import new_id

ROOT = Path(__file__).resolve().parents[2]
WRITE_FRAMES = 128
READ_BYTES = 1 << 20


def framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def costly(lease: str) -> bytes:
    """As many values, and keys, as there may be, for whoever looks at each."""
    keys = b"".join(b"\xa4%04x\xc0" % number for number in range(19_900))
    return (
        b"\x84\xa1v\x01\xa2id\xa8"
        + b"a" * 8
        + b"\xa4kind\xa4ping\xa4body\xdf"
        + struct.pack(">I", 19_900)
        + keys
    )


def empties(lease: str) -> bytes:
    return (
        b"\x84\xa1v\x01\xa2id\xa8"
        + b"a" * 8
        + b"\xa4kind\xa4ping\xa4body\x81\xa1a\xdd\0\0\x4d\x58"
        + b"\x80" * 19_800
    )


def asks(make: Callable[[str], Request[Any]]) -> Callable[[str], bytes]:
    return lambda lease: wire.pack_request(make(lease), new_id())


FRAMES: dict[str, Callable[[str], bytes]] = {
    "bad": lambda lease: b"\xc1",
    "costly": costly,
    "empties": empties,
    "status": asks(lambda lease: say.SetStatus(text="x" * 500)),
    "unknown": asks(lambda lease: say.Send(to=["nobody-here"], body="x")),
    "send": asks(lambda lease: say.Send(to=["operator"], body="x" * 1_000)),
    "recv": asks(lambda lease: say.Recv(lease=lease, wait_ms=0)),
    "waits": asks(lambda lease: say.Recv(lease=lease, wait_ms=100)),
    "unread": asks(lambda lease: say.LooseEnds()),
}
WAYS = (*FRAMES, "connect", "drip")
"""`connect` makes connections as fast as it can, `drip` sends a byte now and then; the others send frames on all the
connections that a door allows, as many as it takes, and all but `unread` read the answers."""


def flood(way: str, path: str, lease: str, seconds: float) -> tuple[int, int]:
    until = time.monotonic() + seconds
    if way == "connect":
        return connect(path, until), 0
    if way == "drip":
        return drip(path, until), 0
    sources = [
        Source(path, FRAMES[way], lease, reads=way != "unread") for _ in range(doorway.CONNECTIONS_MAX)
    ]
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source.socket, source.interest, source)
        while time.monotonic() < until:
            for key, events in selector.select(0.1):
                try:
                    key.data.go_on(events)
                except ConnectionError:  # the door had no room, or has had enough: again
                    selector.unregister(key.data.socket)
                    key.data.connect()
                    selector.register(key.data.socket, key.data.interest, key.data)
    return sum(source.frames for source in sources), sum(source.answered for source in sources)


class Source:
    """One connection that always has more to say."""

    def __init__(self, path: str, make: Callable[[str], bytes], lease: str, *, reads: bool) -> None:
        self._path = path
        self.connect()
        self.interest = selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0)
        self._make, self._lease = make, lease
        self._count = WRITE_FRAMES if len(make(lease)) < 4_096 else 1
        self.frames = self.answered = 0

    def connect(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(self._path)
        self.socket.setblocking(False)
        self._rest = b""

    def go_on(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            with contextlib.suppress(BlockingIOError):
                data = self.socket.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError
                self.answered += len(data)
        if events & selectors.EVENT_WRITE:
            if not self._rest:
                self._rest = b"".join(framed(self._make(self._lease)) for _ in range(self._count))
                self.frames += self._count
            with contextlib.suppress(BlockingIOError):
                self._rest = self._rest[self.socket.send(self._rest) :]


def connect(path: str, until: float) -> int:
    count, kept = 0, []
    while time.monotonic() < until:
        with contextlib.suppress(OSError):  # refused while the queue of the listening socket is full
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            made.connect(path)
            kept.append(made)
            count += 1
        if len(kept) > 500:
            kept = []
    return count


def drip(path: str, until: float) -> int:
    count = 0
    frame = framed(wire.pack_request(say.SetStatus(text="x" * 500), new_id()))
    while time.monotonic() < until:
        guests = [
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(doorway.CONNECTIONS_MAX * 4)
        ]
        with contextlib.suppress(OSError):
            for guest in guests:
                guest.connect(path)
        for at in range(len(frame)):
            for guest in guests:
                with contextlib.suppress(OSError):
                    guest.send(frame[at : at + 1])
            time.sleep(0.02)
            if time.monotonic() > until:
                break
        for guest in guests:
            guest.close()
        count += 1
    return count


class Flood(msgspec.Struct):
    frames: int
    answered: int


@contextlib.contextmanager
def flooding(way: str, path: Path, lease: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """While the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.door.flooder", way, str(path), lease, str(seconds)],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "flooding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen[str]) -> Flood:
    """Once its time is over."""
    assert process.stdout
    return msgspec.json.decode(process.stdout.readline(), type=Flood)


def main() -> None:
    way, path, lease, seconds = sys.argv[1:]
    print("flooding", flush=True)
    frames, answered = flood(way, path, lease, float(seconds))
    print(msgspec.json.encode(Flood(frames, answered)).decode(), flush=True)


if __name__ == "__main__":
    main()
