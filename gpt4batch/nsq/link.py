"""Messages to and from NSQ; the only user of the NSQ library.

A message is in its spool before `publish` returns and leaves it when nsqd has said OK, so that
each one is delivered at least once, in order, whatever happens to nsqd, the link or this process.
Those in flight when a link is lost are sent again and may arrive twice. A message over nsqd's limit
goes out as gzip, which a consumer knows by its first bytes, 1f 8b: JSON starts with a brace.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import re
import socket
import struct
import time
import urllib.request
import zlib
from collections import deque
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import anyio
import anyio.to_thread

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.nsq.spool import ROOM, Backlog, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

PATIENCE = 5.0
"""How long nsqd may take to accept a connection."""
REPLY_PATIENCE = 30.0
"""How long nsqd may take to accept a message."""
RECONNECT = 1.0
"""Between two rounds of trying to connect."""
WINDOW = 256
"""Messages sent ahead of nsqd's OK: as many may arrive twice."""
WINDOW_BYTES = 4 * 1024 * 1024
DEFAULT_LIMIT = 1024 * 1024
"""nsqd's own default for the size of a message, where it does not tell."""

MSG_TIMEOUT = 60
"""Seconds without a word after which nsqd hands a message to another consumer."""
HEARTBEAT = 15
"""Seconds between nsqd's signs of life; it hangs up when two of ours are missing."""
SILENCE = 3 * HEARTBEAT
"""Seconds without a sign of life after which a connection counts as lost."""
LOOKUP_INTERVAL = 5.0
HARMLESS = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")
"""What nsqd says of a message that it has handed to another by now; the connection stays."""
GZIP = b"\x1f\x8b"

TOO_BIG = re.compile(r"too big \d+ > (\d+)")
NOISY = ("nsq.conn", "tornado.general", "tornado.application")

logger = logging.getLogger(__name__)


def message(ask: str, answer: bytes, directory: str) -> bytes:
    """Return the message for one answer, with the reply as it came."""
    return b"".join(
        (
            b'{"ask":',
            rawjson.dumps(ask),
            b',"answer":',
            answer,
            b',"dir":',
            rawjson.dumps(directory),
            b"}",
        )
    )


@dataclass(frozen=True, slots=True)
class Access:
    """How nsqd lets us in; `ca_file` left empty is `SSL_CERT_FILE`, else the usual authorities."""

    tls: bool = False
    ca_file: str = ""
    auth_secret: str = ""


class _LostError(Exception):
    """A connection to nsqd cannot be had or used any more."""


class Publisher:
    """Publish to one topic, in order, without ever holding up the caller.

    An async context manager: entering connects, leaving sends what can be sent within a few
    seconds. What remains stays in the spool and is sent first by the next one that opens it.

    Args:
        addresses: `host:port` of each nsqd; one is used at a time, another when it is lost.
        topic: The topic.
        spool: The file where messages wait; one beside it keeps those too big for nsqd. Or a
            backlog in memory, for what is worth nothing after this process.
        access: TLS and the secret.
        on_state: Told in a sentence when nsqd is lost or back, or a message cannot be taken.
        room: Bytes of messages that may wait in the file.

    Raises:
        UsageError: On entering: no nsqd answers, one refuses us, or the library is missing.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        topic: str,
        spool: Path | Backlog,
        *,
        access: Access | None = None,
        on_state: Callable[[str], None] | None = None,
        room: int = ROOM,
    ) -> None:
        self._library = library()
        if not self._library.valid_topic_name(topic):
            raise UsageError(f"--nsq-topic {topic!r}: 1 to 64 of the characters A-Z a-z 0-9 . _ -")
        self._addresses = deque(parse_address(address) for address in addresses)
        self._topic = topic
        self._kept = spool
        self._room = room
        self._access = access or Access()
        self._say = on_state or logger.warning
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._stack = AsyncExitStack()
        self._open = False
        self.trouble = ""
        self._handed = self._settled = 0
        self._progress = anyio.Event()
        self.limit = DEFAULT_LIMIT
        """The size of a message that nsqd takes, as it was told last."""
        self.sent = 0
        """Messages that nsqd took over."""
        self.dropped = 0
        """Messages that found no room in the spool."""

    @property
    def path(self) -> Path | str:
        """Return where messages wait."""
        return "memory" if isinstance(self._kept, Backlog) else self._kept

    @property
    def left(self) -> int:
        """Messages that wait in the files, those too big for nsqd included."""
        return self._spool.waiting + self._big.waiting

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(_quiet())
            link = await self._first_link()
            stack.callback(link.close)
            self._open_spools(stack)
            self._take_over()
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._serve, link)
            self._stack = stack.pop_all()
        self._open = True
        return self

    def _open_spools(self, stack: AsyncExitStack) -> None:
        self._spool: Spool | Backlog
        self._big: Spool | Backlog
        if isinstance(self._kept, Backlog):
            self._spool, self._big = self._kept, Backlog()
        else:
            self._spool = Spool(self._kept, self._room)
            stack.callback(self._spool.close)
            self._big = Spool(self._kept.with_name(self._kept.name + "-too-big"))
            stack.callback(self._big.close)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def reach(self) -> None:
        """Connect to an nsqd and leave again; nothing is published and no file is made.

        Raises:
            UsageError: No nsqd answers, or one refuses us.
        """
        with _quiet():
            (await self._first_link()).close()

    def publish(self, body: bytes) -> bool:
        """Hand over one message and tell whether there was room; never waits and never fails."""
        if self._spool.append(body):
            self._handed += 1
            self._wake.set()
            return True
        self.dropped += 1
        if self.dropped == 1:
            self._say(
                f"no room for messages in {self.path}: those from now on are in the output only"
            )
        return False

    async def settled(self) -> None:
        """Wait until nsqd has taken what was handed over so far, or it was put aside as too big."""
        mark = self._handed
        while self._settled < mark:
            await self._progress.wait()

    async def fits(self, body: bytes) -> bool:
        """Tell whether nsqd takes a message of this size, compressed where that is needed."""
        if len(body) <= self.limit:
            return True
        return len(await anyio.to_thread.run_sync(_compressed, body)) <= self.limit

    async def aclose(self, patience: float = PATIENCE) -> int:
        """Send what can be sent within `patience` seconds and return how many messages are left."""
        if not self._open:
            return self.left
        self._open = False
        try:
            await self.drain(patience)
        finally:
            await self._stack.aclose()
        return self.left

    async def drain(self, patience: float) -> None:
        """Wait `patience` seconds at most for what can be sent."""
        with anyio.move_on_after(patience):
            while self._spool.waiting:
                self._drained.clear()
                await self._drained.wait()

    def _take_over(self) -> None:
        """Put what an earlier run left at the front of the queue."""
        for spool in (self._spool, self._big):
            if spool.cut:
                self._say(f"{spool.path}: {spool.cut} bytes at its end were no whole message")
        while (body := self._big.next()) is not None and self._spool.append(body):
            self._big.acknowledge(1)
        self._big.rewind()
        if self._spool.waiting:
            self._handed += self._spool.waiting
            self._say(f"{self._spool.waiting} messages of an earlier run in {self.path} go first")
            self._wake.set()

    async def _first_link(self) -> _Link:
        reasons = []
        for place in self._addresses:
            try:
                return await self._connect(place)
            except _LostError as error:
                reasons.append(f"nsqd at {shown(place)} does not answer: {error}")
        advice = "start it (nsqd --data-path FOLDER) or set --nsqd-tcp-address"
        raise UsageError(f"{'; '.join(reasons)}; {advice}")

    async def _connect(self, place: tuple[str, int]) -> _Link:
        """Return a link to an nsqd that takes messages for the topic of the sizes it says."""
        limit = await self._probe(place)
        link = _Link(self._library, self._wake)
        await link.open(place, self._access)
        link.limit = self.limit = limit
        return link

    async def _probe(self, place: tuple[str, int]) -> int:
        """Ask nsqd for its limit, and whether we may publish, without publishing.

        It does not tell by itself. A batch of one message that claims to be 2 GiB long is refused
        before its body is read, in words that name the limit; TLS, the secret and the right to the
        topic are judged before that.
        """
        link = _Link(self._library, asyncio.Event())
        await link.open(place, self._access)
        try:
            link.send(f"MPUB {self._topic}\n".encode() + struct.pack(">iii", 8, 1, 2**31 - 1))
            refusal = await link.loss()
        finally:
            link.close()
        if found := TOO_BIG.search(refusal):
            return int(found[1])
        if refusal.startswith("E_BAD"):
            return DEFAULT_LIMIT
        raise _LostError(refusal)

    async def _serve(self, link: _Link) -> None:
        try:
            while True:
                before = self.sent
                try:
                    await self._send(link)
                except _LostError as error:
                    link.close()
                    self._tell_lost(link, str(error))
                if self.sent == before:
                    self._addresses.rotate(-1)
                    await anyio.sleep(RECONNECT)
                link = await self._reconnect()
        except OSError as error:
            self._say(f"{self.path} cannot be used: {error.strerror}; nothing is sent any more")
        finally:
            link.close()

    def _tell_lost(self, link: _Link, why: str) -> None:
        if why != self.trouble:
            self._say(f"nsqd at {shown(link.place)} is lost: {why}; messages wait in {self.path}")
        self.trouble = why

    def _tell_back(self, link: _Link) -> None:
        # Not when it connects: an nsqd with a full disk does that, and takes nothing.
        if self.trouble and (link.proven or self._spool.waiting == 0):
            count = self._spool.waiting
            self._say(f"nsqd at {shown(link.place)} is back: {count} more messages to send")
            self.trouble = ""

    async def _reconnect(self) -> _Link:
        while True:
            for place in list(self._addresses):
                try:
                    return await self._connect(place)
                except _LostError as error:
                    logger.debug("nsqd at %s: %s", shown(place), error)
            await anyio.sleep(RECONNECT)

    async def _send(self, link: _Link) -> None:
        """Send whatever the spool has, until the link is lost."""
        self._spool.rewind()
        while True:
            self._settle(link)
            if link.lost:
                raise _LostError(link.lost)
            self._tell_back(link)
            await self._fill(link)
            try:
                with anyio.fail_after(REPLY_PATIENCE if link.flying else None):
                    await self._wake.wait()
            except TimeoutError:
                raise _LostError(f"no reply for {REPLY_PATIENCE:g} s") from None
            self._wake.clear()

    def _settle(self, link: _Link) -> None:
        """Forget what nsqd has accepted since the last time."""
        messages, records = link.settled()
        self.sent += messages
        self._spool.acknowledge(records)
        if records:
            self._settled += records
            self._progress.set()
            self._progress = anyio.Event()
        if self._spool.waiting == 0:
            self._drained.set()

    async def _fill(self, link: _Link) -> None:
        """Send messages until the window is full or there are no more."""
        while link.has_room() and (body := self._spool.next()) is not None:
            packed = body
            if len(body) > link.limit:
                packed = await anyio.to_thread.run_sync(_compressed, body)
            if len(packed) <= link.limit:
                link.publish(self._topic, packed)
            else:
                self._put_aside(body, link)

    def _put_aside(self, body: bytes, link: _Link) -> None:
        kept = self._big.append(body)
        self.dropped += not kept
        self._say(
            f"a message of {len(body)} bytes, compressed too, is over the limit of nsqd at"
            f" {shown(link.place)} (--max-msg-size {link.limit}): "
            + (f"kept in {self._big.path}" if kept else "it is in the output only")
        )
        link.skip()
        self._wake.set()


class _Link:
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
            self._lose(f"no reply within {PATIENCE:g} s")
        except OSError as error:
            self._lose(error.strerror or str(error))
        except BaseException:
            self.close()
            raise
        if self.lost:
            self.close()
            raise _LostError(self.lost)
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
        self._conn.on("message", lambda message, **_: take(Delivery(self, message)))
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
                self._lose(f"no sign of life for {SILENCE} s")
        return self.lost

    async def loss(self) -> str:
        """Wait until the link is lost and return why."""
        with anyio.move_on_after(PATIENCE):
            await self._gone.wait()
        return self.lost or f"no reply within {PATIENCE:g} s"

    def has_room(self) -> bool:
        """Tell whether one more message may be sent ahead of the replies."""
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
            self._lose("it offers no TLS (--nsq-tls)")
        elif data.get("auth_required") and not access.auth_secret:
            self._lose("it wants a secret (--nsq-auth-secret)")

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


class Delivery:
    """A message that nsqd waits to hear of: it is finished, given back, or still worked on."""

    def __init__(self, link: _Link, message: Any) -> None:
        self.attempts = int(message.attempts)
        self.since = time.monotonic()
        self._packed: bytes = message.body
        self._id = message.id
        self._link = link

    @property
    def body(self) -> bytes:
        """Return what was published.

        Raises:
            ValueError: It claims to be compressed and is not.
        """
        if not self._packed.startswith(GZIP):
            return self._packed
        try:
            return gzip.decompress(self._packed)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not gzip: {error}") from None

    def finish(self) -> None:
        """Let nsqd forget the message."""
        self._link.settle("finish", self._id)

    def give_back(self, delay: float = 0.0) -> None:
        """Let nsqd hand the message out again, after some seconds."""
        self._link.settle("requeue", self._id, round(delay * 1000))

    def touch(self) -> None:
        """Let nsqd wait longer: the message is being worked on."""
        self._link.settle("touch", self._id)


class Consumer:
    """Take the messages of a topic from every nsqd, for as long as the `async with` lasts.

    Args:
        addresses: `host:port` of each nsqd.
        topic: The topic; it and the channel are made if need be.
        channel: The channel: each message goes to one consumer of each.
        room: How many messages may be out here, unsettled.
        access: TLS and the secret.
        lookup: `host:port` of each nsqlookupd that may know more of them.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        topic: str,
        channel: str,
        *,
        room: int,
        access: Access | None = None,
        lookup: Sequence[str] = (),
    ) -> None:
        self._library = library()
        self._places = [parse_address(address) for address in addresses]
        self._topic = topic
        self._channel = channel
        self._room = room
        self._access = access or Access()
        self._lookup = lookup
        self._links: dict[tuple[str, int], _Link | None] = {}
        self._send, self._receive = anyio.create_memory_object_stream[Delivery](float("inf"))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(_quiet())
            stack.callback(self._receive.close)
            stack.callback(self._send.close)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self._tasks.cancel_scope.cancel)
            for place in self._places:
                self._follow(place)
            for address in self._lookup:
                self._tasks.start_soon(self._discover, address)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for delivery in self._receive:
            yield delivery

    @property
    def connected(self) -> bool:
        """Tell whether some nsqd is connected."""
        return any(self._links.values())

    def make_room(self, room: int) -> None:
        """Change how many messages may be out here, unsettled; 0 stops new ones."""
        self._room = room
        for link in self._links.values():
            if link is not None:
                link.make_ready(self._share())

    def _share(self) -> int:
        """Return the part of the room that each nsqd may fill."""
        return max(1, self._room // max(1, len(self._links))) if self._room else 0

    def _follow(self, place: tuple[str, int]) -> None:
        if place not in self._links:
            self._links[place] = None
            self._tasks.start_soon(self._serve, place)

    async def _serve(self, place: tuple[str, int]) -> None:
        while True:
            link = _Link(self._library, asyncio.Event())
            try:
                await link.open(
                    place, self._access, msg_timeout=MSG_TIMEOUT, heartbeat_interval=HEARTBEAT
                )
                link.subscribe(self._topic, self._channel, self._send.send_nowait)
                self._links[place] = link
                self.make_room(self._room)
                logger.debug("%s at %s is lost: %s", self._topic, place, await link.until_lost())
            except _LostError as error:
                logger.debug("nsqd at %s: %s", shown(place), error)
            finally:
                self._links[place] = None
                link.close()
            await anyio.sleep(RECONNECT)

    async def _discover(self, address: str) -> None:
        """Ask an nsqlookupd now and then which nsqds have the topic."""
        while True:
            for place in await anyio.to_thread.run_sync(_looked_up, address, self._topic):
                self._follow(place)
            await anyio.sleep(LOOKUP_INTERVAL)


def _looked_up(address: str, topic: str) -> list[tuple[str, int]]:
    host, port = parse_address(address)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{shown((host, port))}/lookup?topic={quote(topic)}"
    try:
        with opener.open(url, timeout=PATIENCE) as reply:
            found = rawjson.loads(reply.read())["producers"]
            return [(str(one["broadcast_address"]), int(one["tcp_port"])) for one in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.debug("nsqlookupd at %s: %s", address, error)
        return []


def library() -> Any:
    """Return the NSQ library, imported only here."""
    try:
        import nsq
    except ImportError:
        raise UsageError("NSQ needs its client: pip install 'gpt4batch[nsq]'") from None
    return nsq


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[address]:port`."""
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--nsqd-tcp-address {text!r}: not host:port, such as 127.0.0.1:4150")
    return host, int(port)


def shown(place: tuple[str, int]) -> str:
    """Return an address as it is written."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _tls_options(access: Access) -> dict[str, Any]:
    import ssl

    import certifi

    file = access.ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where()
    # The library's own choice of protocol would not compare the name in the certificate.
    return {"ssl_version": ssl.PROTOCOL_TLS_CLIENT, "ca_certs": file}


def _reason(error: BaseException | None) -> str:
    """Return what became of a connection, in the system's words where it had any."""
    if error is None:
        return "it closed the connection"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def _quiet() -> Iterator[None]:
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
