"""What the lean clients of both systems share: one blocking unix stream, and bodies of 1 KiB.

No event loop, which usual.py's have: a blocking read is the leanest way in Python to wait for one socket, epoll for many,
and nothing here has anything else to do. Both systems are driven by the same loops (client.py); only their bytes differ
(door.py, resp.py).
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

BODY_BYTES = 1024
TAG_BYTES = 20
"""A body begins with the instant at which it was made, on the clock that all processes of a machine share."""
READ_BYTES = 1 << 18
REPLY_SECONDS_MAX = 70

_WORDS = random.Random(3)
_VOCABULARY = ["".join(_WORDS.choices("etaoinshrdlucmfwyp", k=_WORDS.randint(2, 9))) for _ in range(2_000)]
TEXT = " ".join(_WORDS.choices(_VOCABULARY, k=12_000))
"""Bodies are pieces of this: words, as agents write them, for whoever indexes what was said."""
_STARTS = len(TEXT) - BODY_BYTES


class Delivered(NamedTuple):
    id: str
    microseconds: float
    """From the making of the body to now, when it is in its recipient's hands."""


class Progress(NamedTuple):
    """What one read of a receiving connection brought."""

    acked: int
    delivered: list[Delivered]


def body(number: int) -> str:
    start = number * 613 % _STARTS
    return f"{time.monotonic_ns():0{TAG_BYTES}}" + TEXT[start : start + BODY_BYTES - TAG_BYTES]


def age(body: str | bytes) -> float:
    return (time.monotonic_ns() - int(body[:TAG_BYTES])) / 1000


def tally(count: int, acked: int, delivered: Iterable[Sequence[Delivered]]) -> list[float]:
    """How long each took, of what each receiver got. Raises RuntimeError unless all came once and were acknowledged."""
    came = list(delivered)
    distinct = sum(len({mail.id for mail in mails}) for mails in came)
    took = [mail.microseconds for mails in came for mail in mails]
    if not acked == len(took) == distinct == count:
        raise RuntimeError(f"of {count}: {len(took)} came, {distinct} of them distinct, {acked} acked")
    return took


class Stream(ABC):
    """One connection. A sender uses `send` and `confirmed`; a receiver `greet`, `greeted`, then `ask` and `take`."""

    def __init__(self, path: str, targets: Sequence[str]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        timeout = struct.pack(
            "ll", REPLY_SECONDS_MAX, 0
        )  # the kernel's; Python's own costs a poll for each read
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self.socket.connect(path)
        self.targets = targets
        self.rest = b""
        self._number = 0

    def send(self, times: int) -> None:
        """So many messages, to the targets in turn, in one write."""
        first, targets = self._number, self.targets
        self._number += times
        numbers = range(first, first + times)
        frames = [self.message(targets[number % len(targets)], body(number)) for number in numbers]
        self.socket.sendall(b"".join(frames))

    def read(self) -> bytes:
        """What was left before, and what has come since."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server hung up")
        return self.rest + data if self.rest else data

    @abstractmethod
    def message(self, to: str, body: str) -> bytes: ...

    @abstractmethod
    def confirmed(self) -> int:
        """How many sends one read has confirmed. Raises RuntimeError when one was refused."""

    @abstractmethod
    def greet(self) -> None: ...

    @abstractmethod
    def greeted(self) -> None: ...

    @abstractmethod
    def ask(self, wait_ms: int = 0) -> None:
        """For mail; waits `wait_ms` for some, or as long as it may."""

    @abstractmethod
    def take(self) -> Progress:
        """Reads once; whatever mail came is acknowledged, and asked for more, in one write."""


def ready(streams: Sequence[Stream]) -> Callable[[], Sequence[Stream]]:
    """Who has something to read; a single one is simply read, which waits as well and costs a call less."""
    if len(streams) == 1:
        return lambda: streams
    poll = select.epoll()
    known = {stream.socket.fileno(): stream for stream in streams}
    for number in known:
        poll.register(number, select.EPOLLIN)

    def wait() -> Sequence[Stream]:
        if found := poll.poll(REPLY_SECONDS_MAX):
            return [known[number] for number, _ in found]
        raise TimeoutError

    return wait
