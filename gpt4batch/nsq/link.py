"""One connection to nsqd; the only user of the NSQ library."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from gpt4batch.errors import UsageError
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 5.0
"""How long nsqd may take to accept a connection."""
RECONNECT = 1.0
"""Between two rounds of trying to connect."""
WINDOW = 256
"""Messages sent ahead of nsqd's OK: as many may arrive twice."""
WINDOW_BYTES = 4 * 1024 * 1024
DEFAULT_LIMIT = 1024 * 1024
"""nsqd's own default for the size of a message, where it does not tell."""

HEARTBEAT = 15
"""Seconds between nsqd's signs of life; it hangs up when two of ours are missing."""
SILENCE = 3 * HEARTBEAT
"""Seconds without a sign of life after which a connection counts as lost."""
HARMLESS = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")
"""What nsqd says of a message that it has handed to another by now; the connection stays."""
GZIP = b"\x1f\x8b"
LARGEST = 256 * 1024 * 1024
"""Bytes of a message: a few that were packed small could be made to fill the memory."""
NOISY = ("nsq.conn", "tornado.general", "tornado.application")

logger = logging.getLogger(__name__)


class LostError(Exception):
    """A connection to nsqd cannot be had or used any more."""


class Link:
    """One connection to nsqd: what was sent on it, accepted, and why it was lost."""

    def __init__(self, nsq: Any, changed: asyncio.Event) -> None:
        self.place = ("", 0)
        self.limit = DEFAULT_LIMIT
        self.lost = ""
        self.proven = False
        """Whether a message was accepted; until then only one is sent, so that a refusal is read.

        nsqd hangs up on a refused message; with more on their way the system drops its last words.
        """
        self.flying: deque[tuple[int, int]] = deque()
        """For each message without an OK: the records of the spool it settles, and its size."""
        self._nsq = nsq
        self._changed = changed
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._accepted = 0
        self._skipped = 0
        self._bytes = 0
        self._conn: Any = None

    async def open(self, place: tuple[str, int], access: Access, **options: Any) -> None:
        """Connect, and go through TLS and authorisation; options are the library's."""
        self.place = place
        try:
            with anyio.fail_after(PATIENCE):
                await self._open(access, options)
        except TimeoutError:
            self._lose(tr("no reply within {seconds:g} s", seconds=PATIENCE))
        except OSError as error:
            self._lose(because(error))
        except BaseException:
            self.close()
            raise
        if self.lost:
            self.close()
            raise LostError(self.lost)
        # Only now: what nsqd says before is for the library.
        self._conn.on("response", self._on_response)

    async def _open(self, access: Access, options: dict[str, Any]) -> None:
        host, port = self.place
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self._conn = self._nsq.AsyncConn(
            found[0][4][0],
            port,
            tls_v1=access.tls,
            tls_options=_tls_options(access) if access.tls else None,
            auth_secret=access.auth_secret or None,
            user_agent="gpt4batch",
            **options,
        )
        # Unbuffered, which the library's own check does not know: nsqd would hold what it sends
        # back for a quarter of a second.
        self._conn.output_buffer_size = -1
        self._conn.on("identify_response", partial(self._on_identify, access))
        self._conn.on("error", self._on_error)
        self._conn.on("close", self._on_close)
        self._conn.on("ready", self._on_ready)
        self._conn.connect()
        # The socket has its address; from here on the name is what the certificate must carry.
        self._conn.host = host
        await self._ready.wait()

    def subscribe(self, topic: str, channel: str, take: Callable[[Delivery], None]) -> None:
        """Ask for the messages of a topic."""

        def deliver(message: Any, **_: Any) -> None:
            if not self.lost:  # what is still read after the end goes back to nsqd
                take(Delivery(self, message))

        self._conn.on("message", deliver)
        self.send(self._nsq.subscribe(topic, channel))

    def make_ready(self, room: int) -> None:
        """Tell nsqd how many messages may be out here, unsettled."""
        self.send(self._nsq.ready(min(room, self._conn.max_rdy_count)))

    def settle(self, command: str, *arguments: Any) -> None:
        """Send FIN, REQ or TOUCH for a message, unless nsqd has it back already."""
        if not self.lost:
            self.send(getattr(self._nsq, command)(*arguments))

    async def until_lost(self) -> str:
        """Wait until the link is lost and return why."""
        while not self.lost:
            with anyio.move_on_after(HEARTBEAT):
                await self._gone.wait()
            if time.time() - self._conn.last_recv_timestamp > SILENCE:
                self._lose(tr("no sign of life for {seconds} s", seconds=SILENCE))
        return self.lost

    async def loss(self) -> str:
        """Wait until the link is lost and return why."""
        with anyio.move_on_after(PATIENCE):
            await self._gone.wait()
        return self.lost or tr("no reply within {seconds:g} s", seconds=PATIENCE)

    def has_room(self) -> bool:
        """Return whether one more message may be sent ahead of the replies."""
        window = WINDOW if self.proven else 1
        return not self.lost and len(self.flying) < window and self._bytes < WINDOW_BYTES

    def publish(self, topic: str, body: bytes) -> None:
        """Send one message."""
        self.flying.append((1, len(body)))
        self._bytes += len(body)
        self.send(self._nsq.pub(topic, body))

    def skip(self) -> None:
        """Settle one record of the spool, after those before it, without sending it."""
        if self.flying:
            records, size = self.flying[-1]
            self.flying[-1] = (records + 1, size)
        else:
            self._skipped += 1

    def settled(self) -> tuple[int, int]:
        """Return the messages accepted since the last time, and the records they settle."""
        messages, records = self._accepted, self._skipped
        for _ in range(messages):
            covered, size = self.flying.popleft()
            records += covered
            self._bytes -= size
        self._accepted = self._skipped = 0
        return messages, records

    def send(self, data: bytes) -> None:
        """Write a command."""
        try:
            self._conn.send(data)
        except OSError:
            self._lose(_reason(self._conn.stream.error))

    def close(self) -> None:
        """Close the connection."""
        self._lose("closed")
        if self._conn is not None and self._conn.stream is not None:
            self._conn.close()

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        self._gone.set()
        self._ready.set()
        self._changed.set()

    def _on_ready(self, **_: Any) -> None:
        self._ready.set()

    def _on_response(self, **_: Any) -> None:
        self._accepted += 1
        self.proven = True
        self._changed.set()

    def _on_identify(self, access: Access, data: dict[str, Any], **_: Any) -> None:
        if access.tls and not data.get("tls_v1"):
            self._lose(tr("it offers no TLS (--nsq-tls)"))
        elif data.get("auth_required") and not access.auth_secret:
            self._lose(tr("it wants a secret (--nsq-auth-secret)"))

    def _on_error(self, error: Exception, **_: Any) -> None:
        told = error.args[0] if error.args else ""
        if isinstance(told, bytes) and told.startswith(HARMLESS):
            logger.debug("nsqd at %s: %s", shown(self.place), told.decode(errors="replace"))
        elif isinstance(told, bytes):
            self._lose(told.decode(errors="replace"))
        else:
            cause = getattr(error, "error", None)
            self._lose(_reason(cause or getattr(self._conn.stream, "error", None)))

    def _on_close(self, **_: Any) -> None:
        if self._conn.stream is not None:  # else TLS failed, and the error that follows tells why
            self._lose(_reason(self._conn.stream.error))


@dataclass(frozen=True, slots=True)
class Access:
    """How nsqd lets us in; `ca_file` left empty is `SSL_CERT_FILE`, else the usual authorities."""

    tls: bool = False
    ca_file: str = ""
    auth_secret: str = ""
    link: type[Link] = Link
    """What connects."""


class Delivery:
    """A message that nsqd waits to hear of: it is finished, given back, or still worked on."""

    def __init__(self, link: Link, message: Any) -> None:
        self.attempts = int(message.attempts)
        self.since = time.monotonic()
        self._packed: bytes = message.body
        self._id = message.id
        self._link = link

    @property
    def body(self) -> bytes:
        """Return what was published.

        Raises:
            ValueError: It claims to be compressed and is not, or would be very large.
        """
        if not self._packed.startswith(GZIP):
            return self._packed
        inflate = zlib.decompressobj(zlib.MAX_WBITS + 16)
        try:
            body = inflate.decompress(self._packed, LARGEST)
        except zlib.error as error:
            raise ValueError(tr("not gzip: {error}", error=error)) from None
        if not inflate.eof:
            raise ValueError(tr("it is cut short, or more than {most} bytes", most=LARGEST))
        return body

    def finish(self) -> None:
        """Let nsqd forget the message."""
        self._link.settle("finish", self._id)

    def give_back(self, delay: float = 0.0) -> None:
        """Let nsqd hand the message out again, after some seconds."""
        self._link.settle("requeue", self._id, round(delay * 1000))

    def touch(self) -> None:
        """Let nsqd wait longer: the message is being worked on."""
        self._link.settle("touch", self._id)


def library() -> Any:
    """Return the NSQ library, imported only here."""
    try:
        import nsq
    except ImportError:
        raise UsageError(tr("NSQ needs its client: pip install 'gpt4batch[nsq]'")) from None
    return nsq


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[address]:port`."""
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            tr("--nsqd-tcp-address {text!r}: not host:port, such as 127.0.0.1:4150", text=text)
        )
    return host, int(port)


def shown(place: tuple[str, int]) -> str:
    """Return an address as it is written."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_options(access: Access) -> dict[str, Any]:
    import ssl

    import certifi

    file = access.ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where()
    # The library's own choice of protocol would not compare the name in the certificate.
    return {"ssl_version": ssl.PROTOCOL_TLS_CLIENT, "ca_certs": file}


def _reason(error: BaseException | None) -> str:
    """Return what became of a connection, in the system's words where it had any."""
    if error is None:
        return tr("it closed the connection")
    return because(error) if isinstance(error, OSError) else str(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's log off the terminal: what matters in it is told by us."""

    def divert(record: logging.LogRecord) -> bool:
        logger.debug("%s: %s", record.name, record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in NOISY]
    for noisy in loggers:
        noisy.addFilter(divert)
    try:
        yield
    finally:
        for noisy in loggers:
            noisy.removeFilter(divert)
