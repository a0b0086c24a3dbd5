"""How the players speak: an agent's door as a lean non-blocking stream, and the bus as the operator's tools speak it."""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import msgspec
import zmq

from libhive import wire
from libhive.messages.base import Request
from libhive.names import OPERATOR

_LENGTH = struct.Struct(">I")
READ_BYTES = 1 << 20


class Answer(msgspec.Struct):
    re: str
    body: msgspec.Raw = msgspec.Raw()
    problem: dict[str, Any] | None = None


_decode = msgspec.msgpack.Decoder(Answer).decode


class Line(ABC):
    gone = False
    """The other end has hung up; what it had said before has been read."""

    @abstractmethod
    def say(self, request: Request[Any], id: str) -> None: ...

    @abstractmethod
    def flush(self) -> None:
        """Sends what was said since, as far as the other end takes it now."""

    @abstractmethod
    def hear(self) -> list[Answer]:
        """What has come; nothing is waited for."""

    @abstractmethod
    def close(self) -> None: ...


class DoorLine(Line):
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self._out, self._rest = bytearray(), b""

    def say(self, request: Request[Any], id: str) -> None:
        frame = wire.pack_request(request, id)
        self._out += _LENGTH.pack(len(frame))
        self._out += frame

    def flush(self) -> None:
        with contextlib.suppress(OSError):  # full: later; gone: what was said before that is still to be read
            while self._out:
                del self._out[: self.socket.send(self._out)]

    def hear(self) -> list[Answer]:
        data = self._rest
        try:
            while piece := self.socket.recv(READ_BYTES):
                data += piece
            self.gone = True
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
        found, self._rest = _answers(data)
        return found

    def close(self) -> None:
        self.socket.close()


class BusLine(Line):
    """The operator's."""

    context = zmq.Context()

    def __init__(self, path: Path) -> None:
        self._socket = self.context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.BUS_FRAME_BYTES_MAX)
        self._socket.connect(f"ipc://{path}")

    def say(self, request: Request[Any], id: str) -> None:
        self._socket.send(wire.pack_request(request, id, OPERATOR))

    def flush(self) -> None:
        """ZeroMQ has sent it."""

    def hear(self) -> list[Answer]:
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                found.append(_decode(self._socket.recv(zmq.NOBLOCK)))
        return found

    def close(self) -> None:
        self._socket.close(linger=0)


class Silence(Line):
    """No line at all."""

    gone = True

    def say(self, request: Request[Any], id: str) -> None:
        """Nobody hears it."""

    def flush(self) -> None: ...

    def hear(self) -> list[Answer]:
        return []

    def close(self) -> None: ...


def _answers(data: bytes) -> tuple[list[Answer], bytes]:
    """Whole frames, and what is left."""
    at, found = 0, []
    while len(data) - at >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(data, at)
        end = at + _LENGTH.size + size
        if end > len(data):
            break
        found.append(_decode(data[at + _LENGTH.size : end]))
        at = end
    return found, data[at:]
