"""A request for http:// that is not tunnelled: one to a connection, by the same rules, framed anew by h11 at both ends."""

from __future__ import annotations

import asyncio

import h11

from services.gateway.egress import head
from services.gateway.egress.head import HEAD_BYTES_MAX, Asked

READ_BYTES = 64 * 1024


class Relay:
    """Between the cage's end, whose request has been read, and the host's."""

    def __init__(self, near: h11.Connection, asked: Asked) -> None:
        self.near, self.far = near, h11.Connection(h11.CLIENT, max_incomplete_event_size=4 * HEAD_BYTES_MAX)
        self.first = self.far.send(head.onward(asked)) or b""
        """The head of the request for the host."""

    async def up(self, reader: asyncio.StreamReader) -> bytes:
        """The next of what the cage says; empty at its end."""
        return await self._next(reader, self.near, self.far)

    async def down(self, reader: asyncio.StreamReader) -> bytes:
        """The next of what the host says; empty at its end."""
        return await self._next(reader, self.far, self.near)

    async def _next(
        self, reader: asyncio.StreamReader, source: h11.Connection, sink: h11.Connection
    ) -> bytes:
        """Raises h11.ProtocolError when it is no HTTP, or is broken off."""
        while source.their_state not in (h11.DONE, h11.CLOSED, h11.MUST_CLOSE):
            event = source.next_event()
            if event is h11.NEED_DATA:
                source.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                return sink.send(head.back(event)) or b""
            elif isinstance(event, h11.InformationalResponse | h11.Data | h11.EndOfMessage):
                if data := sink.send(event):
                    return data
            else:
                break
        return b""
