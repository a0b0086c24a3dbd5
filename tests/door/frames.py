"""Hostile frames, made from the messages' own types and a seed: valid ones, valid ones with one thing wrong, and bytes
that were a frame once."""

from __future__ import annotations

import os
import random
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from libhive.messages import broker as say
from libhive.messages.base import Ping, Request
from libhive.names import new_id

Pairs = list[tuple[Any, Any]]
"""A map as it is packed, so that a key can stand twice, or be no string."""


DOOR_KINDS: tuple[type[Request[Any]], ...] = (
    *(
        Ping,
        say.Ack,
        say.Answer,
        say.Ask,
        say.CancelReminder,
        say.Hello,
        say.LooseEnds,
        say.MessageStatus,
        say.Peers,
    ),
    *(say.Recv, say.Remind, say.Reminders, say.ReportState, say.Seen, say.Send, say.SetStatus),
)
"""What the broker answers at its doors."""


class Raw(bytes):
    """Bytes that are packed as they are."""


class Frame(NamedTuple):
    data: bytes
    re: str | None = None
    """The id that its answer has to carry, where that is known."""


def seed() -> int:
    return int(os.environ.get("HIVE_TEST_SEED", random.SystemRandom().randrange(1_000_000)))


def nested(depth: int, open: bytes, end: bytes) -> Raw:
    return Raw(open * depth + end)


DEEP = (nested(17, b"\x91", b"\xc0"), nested(1023, b"\x91", b"\xc0"), nested(500, b"\x81\xa1a", b"\xc0"))
LARGE = (
    "x" * 60_001,
    "é" * 60_000,
    "\U0001f41d" * 60_000,
    "x" * 60_000,
    Raw(b"\xdd\x00\x00\x4e\x20" + b"\x80" * 20_000),
)
STRANGE_TEXT = (
    *(
        "",
        "..",
        "-rf",
        "a/b",
        "../../etc",
        "a\0b",
        "a\nb",
        "a ",
        " a",
        "ALICE",
        "аlice",
        "ａlice",
        "alice\u200b",
    ),
    *("operator", "hive", "all", "manager", "root", "x" * 64, "-" * 8, "a" * 31, "a" * 32, "aaaaaaaa\n"),
    *(
        "\u202egnp.exe",
        "\x1b]0;owned\x07",
        "<script>",
        "\ufffe",
        "\ud7ff",
        "'; DROP TABLE mail; --",
        "*" * 400,
        '"',
    ),
)
STRANGE_NUMBERS = (
    *(-1, 0, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.0, 0.5, -0.0, 1e300),
    *(float(2**53), True, False),
)
STRANGE_PLAIN: tuple[Any, ...] = (
    *(
        *STRANGE_TEXT,
        *STRANGE_NUMBERS,
        None,
        [],
        [[]],
        [("a", 1)][:0],
        b"bytes",
        ["alice", 7],
        ["alice"] * 65,
    ),
)
"""Msgpack within the caps: whoever sends it gets an answer under the frame's own id."""
UNPLAIN: tuple[Any, ...] = (
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        *DEEP,
        Raw(b"\xd4\x05x"),
        Raw(b"\xd6\xff\0\0\0\0"),
        Raw(b"\xc1"),
    ),
    *(
        Raw(b"\xa3\xed\xa0\x80"),
        Raw(b"\xa2\xff\xfe"),
        Raw(b"\xa1\xc3"),
        Raw(b"\xdb\x7f\xff\xff\xff"),
        Raw(b"\xc6\xff\xff\xff\xff"),
    ),
    *(Raw(b"\xdd\xff\xff\xff\xff"), Raw(b"\xdf\xff\xff\xff\xff"), Raw(b"\x80" * 40)),
    *(
        Raw(b"\x82\xa1a\x01\xa1a\x01"),
        Raw(b"\x81\x01\x01"),
        Raw(b"\x81\xc4\x01a\x01"),
        Raw(b"\x81\x90\x01"),
        Raw(b"\x81\xc0\x01"),
    ),
)
VERSIONS: tuple[Any, ...] = (0, 2, -1, 2**64 - 1, "1", 1.0, 2.0, True, None, [1], b"1")
KEYS: tuple[Any, ...] = (1, None, b"to", Raw(b"\x90"), Raw(b"\xa1\xff"), True, 0.5)
ADDED = (
    ("from", "operator"),
    ("actor", "operator"),
    ("actor", ""),
    ("sender", "bob"),
    ("", 1),
    ("KIND", "ping"),
)
SPLINTERS = (
    b"\xc1",
    b"\xc0",
    b"\xff",
    b"\x80",
    b"\x90",
    b"\xdd",
    b"\xdf",
    b"\xdb",
    b"\xc9",
    b"\xcb",
    b"\0",
    b"\x84",
    b"\xa0",
)


class Frames:
    """An endless supply. What it is told of (ids, leases, names) it uses, so that frames reach as far in as they can."""

    def __init__(
        self, random: random.Random, kinds: Iterable[type[Request[Any]]], names: Sequence[str]
    ) -> None:
        self.random = random
        self.kinds = sorted(kinds, key=lambda kind: kind.KIND)
        self.names = [*names, "operator", "manager", "all", "nobody-here"]
        self.ids: deque[str] = deque([new_id() for _ in range(4)], maxlen=64)
        self.lease = new_id()
        self._makers = {kind: self._maker(kind) for kind in self.kinds}
        self._rare = [kind for kind in self.kinds if kind.KIND != "broker.hello"]
        """Each hello takes the lease away from all the others."""
        self._old: deque[bytes] = deque(maxlen=512)

    def next(self) -> Frame:
        chance = self.random.random()
        if chance < 0.4 and len(self._old) > 64:
            return Frame(self._broken(self.random.choice(self._old)))
        frame = self.valid() if chance < 0.55 else self.wrong()
        if len(frame.data) < 2_000:
            self._old.append(frame.data)
        return frame

    def valid(self) -> Frame:
        pairs = self._pairs()
        return Frame(pack(pairs), pairs[1][1])

    def wrong(self) -> Frame:
        """One thing is wrong with it, or only unusual."""
        pairs = self._pairs()
        id = pairs[1][1]
        change = self.random.choice(CHANGES)
        known = change(self, pairs)
        return Frame(
            pack(pairs, self.random if change is Frames._pack_widely else None), id if known else None
        )

    # ---- valid ones

    def _pairs(self) -> Pairs:
        kind = self.random.choice(self.kinds if self.random.random() < 0.05 else self._rare)
        body = [
            (name, make())
            for name, required, make in self._makers[kind]
            if required or self.random.random() < 0.5
        ]
        id = self.random.choice(self.ids) if self.random.random() < 0.1 else self._new_id()
        return [("v", 1), ("id", id), ("kind", kind.KIND), ("body", body)]

    def _new_id(self) -> str:
        return f"f{self.random.getrandbits(60):015x}"

    def _maker(self, kind: type[Request[Any]]) -> list[tuple[str, bool, Callable[[], Any]]]:
        described = inspect.type_info(kind)
        assert isinstance(described, inspect.StructType)
        return [
            (field.encode_name, field.required, self._value(field.name, field.type))
            for field in described.fields
        ]

    def _value(self, name: str, type: inspect.Type) -> Callable[[], Any]:
        choice, random = self.random.choice, self.random.random
        if isinstance(type, inspect.StrType):
            return self._text(name, type)
        if isinstance(type, inspect.IntType):
            low, high = int(type.ge or 0), int(2**53 if type.le is None else type.le)
            if name == "wait_ms":
                return lambda: choice((0, 0, 0, 1, 20))
            return lambda: choice((low, low + 1, high, low + int(random() * min(high - low, 100))))
        if isinstance(type, inspect.ListType):
            item, low, high = self._value(name, type.item_type), type.min_length or 0, type.max_length or 64
            return lambda: [
                item() for _ in range(choice((low, max(1, low), high if random() < 0.02 else max(low, 2))))
            ]
        if isinstance(type, inspect.DictType):
            return lambda: [(f"k{number}", "text") for number in range(choice((0, 1, 3)))]
        if isinstance(type, inspect.LiteralType):
            return lambda: choice(type.values)
        if isinstance(type, inspect.BoolType):
            return lambda: choice((True, False))
        if isinstance(type, inspect.UnionType):
            makers = [self._value(name, one) for one in type.types]
            return lambda: choice(makers)()
        assert isinstance(type, inspect.NoneType), f"there is no generator for {type}"
        return lambda: None

    def _text(self, name: str, type: inspect.StrType) -> Callable[[], str]:
        choice, random = self.random.choice, self.random.random
        if name == "lease":
            return lambda: self.lease
        if type.pattern:
            fits = re.compile(type.pattern).search
            names = [one for one in (*self.names, "") if fits(one)]
            if fits(self.lease):
                return lambda: self.random.choice(self.ids) if random() < 0.8 or not fits("") else ""
            return lambda: choice(names)
        longest = min(type.max_length or 60_000, 60_000)
        short = ("x", "hello", "é" * 7, "a\tb\nc", "\U0001f41d", "*/5 * * * *", "Europe/Berlin", "UTC")
        return lambda: choice(short)[:longest] if random() < 0.995 else "x" * longest

    # ---- one thing wrong; each says whether its answer has to find the one who waits

    def _replace(self, pairs: Pairs) -> bool:
        at = self._field(pairs[3][1])
        if at is not None:
            pairs[3][1][at] = (pairs[3][1][at][0], self.random.choice(STRANGE_PLAIN))
        return True

    def _replace_rudely(self, pairs: Pairs) -> bool:
        body = pairs[3][1]
        at = self._field(body)
        if at is not None:
            body[at] = (body[at][0], self.random.choice(UNPLAIN if self.random.random() < 0.98 else LARGE))
        return False

    def _forget(self, pairs: Pairs) -> bool:
        at = self._field(pairs[3][1])
        if at is not None:
            del pairs[3][1][at]
        return True

    def _add(self, pairs: Pairs) -> bool:
        self.random.choice((pairs, pairs[3][1])).append(self.random.choice(ADDED))
        return True

    def _repeat(self, pairs: Pairs) -> bool:
        where = self.random.choice((pairs, pairs[3][1]))
        if where:
            where.append(self.random.choice(where))
        return False

    def _other_key(self, pairs: Pairs) -> bool:
        where = self.random.choice((pairs, pairs[3][1]))
        at = self._field(where)
        if at is not None:
            where[at] = (self.random.choice(KEYS), where[at][1])
        return False

    def _shuffle(self, pairs: Pairs) -> bool:
        self.random.shuffle(pairs[3][1])
        self.random.shuffle(pairs)
        return True

    def _version(self, pairs: Pairs) -> bool:
        pairs[0] = ("v", self.random.choice(VERSIONS))
        return True

    def _kind(self, pairs: Pairs) -> bool:
        others = (
            "",
            "ping",
            "broker.history",
            "broker.open_mailbox",
            "lifecycle.stop",
            "x" * 4_000,
            "broker.send\n",
            "a\0",
            7,
        )
        pairs[2] = ("kind", self.random.choice(others))
        return True

    def _id(self, pairs: Pairs) -> bool:
        pairs[1] = ("id", self.random.choice((*STRANGE_PLAIN, *UNPLAIN)))
        return False

    def _body(self, pairs: Pairs) -> bool:
        pairs[3] = ("body", self.random.choice((*STRANGE_PLAIN, *UNPLAIN)))
        return False

    def _pack_widely(self, pairs: Pairs) -> bool:
        return True

    def _count(self, pairs: Pairs) -> bool:
        """The body says that it has more, or fewer, fields than it has."""
        body = pairs[3][1]
        packed = b"".join(pack(part) for pair in body for part in pair)
        pairs[3] = (
            "body",
            Raw(
                b"\xde" + struct.pack(">H", max(0, len(body) + self.random.choice((-1, 1, 60_000)))) + packed
            ),
        )
        return False

    def _field(self, pairs: Pairs) -> int | None:
        return self.random.randrange(len(pairs)) if pairs else None

    # ---- bytes that were a frame once

    def _broken(self, data: bytes) -> bytes:
        for _ in range(1 if self.random.random() < 0.8 else 3):
            data = self.random.choice(BREAKS)(self, data)
        return data

    def _at(self, data: bytes) -> int:
        return int(self.random.random() * len(data))

    def _flip(self, data: bytes) -> bytes:
        at = self._at(data)
        return (
            data[:at] + bytes([data[at] ^ 1 << int(self.random.random() * 8)]) + data[at + 1 :]
            if data
            else data
        )

    def _splinter(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.random.choice(SPLINTERS) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.random.choice(SPLINTERS) + data[at:]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _drop(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + data[at + 1 + int(self.random.random() * 4) :]

    def _extend(self, data: bytes) -> bytes:
        return data + self.random.choice((b"\0", b"\xc0", data, b"\x80", b"\xff" * 9))

    def _splice(self, data: bytes) -> bytes:
        other = self.random.choice(self._old)
        return data[: self._at(data)] + other[self._at(other) :]

    def _noise(self, data: bytes) -> bytes:
        return self.random.randbytes(1 + int(self.random.random() * 40))


CHANGES = (
    *(Frames._replace, Frames._replace, Frames._replace, Frames._replace_rudely, Frames._forget, Frames._add),
    *(
        Frames._repeat,
        Frames._other_key,
        Frames._shuffle,
        Frames._version,
        Frames._kind,
        Frames._id,
        Frames._body,
    ),
    *(Frames._pack_widely, Frames._pack_widely, Frames._count),
)
BREAKS = (
    *(
        Frames._flip,
        Frames._flip,
        Frames._splinter,
        Frames._splinter,
        Frames._insert,
        Frames._cut,
        Frames._drop,
    ),
    *(Frames._extend, Frames._splice, Frames._noise),
)


# ---- packing, as strictly or as oddly as one likes


PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""What the encoder packs as we would."""
_encode = msgspec.msgpack.Encoder().encode


def pack(value: Any, odd: random.Random | None = None) -> bytes:
    """Pairs become a map. With `odd`, lengths and numbers are packed wider than they need to be, now and then."""
    if isinstance(value, Raw):
        return value
    if not isinstance(value, list):
        return _pack_oddly(value, odd) if odd else _encode(value)
    if value and isinstance(value[0], tuple):
        parts = [part for pair in value for part in pair]
        return _head(0x80, b"\xde", b"\xdf", len(value), odd) + _pack_all(parts, odd)
    return _head(0x90, b"\xdc", b"\xdd", len(value), odd) + _pack_all(value, odd)


def _pack_all(values: list[Any], odd: random.Random | None) -> bytes:
    """Most are plain, and most frames are not odd."""
    if odd:
        return b"".join([pack(value, odd) for value in values])
    return b"".join([_encode(value) if type(value) in PLAIN else pack(value) for value in values])


def _pack_oddly(value: Any, odd: random.Random) -> bytes:
    if odd.random() < 0.3:
        if isinstance(value, str):
            data = value.encode()
            return b"\xdb" + struct.pack(">I", len(data)) + data
        if type(value) is int and value >= 0:
            return b"\xcf" + struct.pack(">Q", value)
    return _encode(value)


def _head(fixed: int, wide: bytes, wider: bytes, count: int, odd: random.Random | None) -> bytes:
    if odd and odd.random() < 0.3:
        return wider + struct.pack(">I", count)
    return bytes([fixed | count]) if count < 16 else wide + struct.pack(">H", count)
