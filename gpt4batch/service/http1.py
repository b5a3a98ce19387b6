"""Reading one HTTP/1 response from the bytes of a connection.

A reply may be paid for, so it is read wherever curl, requests or Go's net/http would read it:
lengths that are said twice, folded headers, lines that end without a carriage return.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import httpx

from gpt4batch.words import because, tr

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from gpt4batch.dialects.base import Fold

CHUNK = 1 << 18
"""Bytes of a streamed body that are held before the connection is no longer read."""

LONGEST_HEAD = 1 << 18
LONGEST_LINE = 1 << 16
END_OF_HEAD = re.compile(rb"\n\r?\n")
STATUS_LINE = re.compile(rb"HTTP/(\d)(?:\.(\d+))?[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
LENGTH = re.compile(rb"\+?[0-9]{1,18}")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;|$)")
FOLD = re.compile(rb"\n[ \t]+")
NO_BODY = (101, 204, 304)
EVENTS = b"text/event-stream"
FRAMING = frozenset(
    (
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"set-cookie",
        b"transfer-encoding",
    )
)


class _CutShortError(Exception):
    """The connection ended before the response did."""


class Head(NamedTuple):
    """What comes before the body."""

    version: tuple[int, int]
    status: int
    headers: list[tuple[bytes, bytes]]
    framing: dict[bytes, bytes]
    """What tells how to read the body and the connection; names and values in lower case."""

    def tokens(self, name: bytes) -> list[bytes]:
        """Return what one of the headers in `framing` lists."""
        value = self.framing.get(name)
        if value is None:
            return []
        return [token for token in (part.strip() for part in value.split(b",")) if token]


def parse_head(text: bytes) -> Head | None:
    """Read a status line and headers; None where it is not the head of a response."""
    text = text.replace(b"\r\n", b"\n")
    if b"\n " in text or b"\n\t" in text:  # an old way to go on with a long value
        text = FOLD.sub(b" ", text)
    lines = text.split(b"\n")
    found = STATUS_LINE.match(lines[0])
    if found is None:
        return None
    headers: list[tuple[bytes, bytes]] = []
    framing: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            continue
        headers.append((name, value))
        known = name.lower()
        if known in FRAMING:
            earlier = framing.get(known)
            value = value.lower()
            framing[known] = value if earlier is None else earlier + b"," + value
    return Head((int(found[1]), int(found[2] or 0)), int(found[3]), headers, framing)


class Pieces:
    """The body of a response as it comes; one that is streamed is held up while nobody takes it.

    Args:
        streamed: The body is taken piece by piece.
    """

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.count = 0
        self.paused = False
        self.pause: Callable[[bool], None] = lambda _paused: None
        """Is called to stop reading the connection, and to go on."""
        self._pieces: deque[bytes] = deque()
        self.fold: Fold | None = None
        """What takes the pieces instead."""
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def joined(self) -> bytes:
        """Return all that has come."""
        return b"".join(self._pieces)

    def add(self, piece: bytes) -> None:
        """Add what came."""
        if self.fold is not None:
            self.fold.feed(piece)
            return
        self._pieces.append(piece)
        self.count += 1
        if not self.streamed:
            return
        self._held += len(piece)
        if self._held > CHUNK and not self.paused:
            self.paused = True
            self.pause(True)
        self.wake()

    def take(self) -> bytes:
        """Return the first piece and hold it no longer."""
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self.paused and self._held < CHUNK:
            self.paused = False
            self.pause(False)
        return piece

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait until there is a piece, or the response has come to its end."""
        self._waiter = waiter
        await waiter

    def wake(self) -> None:
        """End the waiting."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ResponseReader:
    """Reads one response.

    Args:
        ready: Is done when the response is whole, or its head where the body is streamed.
        streamed: The body is taken as it comes, with `next_piece`.
        bodiless: No body follows, as after HEAD.
        fold: Makes what takes the body as it comes, where it is a stream of events.
    """

    def __init__(
        self,
        ready: asyncio.Future[None],
        *,
        streamed: bool = False,
        bodiless: bool = False,
        fold: Callable[[], Fold] | None = None,
    ) -> None:
        self.ready = ready
        self.head = Head((1, 1), 0, [], {})
        self.pieces = Pieces(streamed=streamed)
        self.began = False
        """Whether a single byte of a reply has come."""
        self.whole = False
        self.stray = False
        """Whether bytes came that belong to no request."""
        self.damage = ""
        """Why the body may not be what was sent, though it came whole."""
        self.until_closed = False
        """Whether only the end of the connection tells the end of the body."""
        self.error: httpx.HTTPError | None = None
        self.on_end: Callable[[], None] = lambda: None
        self.events: Fold | None = None
        """What has become of a stream of events so far."""
        self._fold = fold
        self._bodiless = bodiless
        self._buffer = bytearray()
        self._eof = False
        self._reset = False
        self._steps = self._read()

    @property
    def reusable(self) -> bool:
        """Return whether the connection may carry another request after this response."""
        if not self.whole or self.stray or self.damage or self.until_closed:
            return False
        if self._eof or self.pieces.paused:
            return False
        named = self.head.tokens(b"connection")
        if self.head.version < (1, 1):
            return b"keep-alive" in named
        return b"close" not in named

    @property
    def said_all(self) -> bool:
        """Return whether a stream of events has come to its end, though the connection has not."""
        if self.events is None:
            return False
        self.events.close()
        return self.events.ended

    # -- from the connection -----------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Process bytes that have arrived."""
        if self.whole:
            self.stray = True
            return
        self.began = True
        self._buffer += data
        self._advance()

    def lost(self, error: BaseException | None) -> None:
        """Note that the connection has ended."""
        if self.whole or self.error is not None:
            return
        self._eof = True
        self._reset = error is not None
        self._advance()
        if self.said_all:  # before the connection ended
            self.error, self.whole = None, True
            self._finish()
        if not self.whole:
            reason = tr("the connection was closed")
            if isinstance(error, OSError) and error.strerror:
                reason = because(error)
            if self.began:
                self._fail(
                    httpx.RemoteProtocolError(
                        tr("the reply was cut short: {reason}", reason=reason)
                    )
                )
            else:
                self._fail(httpx.ReadError(tr("{reason} before a reply came", reason=reason)))

    def _advance(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            self.whole = True
            self.stray = bool(self._buffer)
            self._finish()
        except _CutShortError:
            pass  # `lost` tells how
        except httpx.RemoteProtocolError as error:
            self._fail(error)

    def _fail(self, error: httpx.HTTPError) -> None:
        self.error = error
        self._finish()

    def _finish(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        self.pieces.wake()
        self.on_end()

    # -- to the caller -----------------------------------------------------------------------

    def body(self) -> bytes:
        """Return the body of a response that is whole."""
        return self.pieces.joined()

    async def next_piece(self, make: Callable[[], asyncio.Future[None]]) -> bytes:
        """Return the next bytes of a streamed body; empty at its end.

        Raises:
            httpx.HTTPError: The connection was lost before.
        """
        while not self.pieces:
            if self.whole:
                return b""
            if self.error is not None:
                raise self.error
            await self.pieces.wait(make())
        return self.pieces.take()

    # -- the steps: each waits with `yield` for more bytes, or for the end of the connection ---

    def _read(self) -> Generator[None, None, None]:
        while True:
            self.head = yield from self._read_head()
            if not 100 <= self.head.status < 200 or self.head.status == 101:
                break
        if self.pieces.streamed and not self.ready.done():
            self.ready.set_result(None)
        framing = self.head.framing
        told = framing.get(b"content-type", b"").startswith(EVENTS)
        plain = b"content-encoding" not in framing and 200 <= self.head.status < 300
        if self._fold is not None and told and plain:  # events that can be read as they come
            self.events = self.pieces.fold = self._fold()
        if not self._bodiless and self.head.status not in NO_BODY:
            yield from self._read_body()

    def _read_body(self) -> Generator[None, None, None]:
        told = self.head.tokens(b"content-length")
        lengths = {int(token) for token in told if LENGTH.fullmatch(token)}
        chunked = b"chunked" in self.head.tokens(b"transfer-encoding")
        if chunked or not self.head.framing.get(b"content-length", b"0").isdigit():
            self._name_length(None if chunked or not lengths else min(lengths))
        if chunked and (yield from self._read_chunks()):
            return
        if not lengths:
            yield from self._read_rest()
            return
        yield from self._read_exactly(min(lengths))
        if len(lengths) > 1:
            self.damage = tr("its Content-Length headers differ")
            self._take_all()

    def _name_length(self, length: int | None) -> None:
        """Leave one Content-Length in the headers; remove it if it means nothing."""
        kept = [pair for pair in self.head.headers if pair[0].lower() != b"content-length"]
        if length is not None:
            kept.append((b"content-length", b"%d" % length))
        self.head = self.head._replace(headers=kept)

    def _read_head(self) -> Generator[None, None, Head]:
        buffer = self._buffer
        while True:
            while buffer.startswith((b"\r", b"\n")):
                del buffer[0]
            found = END_OF_HEAD.search(buffer)
            if found is not None:
                break
            if len(buffer) > LONGEST_HEAD:
                raise httpx.RemoteProtocolError(tr("the headers of the reply are too long"))
            yield from self._more()
        text = bytes(buffer[: found.start()])
        del buffer[: found.end()]
        head = parse_head(text.removesuffix(b"\r"))
        if head is None:
            shown = text[:40].decode("ascii", "replace")
            raise httpx.RemoteProtocolError(
                tr("the reply is not HTTP: it begins with {shown!r}", shown=shown)
            )
        return head

    def _read_chunks(self) -> Generator[None, None, bool]:
        """Read a body in chunks; return False if it has no chunks, whatever its headers say."""
        first = True
        while True:
            line = yield from self._read_line()
            found = CHUNK_SIZE.match(line.rstrip(b"\r\n"))
            if found is None:
                self._buffer[:0] = line
                if not first:
                    self.damage = tr("a chunk of it has no length")
                    self._take_all()
                return not first
            size = int(found[1], 16)
            if size == 0:
                break
            yield from self._read_exactly(size)
            end = yield from self._read_line()
            if end.strip():
                self._buffer[:0] = end
                self.damage = tr("a chunk of it is longer than its length")
                self._take_all()
                return True
            first = False
        while (yield from self._read_line(may_end=True)).strip():
            pass  # trailers
        return True

    def _read_line(self, *, may_end: bool = False) -> Generator[None, None, bytes]:
        """Return a line with its end; after too many bytes without an end, return them."""
        while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) < LONGEST_LINE:
            if self._eof and (may_end or self._buffer):
                break
            yield from self._more()
        end = end + 1 or len(self._buffer)
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line

    def _read_exactly(self, size: int) -> Generator[None, None, None]:
        while size > 0:
            if not self._buffer:
                yield from self._more()
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            size -= len(piece)
            self.pieces.add(piece)

    def _read_rest(self) -> Generator[None, None, None]:
        self.until_closed = True
        while True:
            self._take_all()
            if self._eof and not self._reset:
                return
            yield from self._more()

    def _more(self) -> Generator[None, None, None]:
        if self._eof:
            raise _CutShortError
        yield

    def _take_all(self) -> None:
        if self._buffer:
            piece = bytes(self._buffer)
            self._buffer.clear()
            self.pieces.add(piece)
