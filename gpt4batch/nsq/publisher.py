"""Messages to NSQ.

A message is in its spool before `publish` returns and leaves it when nsqd has said OK, so that
each one is delivered at least once, in order, whatever happens to nsqd, the link or this process.
Those in flight when a link is lost are sent again and may arrive twice. A message over nsqd's limit
goes out as gzip, which a consumer knows by its first bytes, 1f 8b: JSON starts with a brace.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import struct
from collections import deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.nsq.link import (
    DEFAULT_LIMIT,
    PATIENCE,
    RECONNECT,
    Access,
    Link,
    LostError,
    library,
    parse_address,
    quiet,
    shown,
)
from gpt4batch.nsq.spool import ROOM, Backlog, Letter
from gpt4batch.nsq.waiting import Waiting
from gpt4batch.words import because, joined, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

REPLY_PATIENCE = 30.0
"""How long nsqd may take to accept a message."""
TOO_BIG = re.compile(r"too big \d+ > (\d+)")

logger = logging.getLogger(__name__)

LOST = tr("nsqd at {place} is lost: {why}; messages wait in {path}")
BACK = tr("nsqd at {place} is back: {count} more messages to send")


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


class Publisher:
    """Publish to one topic, or to those of letters, in order, and never hold up the caller.

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
            raise UsageError(
                tr(
                    "--nsq-topic {topic!r}: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
                    topic=topic,
                )
            )
        self._addresses = deque(parse_address(address) for address in addresses)
        self._topic = topic
        self.waiting = Waiting(spool, room)
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
        return self.waiting.path

    @property
    def left(self) -> int:
        """Return how many messages wait, those too big for nsqd included."""
        return len(self.waiting)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(quiet())
            link = await self._first_link()
            stack.callback(link.close)
            for words in self.waiting.open(stack):
                self._say(words)
            if self.waiting.queue.waiting:
                self._handed += self.waiting.queue.waiting
                self._wake.set()
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._serve, link)
            tasks.start_soon(self.waiting.keep_synced)
            self._stack = stack.pop_all()
        self._open = True
        return self

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
        with quiet():
            (await self._first_link()).close()

    async def pass_on(self) -> int:
        """Send what waits of an earlier run, for a few seconds; return how much is left.

        Raises:
            UsageError: No nsqd answers, or one refuses us.
        """
        async with self:
            pass
        return self.left

    def publish(self, body: bytes) -> bool:
        """Hand over one message and tell whether there was room; never waits and never fails."""
        if self.waiting.queue.append(body):
            self._handed += 1
            self._wake.set()
            return True
        self.dropped += 1
        if self.dropped == 1:
            self._say(
                tr(
                    "no room for messages in {path}: from now on they are in the output only",
                    path=self.path,
                )
            )
        return False

    def keep(self, body: bytes) -> bool:
        """Hand over one message that is nowhere else; tell whether its file had room for it."""
        roomy = self.waiting.keep(body)
        self._handed += 1
        self._wake.set()
        return roomy

    async def settled(self) -> None:
        """Wait until nsqd has taken what was handed over so far, or it was put aside as too big."""
        mark = self._handed
        while self._settled < mark:
            await self._progress.wait()

    async def fits(self, body: bytes) -> bool:
        """Return whether nsqd takes a message of this size, compressed where that is needed."""
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
            while self.waiting.queue.waiting:
                self._drained.clear()
                await self._drained.wait()

    async def _first_link(self) -> Link:
        reasons = []
        for place in self._addresses:
            try:
                return await self._connect(place)
            except LostError as error:
                reasons.append(
                    tr("nsqd at {place} does not answer: {error}", place=shown(place), error=error)
                )
        advice = tr("start it (nsqd --data-path FOLDER) or set --nsqd-tcp-address")
        raise UsageError(tr("{reasons}; {advice}", reasons=joined("; ", reasons), advice=advice))

    async def _connect(self, place: tuple[str, int]) -> Link:
        """Return a link to an nsqd that takes messages for the topic of the sizes it says."""
        limit = await self._probe(place)
        link = self._access.link(self._library, self._wake)
        await link.open(place, self._access)
        link.limit = self.limit = limit
        return link

    async def _probe(self, place: tuple[str, int]) -> int:
        """Ask nsqd for its limit, and whether we may publish, without publishing.

        It does not tell by itself. A batch of one message that claims to be 2 GiB long is refused
        before its body is read, in words that name the limit; TLS, the secret and the right to the
        topic are judged before that.
        """
        link = self._access.link(self._library, asyncio.Event())
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
        raise LostError(refusal)

    async def _serve(self, link: Link) -> None:
        try:
            while True:
                before = self.sent
                try:
                    await self._send(link)
                except LostError as error:
                    link.close()
                    self._tell_lost(link, str(error))
                if self.sent == before:
                    self._addresses.rotate(-1)
                    await anyio.sleep(RECONNECT)
                link = await self._reconnect()
        except OSError as error:
            self._say(
                tr(
                    "{path} cannot be used: {reason}; no more messages are sent",
                    path=self.path,
                    reason=because(error),
                )
            )
        finally:
            link.close()

    def _tell_lost(self, link: Link, why: str) -> None:
        if why != self.trouble:
            self._say(LOST.filled(place=shown(link.place), why=why, path=self.path))
        self.trouble = why

    def _tell_back(self, link: Link) -> None:
        # Not when it connects: an nsqd with a full disk does that, and takes nothing.
        if self.trouble and (link.proven or self.waiting.queue.waiting == 0):
            count = self.waiting.queue.waiting
            self._say(BACK.filled(place=shown(link.place), count=count))
            self.trouble = ""

    async def _reconnect(self) -> Link:
        while True:
            for place in list(self._addresses):
                try:
                    return await self._connect(place)
                except LostError as error:
                    logger.debug("nsqd at %s: %s", shown(place), error)
            await anyio.sleep(RECONNECT)

    async def _send(self, link: Link) -> None:
        """Send whatever the spool has, until the link is lost."""
        self.waiting.queue.rewind()
        while True:
            self._settle(link)
            if link.lost:
                raise LostError(link.lost)
            self._tell_back(link)
            await self._fill(link)
            try:
                with anyio.fail_after(REPLY_PATIENCE if link.flying else None):
                    await self._wake.wait()
            except TimeoutError:
                raise LostError(tr("no reply for {seconds:g} s", seconds=REPLY_PATIENCE)) from None
            self._wake.clear()

    def _settle(self, link: Link) -> None:
        """Forget what nsqd has accepted since the last time."""
        messages, records = link.settled()
        self.sent += messages
        self.waiting.queue.acknowledge(records)
        if records:
            self._settled += records
            self._progress.set()
            self._progress = anyio.Event()
        if self.waiting.queue.waiting == 0:
            self._drained.set()

    async def _fill(self, link: Link) -> None:
        """Send messages until the window is full or there are no more."""
        while link.has_room() and (body := self.waiting.queue.next()) is not None:
            packed = body
            if len(body) > link.limit:
                packed = await anyio.to_thread.run_sync(_compressed, body)
            if len(packed) <= link.limit:
                link.publish(body.topic if isinstance(body, Letter) else self._topic, packed)
            else:
                self._put_aside(body, link)

    def _put_aside(self, body: bytes, link: Link) -> None:
        kept, words = self.waiting.put_aside(body, shown(link.place), link.limit)
        self.dropped += not kept
        self._say(words)
        link.skip()
        self._wake.set()


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)
