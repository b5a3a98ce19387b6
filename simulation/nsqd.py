"""A broker of a history, behind the connections of the program: at least once, late, in any order.

It keeps the promises of nsqd and no others: every channel of a topic gets each message, a message
that is not finished comes again, order is nobody's, and an nsqd that is killed loses what is in
flight and one message of each queue (`--mem-queue-size=1`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio

from gpt4batch.nsq.link import Access, Delivery, Link, LostError
from simulation.actors import ACTOR, Actor

LIMIT = 1024 * 1024
MSG_TIMEOUT = 60.0
HANGS_UP = 30.0
"""Seconds of a cut link after which nsqd takes the other side for gone."""
CLOSED = "it closed the connection"


@dataclass(frozen=True, slots=True)
class Ways:
    """How messages go: seconds one way, least and most, and the shares that go astray."""

    least: float = 0.0005
    most: float = 0.003
    twice: float = 0.0
    swapped: float = 0.0


@dataclass(slots=True)
class Message:
    """What a consumer is handed."""

    body: bytes
    id: bytes = b""
    attempts: int = 0


@dataclass(slots=True)
class Channel:
    """A queue, who takes from it, and what those have not finished."""

    waiting: deque[Message] = field(default_factory=deque)
    takers: list[Connection] = field(default_factory=list)
    out: dict[bytes, tuple[Message, Connection]] = field(default_factory=dict)


@dataclass(slots=True)
class Topic:
    """A topic; what comes before its first channel waits."""

    channels: dict[str, Channel] = field(default_factory=dict)
    waiting: list[Message] = field(default_factory=list)


class Nsqd:
    """The broker."""

    def __init__(self, ways: Ways, draw: random.Random) -> None:
        self.ways = ways
        self.up = True
        self._draw = draw
        self._topics: dict[str, Topic] = {}
        self._links: list[Connection] = []
        self._ids = count(1)

    def access(self) -> Access:
        """Return what makes the program connect to this broker."""
        return Access(link=type("Link", (Connection,), {"nsqd": self}))

    def delay(self) -> float:
        """Draw the seconds that something is on its way."""
        return self._draw.uniform(self.ways.least, self.ways.most)

    def connect(self, link: Connection) -> None:
        """Take a connection."""
        self._links.append(link)

    def publish(self, name: str, body: bytes) -> None:
        """Take a message for a topic."""
        topic = self._topics.setdefault(name, Topic())
        for _ in range(1 + (self._draw.random() < self.ways.twice)):
            if not topic.channels:
                if not name.endswith("#ephemeral"):
                    topic.waiting.append(Message(body))
                continue
            for channel in topic.channels.values():
                self._put(channel, Message(body))

    def subscribe(self, name: str, channel_name: str, link: Connection) -> None:
        """Let a connection take the messages of a channel."""
        topic = self._topics.setdefault(name, Topic())
        channel = topic.channels.setdefault(channel_name, Channel())
        channel.takers.append(link)
        for message in topic.waiting:
            self._put(channel, message)
        topic.waiting.clear()
        self.pump(channel)
        link.channel = channel

    def _put(self, channel: Channel, message: Message) -> None:
        place = len(channel.waiting)
        if self._draw.random() < self.ways.swapped:
            place = self._draw.randrange(place + 1)
        channel.waiting.insert(place, message)
        self.pump(channel)

    def pump(self, channel: Channel) -> None:
        """Hand messages to whoever has room for them."""
        while channel.waiting:
            takers = [link for link in channel.takers if link.out < link.ready]
            if not takers:
                return
            link = self._draw.choice(takers)
            message = channel.waiting.popleft()
            message.attempts += 1
            message.id = b"%016d" % next(self._ids)
            channel.out[message.id] = (message, link)
            link.out += 1
            link.hand(message)
            asyncio.get_running_loop().call_later(MSG_TIMEOUT, self.again, channel, message.id)

    def settle(self, channel: Channel, number: bytes) -> None:
        """Forget a message that is finished."""
        if (entry := channel.out.pop(number, None)) is not None:
            entry[1].out -= 1
            self.pump(channel)

    def again(self, channel: Channel, number: bytes) -> None:
        """Hand out once more what was not finished."""
        if (entry := channel.out.pop(number, None)) is not None:
            entry[1].out -= 1
            self._put(channel, Message(entry[0].body, attempts=entry[0].attempts))

    def drop(self, link: Connection) -> None:
        """Take a connection for gone: what it has not finished goes to others."""
        if link not in self._links:
            return
        self._links.remove(link)
        for topic in self._topics.values():
            for name, channel in list(topic.channels.items()):
                if link not in channel.takers:
                    continue
                channel.takers.remove(link)
                for number in [n for n, (_, taker) in channel.out.items() if taker is link]:
                    self.again(channel, number)
                if not channel.takers and name.endswith("#ephemeral"):
                    del topic.channels[name]

    def fall(self, *, killed: bool) -> None:
        """Be gone, with what a kill loses."""
        self.up = False
        for topic in self._topics.values():
            for channel in topic.channels.values():
                lost = {number: entry for number, entry in channel.out.items() if killed}
                for number, (_, link) in lost.items():
                    del channel.out[number]
                    link.out -= 1
                if killed and channel.waiting:
                    channel.waiting.popleft()
        for link in list(self._links):
            self.drop(link)
            link.lose(CLOSED)

    def rise(self) -> None:
        """Be there again."""
        self.up = True

    def cut(self, actor: Actor, seconds: float) -> None:
        """Hold up all that goes to and from a process; after a while each side gives up."""
        loop = asyncio.get_running_loop()
        actor.cut_until = max(actor.cut_until, loop.time() + seconds)
        if seconds > HANGS_UP:
            for link in [one for one in self._links if one.actor is actor]:
                loop.call_later(HANGS_UP, self.drop, link)
                loop.call_at(actor.cut_until, link.lose, CLOSED)


class Connection(Link):
    """A connection of the program to the broker of the history."""

    nsqd: Nsqd

    def __init__(self, nsq: Any, changed: asyncio.Event) -> None:
        super().__init__(nsq, changed)
        self.actor = ACTOR.get() or Actor("history")
        self.channel: Channel | None = None
        self.ready = self.out = 0
        self._take: Callable[[Delivery], None] = lambda _delivery: None
        self._there = self._here = 0.0

    async def open(self, place: tuple[str, int], access: Access, **options: Any) -> None:
        """Connect, if the broker is there."""
        del access, options
        self.place = place
        await anyio.sleep(self.nsqd.delay())
        if not self.nsqd.up or self._is_cut():
            self.lose("Connection refused")
            raise LostError(self.lost)
        self.nsqd.connect(self)
        self.actor.on_death.append(lambda: self.nsqd.drop(self))

    def subscribe(self, topic: str, channel: str, take: Callable[[Delivery], None]) -> None:
        """Ask for the messages of a topic."""
        self._take = take
        self._tell(self.nsqd.subscribe, topic, channel, self)

    def make_ready(self, room: int) -> None:
        """Tell how many messages may be out here."""

        def ready() -> None:
            self.ready = room
            if self.channel is not None:
                self.nsqd.pump(self.channel)

        self._tell(ready)

    def settle(self, command: str, *arguments: Any) -> None:
        """Settle a message."""
        if self.lost or self.channel is None:
            return
        act = {"finish": self.nsqd.settle, "requeue": self.nsqd.again}.get(command)
        if act is not None:
            self._tell(act, self.channel, arguments[0])

    async def until_lost(self) -> str:
        """Wait until the link is lost and return why."""
        while not self.lost:
            await self._gone.wait()
        return self.lost

    def publish(self, topic: str, body: bytes) -> None:
        """Send one message."""
        self.flying.append((1, len(body)))
        self._bytes += len(body)

        def arrive() -> None:
            self.nsqd.publish(topic, body)
            self._hear(self._on_response)

        self._tell(arrive)

    def send(self, data: bytes) -> None:
        """Answer the one command that is sent as bytes: the question for the limit."""
        assert data.startswith(b"MPUB"), data
        told = f"E_BAD_MESSAGE MPUB message too big 2147483647 > {LIMIT}"
        self._tell(lambda: self._hear(lambda: self.lose(told)))

    def close(self) -> None:
        """Close the connection."""
        self.lose("closed")
        if not self.actor.dead:
            self.nsqd.drop(self)

    def lose(self, why: str) -> None:
        """Be lost."""
        self._lose(why)

    def hand(self, message: Message) -> None:
        """Bring a message to the program."""
        number, body, attempts = message.id, message.body, message.attempts
        self._hear(lambda: self._take(Delivery(self, Message(body, number, attempts))))

    def _is_cut(self) -> bool:
        return self.actor.cut_until > asyncio.get_running_loop().time()

    def _tell(self, act: Callable[..., None], *given: Any) -> None:
        """Let the broker do something, when this has come there."""
        if self.actor.dead or self.lost:
            return
        loop = asyncio.get_running_loop()
        self._there = max(self._there, loop.time() + self.nsqd.delay(), self.actor.cut_until)
        loop.call_at(self._there, self._if_connected, act, *given)

    def _hear(self, act: Callable[[], None]) -> None:
        """Let the program hear something, when this has come here."""
        loop = asyncio.get_running_loop()
        self._here = max(self._here, loop.time() + self.nsqd.delay(), self.actor.cut_until)
        loop.call_at(self._here, self._if_connected, act)

    def _if_connected(self, act: Callable[..., None], *given: Any) -> None:
        if not (self.lost or self.actor.dead):
            act(*given)
