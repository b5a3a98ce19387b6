"""Where the messages of a fleet go, and what carries them there."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import UsageError
from gpt4batch.fleet.messages import written
from gpt4batch.nsq.consumer import Consumer
from gpt4batch.nsq.link import Access
from gpt4batch.nsq.publisher import Publisher
from gpt4batch.nsq.spool import Backlog, Letter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpt4batch.fleet.messages import Message
    from gpt4batch.settings import Settings, WorkerSettings

log = logging.getLogger(__name__)

ROOM = 1000
"""Messages that may be out at a consumer, unsettled."""
RETRY = 1.0
ADDRESS = re.compile(r"[0-9a-f]{12}")
"""Where a worker is spoken to, as it says."""
WAYS = 8
"""Connections to nsqd over which workers are spoken to."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a fleet, how nsqd is reached, and the clock that messages are dated by."""

    addresses: tuple[str, ...]
    lookup: tuple[str, ...]
    base: str
    access: Access
    clock: Clock = SYSTEM

    @property
    def hellos(self) -> str:
        """Return the topic on which all coordinators speak to all workers."""
        return f"{self.base}.fleet.batches#ephemeral"

    def worker(self, address: str) -> str:
        """Return the topic on which one worker is spoken to."""
        return f"{self.base}.fleet.to.{address}"

    def results(self, batch: str) -> str:
        """Return the topic of a batch's results."""
        return f"{self.base}.fleet.results.{batch}"

    def news(self, batch: str) -> str:
        """Return the topic of the workers' news on a batch."""
        return f"{self.base}.fleet.news.{batch}#ephemeral"

    def publisher(
        self, topic: str, spool: Path | Backlog, say: Callable[[str], None] = log.warning
    ) -> Publisher:
        """Return a publisher to a topic, and have it tell of trouble."""
        return Publisher(self.addresses, topic, spool, access=self.access, on_state=say)

    def consumer(self, topic: str, channel: str) -> Consumer:
        """Return a consumer of a topic."""
        return Consumer(
            self.addresses, topic, channel, room=ROOM, access=self.access, lookup=self.lookup
        )


def topics(settings: Settings | WorkerSettings) -> Topics:
    """Return where messages go by the settings."""
    return Topics(
        tuple(settings.nsqd_tcp_address.split(",")),
        tuple(filter(None, settings.lookupd_http_address.split(","))),
        settings.nsq_topic,
        Access(settings.nsq_tls, settings.nsq_ca, settings.nsq_auth_secret),
    )


class Post:
    """Messages from now on, whether nsqd is there yet or not; `serve` has to run.

    Args:
        topics: How nsqd is reached.
        topic: Where messages go that are for no one worker.
        newest: Keep only so many messages that were not sent yet; 0 keeps all.
        say: Told in a sentence of trouble with nsqd.
    """

    def __init__(
        self,
        topics: Topics,
        topic: str,
        newest: int = 0,
        say: Callable[[str], None] = log.debug,
    ) -> None:
        self._topics = topics
        self._backlog = Backlog(newest)
        self._publisher = topics.publisher(topic, self._backlog, say)
        self._open = False
        self._scope = anyio.CancelScope()

    @property
    def hears(self) -> bool:
        """Tell whether messages reach nsqd at present."""
        return self._open and not self._publisher.trouble

    def say(self, message: Message, worker: str = "") -> None:
        """Send a message, to the address of a worker if there is one, now or later."""
        body = written(message)
        if worker:
            body = Letter(body, self._topics.worker(worker))
        if self._open:
            self._publisher.publish(body)
        else:
            self._backlog.append(body)

    async def serve(self) -> None:
        """Send what is said, until closed."""
        with self._scope:
            while True:
                try:
                    async with self._publisher:
                        self._open = True
                        await anyio.sleep_forever()
                except UsageError as error:
                    log.debug("%s", error)
                    await anyio.sleep(RETRY)
                finally:
                    self._open = False

    async def close(self, patience: float = 0.0) -> None:
        """Send what can be sent within some seconds, and no more."""
        if self.hears and patience:
            await self._publisher.drain(patience)
        self._scope.cancel()


class Posts:
    """Messages to the workers of a fleet; `serve` has to run.

    Over a few connections: nsqd stores the messages of each one after the other. What is said to
    all workers, again and again, goes by `hellos`.

    Args:
        topics: How nsqd is reached.
    """

    def __init__(self, topics: Topics) -> None:
        self.hellos = topics.publisher(topics.hellos, Backlog(newest=1), log.debug)
        self._posts = [Post(topics, topics.hellos, say=self._tell) for _ in range(WAYS)]
        self._told = ""

    @property
    def hears(self) -> bool:
        """Tell whether messages reach nsqd at present."""
        return all(post.hears for post in self._posts)

    def say(self, message: Message, address: str) -> None:
        """Send a message to the address of a worker, now or later."""
        self._posts[int(address, 16) % WAYS].say(message, address)

    def _tell(self, text: str) -> None:
        """Tell of trouble with nsqd once, though all have it."""
        if text != self._told:
            self._told = text
            log.warning(text)

    async def serve(self) -> None:
        """Send what is said, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for post in self._posts:
                tasks.start_soon(post.serve)
