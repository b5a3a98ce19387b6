"""A worker of a fleet: hold lines of every batch that is on and ask for their calls."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from contextlib import AsyncExitStack
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

import anyio

from gpt4batch import disk
from gpt4batch.control import Control
from gpt4batch.dialects.known import dialect_for
from gpt4batch.errors import FatalError, UsageError
from gpt4batch.fleet.desk import Desk
from gpt4batch.fleet.messages import (
    Drop,
    ForeignError,
    Hello,
    Manner,
    Permit,
    Result,
    Task,
    read,
)
from gpt4batch.fleet.topics import Post, topics
from gpt4batch.lines import rawjson
from gpt4batch.service import wiring
from gpt4batch.service.client import Client
from gpt4batch.service.conversation import Conversation
from gpt4batch.service.conversation import Manner as Asked
from gpt4batch.service.pacing import Pacer
from gpt4batch.service.probing import Probing
from gpt4batch.settings import WorkerSettings
from gpt4batch.signals import ENDING, name_of, obeyed
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from anyio.abc import TaskGroup

    from gpt4batch.clock import Clock
    from gpt4batch.fleet.topics import Topics
    from gpt4batch.nsq.consumer import Consumer

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK = 0.05
RETRY = 1.0
SPOOL = ".nsq-spool"
DELIVERY = 7.0
"""Seconds for which another worker may hold our name, to send what our predecessor left."""
PATIENCE = 1.0
"""Seconds that the last news get."""
NEWEST = 50
"""News that are worth sending once nsqd is back: what is missing is in the next whole ones."""


class Worker:
    """Hold lines, as many at a time as there are places.

    Args:
        settings: What to call, and how.
        place: Where messages go, instead of nsqd.
        transport: Sends the requests, instead of sockets.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        place: Topics | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name or socket.gethostname()
        self.id = f"{self.name}-{token_hex(2)}"
        home = f"{socket.gethostname()}\n{self.name}\n{Path(settings.spool_dir).resolve()}"
        self.address = blake2b(home.encode(), digest_size=6).hexdigest()
        self.control = Control()
        self._topics = place or topics(settings)
        self._transport = transport
        self.pacer = Pacer(settings.qps, self.control, clock=self.clock) if settings.qps else None
        self.trouble, self.left, self.busy = "", False, 0
        self._desks: dict[str, Desk] = {}
        self._opening: Counter[str] = Counter()
        """How many open a queue of results of a batch at the moment, its desk or a delivery."""
        self._stopping = anyio.Event()
        self._foreign = 0

    @property
    def clock(self) -> Clock:
        """Return what tells the time."""
        return self._topics.clock

    @property
    def is_stopping(self) -> bool:
        """Tell whether no more lines are taken."""
        return self._stopping.is_set()

    def take_place(self) -> bool:
        """Take one of the places, if there is a free one."""
        free = self.busy < self.settings.goroutine
        self.busy += free
        return free

    def give_place(self) -> None:
        """Give a place back."""
        self.busy -= 1

    async def run(self, *, signals: bool = True) -> int:
        """Work until told to stop; return the exit code.

        Args:
            signals: Obey those that end a run.

        Raises:
            UsageError: A setting is refused.
        """
        async with AsyncExitStack() as stack:
            self._dialect = dialect_for(self.settings)
            token = wiring.first_token(self.settings, self._dialect)
            await self._prepare(stack)
            addresses = wiring.endpoints(self.settings, self._dialect)
            transport = self._transport or wiring.sockets(addresses, self.settings.proxy)
            stack.push_async_callback(transport.aclose)
            self._transport = transport
            self._tokens = wiring.tokens(self.settings, token, transport, self.control, self.clock)
            await self._work(signals=signals)
        return FatalError.exit_code if self.trouble else 0

    async def _prepare(self, stack: AsyncExitStack) -> None:
        """Make the folders, and be the only worker of this name here."""
        settings = self.settings
        path = Path(settings.spool_dir) / f"{self.name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(settings.download_dir).mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - at the start
            patience = anyio.current_time() + DELIVERY
            while not _locked(path, stack):
                if anyio.current_time() < patience:
                    await anyio.sleep(LOOK)
                    continue
                raise UsageError(
                    tr(
                        "another worker named {name} runs here (it holds {path}); choose a --name",
                        name=self.name,
                        path=path,
                    )
                )
        except OSError as error:
            what = error.filename or tr(
                "{name} in --spool-dir {parent}", name=path.name, parent=path.parent
            )
            raise UsageError(
                tr("cannot write {what}: {reason}", what=what, reason=because(error))
            ) from None

    async def _work(self, *, signals: bool) -> None:
        """Work until every line has come to its end, or was given back, after a signal."""
        place = self._topics
        mine = place.consumer(place.worker(self.address), "worker")
        hellos = place.consumer(place.hellos, f"{token_hex(8)}#ephemeral")
        async with mine, hellos, anyio.create_task_group() as aside:
            if signals:
                aside.start_soon(self._obey_signals)
            await self._reach_nsqd()
            # What earlier workers could not send, whatever their name: it is paid for.
            for path in Path(self.settings.spool_dir).glob(f"*{SPOOL}"):  # noqa: ASYNC240 - at the start
                name, _, batch = path.name.removesuffix(SPOOL).rpartition(".")
                aside.start_soon(self._deliver, path, name, batch)
            log.info("worker %s is ready, with %d places", self.id, self.settings.goroutine)
            async with anyio.create_task_group() as lines:
                aside.start_soon(self._hear, hellos, aside)
                lines.start_soon(self._obey, mine, lines)
                await self._stopping.wait()
                await self._end_lines()
                lines.cancel_scope.cancel()
            self.left = True
            while self._desks or self._opening.total():  # noqa: ASYNC110 - a moment, at the end
                await anyio.sleep(LOOK)
            aside.cancel_scope.cancel()

    async def _reach_nsqd(self) -> None:
        """Wait for an nsqd that lets us in: it may start after us."""
        told = ""
        while not self.is_stopping:
            try:
                await self._topics.publisher(self._topics.hellos, Path()).reach()
            except UsageError as error:
                if str(error) != told:
                    log.warning("%s; waiting for it", error)
                told = str(error)
                with anyio.move_on_after(RETRY):
                    await self._stopping.wait()
            else:
                return

    async def _end_lines(self) -> None:
        """Give the lines under way their grace."""
        for desk in self._desks.values():
            desk.control.drain(self.settings.grace)
        with self.control.working():
            self.control.drain(self.settings.grace)
            # A few looks, at the end only.
            while any(desk.is_busy for desk in self._desks.values()):  # noqa: ASYNC110
                await anyio.sleep(LOOK)

    async def _obey_signals(self) -> None:
        with anyio.open_signal_receiver(*obeyed()) as received:
            async for number in received:
                if self.is_stopping and number == signal.SIGHUP:
                    continue  # a terminal that closes may send several
                if self.is_stopping:
                    self.control.cancel()
                log.warning(ENDING, name_of(number), self.settings.grace)
                self.stop()

    def stop(self) -> None:
        """Take no more lines; those under way have their grace."""
        self._stopping.set()

    def fail(self, error: FatalError) -> None:
        """Take no more lines and make no more calls: the account, token or disk does not do."""
        if not self.trouble:
            self.trouble = str(error)
            log.error("stopping: %s", error)
        for desk in self._desks.values():
            desk.control.halt()
        self.stop()

    # -- batches -----------------------------------------------------------------------------

    async def _hear(self, hellos: Consumer, aside: TaskGroup) -> None:
        async for hello in self._read(hellos, Hello):
            if (desk := self._desks.get(hello.batch)) is not None:
                desk.hear(hello)
            elif not (hello.over or self._opening[hello.batch] or self.is_stopping):
                self._opening[hello.batch] += 1
                aside.start_soon(self._serve, hello)

    async def _obey(self, mine: Consumer, lines: TaskGroup) -> None:
        kinds: tuple[type[Task | Permit | Drop], ...] = (Task, Permit, Drop)
        async for message in self._read(mine, *kinds):
            desk = self._desks.get(message.batch)
            if desk is None or message.worker != self.id:
                continue  # it was for the worker that was here before
            if isinstance(message, Task):
                lines.start_soon(self._run, desk, message)
            else:
                desk.obey(message)

    async def _read(self, consumer: Consumer, *kinds: type[T]) -> AsyncIterator[T]:
        """Yield the messages of some kinds; what is none of ours is passed over."""
        async for delivery in consumer:
            delivery.finish()
            try:
                message = read(delivery.body, *kinds)
            except ValueError as error:
                self._note_foreign(error)
            else:
                yield message

    async def _run(self, desk: Desk, task: Task) -> None:
        try:
            await desk.run(task)
        except ForeignError as error:
            self._note_foreign(error)

    def _note_foreign(self, error: Exception) -> None:
        self._foreign += 1
        if self._foreign == 1:
            log.warning("a message that is none of ours is passed over: %s", error)

    async def _serve(self, hello: Hello) -> None:
        """Be at the desk of one batch, from its first hello to its end."""
        place, batch = self._topics, hello.batch
        spool = Path(self.settings.spool_dir) / f"{self.name}.{batch}{SPOOL}"
        results = place.publisher(place.results(batch), spool)
        post = Post(place, place.news(batch), NEWEST)
        try:
            async with results, anyio.create_task_group() as tasks:
                tasks.start_soon(post.serve)
                desk = Desk(self, batch, results, post)
                desk.hear(hello)
                self._desks[batch] = desk
                await desk.live()
                await post.close(PATIENCE)
            _save(results.waiting.unkept())
            shutil.rmtree(self.parcels(batch), ignore_errors=True)
        except UsageError as error:  # nsqd is away; the next hello tries again
            disk.tell_once("%s", error)
        except FatalError as error:
            self.fail(error)
        finally:
            self._opening[batch] -= 1
            self._desks.pop(batch, None)

    async def _deliver(self, path: Path, name: str, batch: str) -> None:
        """Send what an earlier worker could not, unless that one is here.

        For a few seconds at a time: one of its name that starts meanwhile waits for as long.
        """
        left = 1
        while left and not self.is_stopping:
            if name == self.name and self._opening[batch]:
                return  # the desk of the batch has it, and sends it
            self._opening[batch] += 1
            try:
                left = await self._deliver_some(path, name, batch)
            except (OSError, UsageError) as error:  # nsqd is away, or the file is not ours
                log.debug("%s is left as it is: %s", path, error)
            finally:
                self._opening[batch] -= 1
            with anyio.move_on_after(RETRY * bool(left)):
                await self._stopping.wait()

    async def _deliver_some(self, path: Path, name: str, batch: str) -> int:
        """Send what can be sent in a few seconds; return how many messages are left to us."""
        async with AsyncExitStack() as stack:
            if name != self.name and not _locked(path.with_name(f"{name}.lock"), stack):
                return 0
            return await self._topics.publisher(self._topics.results(batch), path).pass_on()

    def parcels(self, batch: str) -> Path:
        """Return the folder for attachments that come along with the lines of a batch."""
        return Path(self.settings.spool_dir) / f"{self.name}.{batch}.files"

    def conversation(self, desk: Desk, hello: Hello, root: Path) -> Conversation:
        """Return what holds the conversations of a batch, with attachments from a folder."""
        settings, manner = self.settings, Manner(**hello.manner)
        addresses, transport = wiring.endpoints(settings, self._dialect), self._transport
        assert transport is not None
        client = Client(
            transport,
            addresses,
            self._tokens,
            desk.permits,
            desk.control,
            retries=manner.retries,
            timeout=manner.timeout,
            before_chat=desk.permits.spend,
            on_retry=desk.permits.note_retry,
            idle_timeout=settings.idle_timeout if settings.stream else float("inf"),
            dialect=self._dialect,
            probing=Probing(desk.control, settings.patience, clock=self.clock),
            clock=self.clock,
        )
        downloads = None
        if manner.downloads and self._dialect.linked:
            folder = Path(settings.download_dir)
            downloads = wiring.downloads(
                folder, settings, addresses, transport, desk.control, self.clock
            )
            downloads.prepare(chosen=True)
        asked = Asked(root, manner.options)
        return Conversation(client, downloads, asked, desk.keep, clock=self.clock)


def _save(messages: list[bytes]) -> None:
    """Write to standard error what is nowhere else: records that no file and no nsqd has taken."""
    for body in messages:
        if record := read(body, Result).record:
            sys.stderr.buffer.write(rawjson.escaped_controls(record) + b"\n")
    sys.stderr.buffer.flush()


def _locked(path: Path, stack: AsyncExitStack) -> bool:
    """Take a lock until the stack is left; return False where another process has it."""
    descriptor = disk.open_lock(path)
    if disk.lock(descriptor) is False:
        os.close(descriptor)
        return False
    stack.callback(os.close, descriptor)
    return True
