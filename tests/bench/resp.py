"""Redis streams, spoken as leanly as Python can.

Replies are cut with one `split`, in C, and fields are taken by their place: a message of ours holds no line end, and the
shape of an XREADGROUP reply is fixed. That is faster than redis-py with hiredis, and than hiredis' reader alone, which
build an object for each level; a client of Redis that checks what it reads would be slower than this one.
"""

from __future__ import annotations

from tests.bench.stream import Delivered, Progress, Stream, age

GROUP = "agents"
BLOCK_MS = 0
READ_COUNT = 64
_HEAD_LINES = 5
"""*1  *2  $n  stream  *entries"""
_ENTRY_LINES = 8
"""*2  $n  id  *2  $1  b  $1024  body"""


def command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n"]
    parts += [f"${len(word)}\r\n{word}\r\n" for word in words]
    return "".join(parts).encode()


class Redis(Stream):
    """A receiver's first target is the stream that it reads."""

    reading = b""

    def message(self, to: str, body: str) -> bytes:
        said = f"*5\r\n$4\r\nXADD\r\n${len(to)}\r\n{to}\r\n$1\r\n*\r\n$1\r\nb\r\n${len(body)}\r\n{body}\r\n"
        return said.encode()

    def confirmed(self) -> int:
        data = self.read()
        check(data)
        lines = data.split(b"\r\n")
        whole = (len(lines) - 1) // 2  # `$n` and the id; what follows the last line end is not a line yet
        self.rest = b"\r\n".join(lines[2 * whole :])
        return whole

    def greet(self) -> None:
        self.stream = self.targets[0]
        self.reading = command(
            *("XREADGROUP", "GROUP", GROUP, "one", "COUNT", str(READ_COUNT), "BLOCK", str(BLOCK_MS)),
            *("STREAMS", self.stream, ">"),
        )
        self.acking = f"$4\r\nXACK\r\n${len(self.stream)}\r\n{self.stream}\r\n${len(GROUP)}\r\n{GROUP}\r\n"
        self.socket.sendall(command("XGROUP", "CREATE", self.stream, GROUP, "0", "MKSTREAM"))

    def greeted(self) -> None:
        said = self.read()
        if not said.startswith((b"+OK", b"-BUSYGROUP")):
            raise RuntimeError(f"Redis refused: {said[:200]!r}")

    def ask(self, wait_ms: int = 0) -> None:
        self.socket.sendall(self.reading)

    def take(self) -> Progress:
        data = self.read()
        lines = data.split(b"\r\n")
        at, end, acked = 0, len(lines) - 1, 0
        delivered: list[Delivered] = []
        while at < end:
            first = lines[at]
            if first[:1] == b":":
                acked += int(first[1:])
                at += 1
                continue
            if first != b"*1":
                raise RuntimeError(f"Redis refused: {first[:200]!r}")
            if end - at < _HEAD_LINES:
                break
            entries = int(lines[at + 4][1:])
            start, stop = at + _HEAD_LINES, at + _HEAD_LINES + _ENTRY_LINES * entries
            if stop > end:
                break
            ids = [id.decode() for id in lines[start + 2 : stop : _ENTRY_LINES]]
            bodies = lines[start + 7 : stop : _ENTRY_LINES]
            delivered += [Delivered(id, age(body)) for id, body in zip(ids, bodies, strict=True)]
            self._go_on(ids)
            at = stop
        self.rest = b"\r\n".join(lines[at:])
        return Progress(acked, delivered)

    def _go_on(self, ids: list[str]) -> None:
        words = "".join([f"${len(id)}\r\n{id}\r\n" for id in ids])
        self.socket.sendall(f"*{3 + len(ids)}\r\n{self.acking}{words}".encode() + self.reading)


def check(data: bytes) -> None:
    if data[:1] == b"-" or b"\r\n-" in data:
        raise RuntimeError(f"Redis refused: {data[:200]!r}")
