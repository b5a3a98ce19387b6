"""One request and its response, over one connection or, where that was closed, over a second."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import aiohttp
import httpx
from yarl import URL

from gpt4batch.dialects.openai_stream import looks_like_events
from gpt4batch.service.connections import Channel, Connections
from gpt4batch.service.encodings import CutShortError, UnreadableError, as_utf8, unpacked
from gpt4batch.service.http1 import ResponseReader
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.connector import Connection

    from gpt4batch.dialects.base import Fold
    from gpt4batch.service.cookies import Cookies
    from gpt4batch.service.deadlines import Deadlines, Limit
    from gpt4batch.service.proxies import Proxy

CONNECT_TIMEOUT = 30.0
IDLE = 60.0
"""Seconds without a byte after which a streamed body is given up."""

LONG_BODY = 1 << 16
"""Bytes of a request from which on it may take a while to go out."""

DEFAULTS = {
    b"accept": b"Accept: */*\r\n",
    b"accept-encoding": b"Accept-Encoding: gzip, deflate\r\n",
}
"""Headers of a request that does not set them; what is accepted is what can be unpacked."""

USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS)
LOST = (aiohttp.ClientError, ConnectionError, UnicodeError)


class OutOfDescriptors(httpx.ConnectError):
    """No connection can be opened until this machine has a descriptor to spare."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is the same for every request to an address."""

    url: URL
    start: bytes
    """The request line after the method, and the headers that every request has."""
    defaults: dict[bytes, bytes]
    """The lines of headers that a request has unless it sets them itself, by their names."""
    proxy: Proxy | None
    target: aiohttp.ClientRequest
    """By what aiohttp's connector knows where to connect."""

    @classmethod
    def to(cls, url: URL, proxy: Proxy | None) -> Route:
        """Return the route to an address.

        Raises:
            ValueError: It is not an address that can be called.
        """
        bare = url.with_user(None).with_fragment(None)
        target = bare.raw_path_qs
        lines = [f"Host: {bare.host_port_subcomponent}".encode()]
        if proxy is not None and url.scheme == "http":
            target = str(bare)
            if proxy.authorization:
                lines.append(b"Proxy-Authorization: " + proxy.authorization)
        defaults = dict(DEFAULTS)
        if url.raw_user is not None:
            pair = unquote_to_bytes(f"{url.raw_user}:{url.raw_password or ''}")
            defaults[b"authorization"] = b"Authorization: Basic %s\r\n" % b64encode(pair)
        start = b"\r\n".join([f" {target} HTTP/1.1".encode("ascii"), *lines, b""])
        loop = asyncio.get_running_loop()
        request = aiohttp.ClientRequest(
            "GET", bare, loop=loop, proxy=None if proxy is None else proxy.url
        )
        return cls(bare, start, defaults, proxy, request)


class Exchange:
    """One request on its way.

    Args:
        request: What is sent.
        route: Where to.
        deadlines: Ends what takes too long.
        cookies: The cookies of the run.
        seconds: How long the reply may take once the request is out.
    """

    def __init__(
        self,
        request: httpx.Request,
        route: Route,
        deadlines: Deadlines,
        cookies: Cookies,
        seconds: float,
    ) -> None:
        self._request = request
        self._route = route
        self._deadlines = deadlines
        self._cookies = cookies
        self._seconds = seconds
        self._streamed = "streamed" in request.extensions
        self._fold: Callable[[], Fold] | None = request.extensions.get("fold")
        self._idle: float = request.extensions.get("idle", float("inf"))
        stream = request.stream
        self._body = b"".join(stream) if isinstance(stream, httpx.ByteStream) else None
        self._length: int | None = None
        self._head = self._written_head()

    async def run(self, connections: Connections) -> httpx.Response:
        """Send the request and return its response.

        A service may close a connection that it promised to keep, just when a request leaves on
        it. That request never reached it, so it goes out once more at once, on a new connection.

        Raises:
            OutOfDescriptors: Nothing was sent: no descriptor is free.
            httpx.HTTPError: There is no whole response.
        """
        response = await self._attempt(connections, fresh=False)
        if response is None:
            response = await self._attempt(connections, fresh=True)
        assert response is not None
        return response

    async def _attempt(self, connections: Connections, *, fresh: bool) -> httpx.Response | None:
        connection: Connection | None = None
        reader = ResponseReader(
            asyncio.get_running_loop().create_future(),
            streamed=self._streamed,
            bodiless=self._request.method == "HEAD",
            fold=self._fold,
        )
        try:
            async with self._deadlines.limit(min(self._seconds, CONNECT_TIMEOUT)) as limit:
                connection = await self._connect(connections, fresh=fresh)
                channel = connection.protocol
                assert isinstance(channel, Channel)
                channel.listen(reader)
                limit.restart(self._seconds)
                sent = await self._write(channel, reader, limit)
                limit.reply = reader.ready
                await self._listen(channel, reader)
        except TimeoutError:
            _drop(connection)
            if connection is None:
                raise self._no_connection() from None
            if not reader.said_all:
                raise httpx.ReadTimeout(
                    tr("no answer within {seconds:g} s", seconds=self._seconds)
                ) from None
            return self._response(reader, connection, sent=False)
        except BaseException:
            _drop(connection)
            raise

        if reader.error is not None:
            _drop(connection)
            if channel.used and channel.unread and not reader.began:
                return None
            raise reader.error
        return self._response(reader, connection, sent=sent)

    async def _listen(self, channel: Channel, reader: ResponseReader) -> None:
        """Wait for the reply; for one that was asked for as a stream, as long as something comes.

        Raises:
            TimeoutError: Its time is over.
            httpx.ReadTimeout: Nothing has come for too long.
        """
        if self._idle == float("inf"):
            await reader.ready
            return
        silence = self._deadlines.limit(self._idle)

        def progress() -> object:
            events = 0 if reader.events is None else reader.events.count
            return events, reader.pieces.count, channel.unsent()

        try:
            async with silence:
                silence.progress, silence.reply = progress, reader.ready
                await reader.ready
        except TimeoutError:
            over = self._deadlines.now >= silence.deadline
            if not over or reader.said_all:
                raise
            text = tr(
                "nothing but keep-alives came for {idle:g} s (--idle-timeout)", idle=self._idle
            )
            raise httpx.ReadTimeout(text) from None

    async def _connect(self, connections: Connections, *, fresh: bool) -> Connection:
        try:
            return await connections.connect(self._route.target, fresh=fresh)
        except LOST as error:
            if _is_used_up(error):
                raise OutOfDescriptors(tr("too many open files on this machine")) from None
            raise self._translated(error) from error

    # -- the request -------------------------------------------------------------------------

    def _written_head(self) -> bytes:
        parts = [self._request.method.encode() + self._route.start]
        named = set()
        for name, value in self._request.headers.raw:
            known = name.lower()
            named.add(known)
            if known == b"content-length":
                self._length = int(value)
            elif known != b"host":
                parts.append(b"%s: %s\r\n" % (name, value))
        parts += [line for name, line in self._route.defaults.items() if name not in named]
        if self._body is not None:
            self._length = len(self._body)
        if self._length:
            parts.append(b"Content-Length: %d\r\n" % self._length)
        if cookie := self._cookies.header(self._route.url):
            parts.append(b"Cookie: %s\r\n" % cookie)
        if any(b"\n" in part[:-1] for part in parts[1:]):
            raise httpx.LocalProtocolError(tr("a header has a line break in it"))
        return b"".join((*parts, b"\r\n"))

    async def _write(self, channel: Channel, reader: ResponseReader, limit: Limit) -> bool:
        """Send the request; return whether all of it was sent before the reply began."""
        if self._body is not None:
            channel.write(self._head + self._body)
            if len(self._body) > LONG_BODY:
                limit.progress = channel.unsent
            return True

        sent = 0
        limit.progress = lambda: (sent, channel.unsent())
        channel.write(self._head)
        stream = self._request.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async for piece in stream:
            await channel.drain()
            if reader.head.status or reader.error is not None:  # refused before it has all come
                return False
            sent += len(piece)
            if sent > (self._length or 0):
                break
            channel.write(piece)
        if sent != self._length:
            raise httpx.LocalProtocolError(tr("the file was changed while it was sent"))
        return True

    # -- the response ------------------------------------------------------------------------

    def _response(
        self, reader: ResponseReader, connection: Connection, *, sent: bool
    ) -> httpx.Response:
        head = reader.head
        if self._streamed:
            body = Body(reader, connection, self._deadlines)
            return httpx.Response(head.status, headers=head.headers, stream=body)

        _let_go(connection, reader, sent=sent)
        if b"set-cookie" in head.framing:
            self._cookies.keep(self._route.url, head.headers)
        if head.status == 407 and self._route.proxy is not None:
            raise httpx.ProxyError(
                tr("{proxy} answered 407: it wants a password", proxy=str(self._route.proxy))
            )
        raw = reader.body()
        damage = reader.damage
        codings = head.tokens(b"content-encoding")
        codings += [c for c in head.tokens(b"transfer-encoding") if c != b"chunked"]
        try:
            raw = as_utf8(unpacked(raw, codings), head.framing.get(b"content-type", b""))
        except UnreadableError as error:
            if reader.until_closed and isinstance(error, CutShortError):
                raise httpx.RemoteProtocolError(
                    tr("the reply was cut short: {error}", error=error)
                ) from None
            damage = damage or str(error)
        else:
            if (events := self._events(reader, raw)) is not None:
                raw, damage = events.reply(), damage or events.damage
        more = {"damage": damage} if damage else {}
        stream = httpx.ByteStream(raw)
        return httpx.Response(head.status, headers=head.headers, stream=stream, extensions=more)

    def _events(self, reader: ResponseReader, raw: bytes) -> Fold | None:
        """Return the events of a stream, also of one whose headers do not tell of it.

        Raises:
            httpx.RemoteProtocolError: It ended before its end.
        """
        events = reader.events
        if events is None:
            fold = self._fold if 200 <= reader.head.status < 300 else None
            if fold is None or not looks_like_events(raw):
                return None
            events = fold()
            events.feed(raw)
        events.close()
        if not events.ended:
            raise httpx.RemoteProtocolError(
                tr("the stream ended without its end: it was cut short")
            )
        return events

    # -- errors ------------------------------------------------------------------------------

    def _no_connection(self) -> httpx.ConnectTimeout:
        seconds = min(self._seconds, CONNECT_TIMEOUT)
        return httpx.ConnectTimeout(
            tr("cannot connect to {peer} within {seconds:g} s", peer=self._peer(), seconds=seconds)
        )

    def _peer(self) -> str:
        """Return what a connection is made to, as a message names it."""
        proxy = self._route.proxy
        where = f"{self._route.url.host}:{self._route.url.port}"
        return (
            where if proxy is None else tr("{where} through {proxy}", where=where, proxy=str(proxy))
        )

    def _translated(self, error: Exception) -> httpx.HTTPError:
        """Return httpx's error for one of aiohttp's; its text shows no password."""
        proxy = self._route.proxy
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return httpx.ProxyError(
                tr(
                    "{proxy} answered {status} {message}",
                    proxy=str(proxy),
                    status=error.status,
                    message=error.message,
                )
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            of_proxy = proxy is not None and (error.host, error.port) == (
                proxy.url.raw_host,
                proxy.url.port,
            )
            kind = httpx.ProxyError if of_proxy else httpx.ConnectError
            peer = str(proxy) if of_proxy else f"{error.host}:{error.port}"
            return kind(tr("cannot connect to {peer}: {reason}", peer=peer, reason=_reason(error)))
        # The whole text of such an error has the address in it, with a password.
        said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
        text = " ".join(said.split()) or tr("the connection was lost")
        if proxy is not None:
            return httpx.ProxyError(
                tr("{proxy} did not connect: {text}", proxy=str(proxy), text=text)
            )
        if isinstance(error, aiohttp.InvalidURL):
            return httpx.UnsupportedProtocol(tr("not an address: {text}", text=text))
        return httpx.ConnectError(
            tr("cannot connect to {peer}: {text}", peer=self._peer(), text=text)
        )


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientSSLError):  # what is wrong with a certificate
        return " ".join(str(error).split())
    number = error.os_error.errno or 0
    return tr(os.strerror(number)) if number > 0 else because(error.os_error)


def _is_used_up(error: Exception) -> bool:
    """Return whether no descriptor was free, for the connection or for looking up the name."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return False
    if error.os_error.errno in USED_UP:
        return True
    if not isinstance(error.os_error, socket.gaierror):
        return False
    try:
        os.close(os.dup(2))
    except OSError as tried:
        return tried.errno in USED_UP
    return False


class Body(httpx.AsyncByteStream):
    """The body of a response as it comes from the connection."""

    def __init__(
        self, reader: ResponseReader, connection: Connection, deadlines: Deadlines
    ) -> None:
        self._reader = reader
        self._connection = connection
        self._deadlines = deadlines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            httpx.HTTPError: It does not come whole.
        """
        make = asyncio.get_running_loop().create_future
        while True:
            try:
                async with self._deadlines.limit(IDLE):
                    piece = await self._reader.next_piece(make)
            except TimeoutError:
                raise httpx.ReadTimeout(tr("no byte for {seconds:.0f} s", seconds=IDLE)) from None
            if not piece:
                break
            yield piece
        if self._reader.damage:
            raise httpx.RemoteProtocolError(
                tr("the reply cannot be read: {damage}", damage=self._reader.damage)
            )

    async def aclose(self) -> None:
        """Give the connection back, or close it where bytes are still to come."""
        _let_go(self._connection, self._reader, sent=True)


def _let_go(connection: Connection, reader: ResponseReader, *, sent: bool) -> None:
    """Keep the connection after a whole success; after all else a late reply may be on its way."""
    channel = connection.protocol
    if not isinstance(channel, Channel):
        return
    if not (sent and reader.reusable and 200 <= reader.head.status < 300):
        _drop(connection)
        return
    channel.reader = None
    channel.used = True
    connection.release()


def _drop(connection: Connection | None) -> None:
    """Close a connection at once, with what has not been sent yet."""
    if connection is None:
        return
    channel = connection.protocol
    if isinstance(channel, Channel):
        channel.reader = None
        channel.abort()
    connection.close()
