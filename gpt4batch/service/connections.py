"""Connections: opened by aiohttp's connector, used for one request at a time, and kept."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from gpt4batch.service.http1 import ResponseReader

if TYPE_CHECKING:
    import ssl

    from aiohttp.abc import AbstractResolver
    from aiohttp.connector import AddrInfoType, Connection

KEEP_ALIVE = 60
"""Seconds without a byte after which the system asks whether the peer is still there.

A chat takes minutes, and routers forget a connection on which nothing goes either way.
"""

WITHOUT_LIMIT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
ROUNDS = 8
"""Turns of the loop that it may take until what has come is read."""

LEFT_OVER = 1 << 20
"""Bytes that are read from a connection after a write on it has failed."""


def _socket(address: AddrInfoType) -> socket.socket:
    """Return a socket whose connection is looked after while nothing is sent."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    options += [(socket.IPPROTO_TCP, name, KEEP_ALIVE) for name in (idle,) if name is not None]
    if hasattr(socket, "TCP_KEEPINTVL"):
        options.append((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE))
    for option in options:
        with suppress(OSError):  # a system that refuses one still makes connections
            made.setsockopt(*option)
    return made


class Channel(ResponseHandler):
    """One connection, which carries one request and its reply at a time.

    Whatever arrives while no reply is awaited closes it: the connection could no longer tell the
    reply to one request from that to another.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.reader: ResponseReader | None = None
        self.used = False
        self.unread = False
        """Whether it ended before the peer's system had all that was sent."""
        self._poll: select.poll | None = None
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection that was made."""
        super().connection_made(transport)
        descriptor = self._descriptor()
        if descriptor >= 0:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)

    def _descriptor(self) -> int:
        found = self.transport.get_extra_info("socket") if self.transport is not None else None
        return found.fileno() if found is not None else -1

    def data_received(self, data: bytes) -> None:
        """Give what has come to the reply that is awaited."""
        if self.reader is not None:
            self.reader.feed(data)
        elif self._parser is not None:  # the answer of a proxy that was asked for a tunnel
            super().data_received(data)
        else:
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the reply that is awaited, after the last of what has come."""
        # After a reset nobody knows: it overtakes the acknowledgement of what was read.
        self.unread = self.unsent() > 0 and not isinstance(exc, ConnectionResetError)
        reader = self.reader
        if reader is not None:
            if exc is not None:
                self._read_left_over(reader)
            reader.lost(exc)
        super().connection_lost(exc)
        self._wake_writer()

    def _read_left_over(self, reader: ResponseReader) -> None:
        """Read what lies in the socket: a write that failed ends a connection before it is read.

        A service that refuses a long upload answers and closes at once.
        """
        assert self.transport is not None
        if self.transport.get_extra_info("sslcontext") is not None:
            return
        with suppress(OSError):
            left = LEFT_OVER
            while left > 0 and (data := os.read(self._descriptor(), left)):
                left -= len(data)
                reader.feed(data)

    def is_fit(self) -> bool:
        """Return whether nothing has come and the peer has not closed since the last reply.

        What has come may lie in the system still, where a busy loop has not read it.
        """
        return self.is_connected() and not self._has_news()

    def _has_news(self) -> bool:
        """Return whether bytes, or the end of the connection, lie in the system unread."""
        return self.transport is not None and self._poll is not None and bool(self._poll.poll(0))

    # -- writing -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is already lost."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until more may be written, or the reply is there already."""
        if self._paused and self.transport is not None:
            self._writable = self._loop.create_future()
            await self._writable
        # A refusal that has come is read first: a write that fails would throw it away.
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
            if not self._has_news():
                break

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def listen(self, reader: ResponseReader) -> None:
        """Await a reply; a writer that waits hears of its end."""
        reader.on_end = self._wake_writer
        reader.pieces.pause = self._pause
        self.reader = reader

    def _pause(self, paused: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def unsent(self) -> int:
        """Return how many bytes the peer has not acknowledged, where the system tells."""
        if self.transport is None:
            return 0
        own = self.transport.get_write_buffer_size()
        try:
            import fcntl
            import termios

            found = fcntl.ioctl(self._descriptor(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (ImportError, AttributeError, OSError, ValueError):
            return own
        return own + int.from_bytes(found, sys.byteorder)


class Connections:
    """Opens connections and keeps those that may be used again.

    Args:
        verify: The certificates to trust, for https.
        resolver: Looks up names; by default the system's.
    """

    def __init__(self, verify: ssl.SSLContext | bool, resolver: AbstractResolver | None) -> None:
        self._connector = aiohttp.TCPConnector(
            limit=0, ssl=verify, resolver=resolver, socket_factory=_socket
        )
        # aiohttp has no public way to say what stands at the end of a connection.
        factory: Any = partial(Channel, asyncio.get_running_loop())
        self._connector._factory = factory  # noqa: SLF001

    async def connect(self, route: Any, *, fresh: bool = False) -> Connection:
        """Return a connection that is fit for a request; `fresh` wants a new one."""
        while True:
            connection = await self._connector.connect(route, [], WITHOUT_LIMIT)
            channel = connection.protocol
            assert isinstance(channel, Channel)
            if not channel.used or (channel.is_fit() and not fresh):
                return connection
            connection.close()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connector.close()
