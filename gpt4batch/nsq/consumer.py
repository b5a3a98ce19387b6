"""Messages from NSQ."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import anyio
import anyio.to_thread

from gpt4batch.lines import rawjson
from gpt4batch.nsq.link import (
    HEARTBEAT,
    PATIENCE,
    RECONNECT,
    Access,
    Delivery,
    Link,
    LostError,
    library,
    parse_address,
    quiet,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

MSG_TIMEOUT = 60
"""Seconds without a word after which nsqd hands a message to another consumer."""
LOOKUP_INTERVAL = 5.0

logger = logging.getLogger(__name__)


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
        self._links: dict[tuple[str, int], Link | None] = {}
        self._send, self._receive = anyio.create_memory_object_stream[Delivery](float("inf"))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(quiet())
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
        """Return whether some nsqd is connected."""
        return any(self._links.values())

    def make_room(self, room: int) -> None:
        """Change how many messages may be out here, unsettled; 0 stops new ones."""
        self._room = room
        for link in self._links.values():
            if link is not None:
                each = self._room // max(1, len(self._links))  # the part of the room of each nsqd
                link.make_ready(max(1, each) if self._room else 0)

    def _follow(self, place: tuple[str, int]) -> None:
        if place not in self._links:
            self._links[place] = None
            self._tasks.start_soon(self._serve, place)

    async def _serve(self, place: tuple[str, int]) -> None:
        while True:
            link = self._access.link(self._library, asyncio.Event())
            try:
                await link.open(
                    place, self._access, msg_timeout=MSG_TIMEOUT, heartbeat_interval=HEARTBEAT
                )
                link.subscribe(self._topic, self._channel, self._send.send_nowait)
                self._links[place] = link
                self.make_room(self._room)
                logger.debug("%s at %s is lost: %s", self._topic, place, await link.until_lost())
            except LostError as error:
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
