"""The coordinator of a fleet: lines go out to workers, each call is granted, results come in.

What is true is in the journal; nsqd only carries. Workers hold lines and ask for every call. A call
that is granted is noted before it may leave, its result waits at nsqd until the log is on the disk
with it, and a line whose call is not out can move at any time. Who decides is the `Table`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from gpt4batch.control import Stopped
from gpt4batch.dialects.limits import Limits, Window
from gpt4batch.errors import CallError, FatalError
from gpt4batch.fleet.inline_files import packed
from gpt4batch.fleet.intake import Intake
from gpt4batch.fleet.messages import (
    Drop,
    ForeignError,
    Hello,
    News,
    Result,
    Task,
    Word,
    read,
    word,
    written,
)
from gpt4batch.fleet.permits import Permits
from gpt4batch.fleet.purse import Purse
from gpt4batch.fleet.table import Row, Table
from gpt4batch.fleet.topics import ADDRESS, Posts, Topics
from gpt4batch.service.conversation import Outcome
from gpt4batch.service.counters import CallStats
from gpt4batch.words import heard, tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup

    from gpt4batch.fleet.epoch import Book
    from gpt4batch.fleet.plan import Lines, Plan
    from gpt4batch.journal.in_flight import InFlight
    from gpt4batch.lines.parse import Line
    from gpt4batch.nsq.consumer import Consumer
    from gpt4batch.nsq.link import Delivery
    from gpt4batch.service.pacing import Pacer

log = logging.getLogger(__name__)

TAKEN_OVER = tr(
    "another coordinator has taken this batch over (a copy of the folder, or this one was thought "
    "dead); the answers so far are in the output"
)

BEAT = 0.5
"""Seconds between two words of a coordinator, and of a worker."""
COLLECTING = 1.5
"""Seconds that a coordinator listens before it hands out what its predecessor may have."""
ALONE = 10.0
"""Seconds after which the lack of workers is worth a word."""
MOST_OUT = 4096
"""Lines that are in hand at a time."""

T = TypeVar("T")


class Fleet:
    """Hold conversations by way of workers elsewhere.

    An async context manager; `serve` has to run meanwhile.

    Args:
        book: The batch, the epoch, and what earlier coordinators granted.
        plan: What is asked of the workers.
        topics: Where messages go.
        lines: The batch's lines.
        pacer: Lets calls go: the one pace of the whole fleet.
        in_flight: Is told of the calls that are out.
    """

    def __init__(
        self,
        book: Book,
        plan: Plan,
        topics: Topics,
        lines: Lines,
        pacer: Pacer,
        in_flight: InFlight,
    ) -> None:
        self._life = token_hex(3)
        self.table = Table(f"{book.epoch}.{self._life}", plan.rate, plan.lease)
        self.seen: set[str] = set()
        self.foreign = 0
        purse = Purse(plan.allowance, lines.line)
        self._intake = Intake(self.table, book, lines, self._wake_line, purse)
        self._book, self._plan, self._topics, self._lines = book, plan, topics, lines
        self._control, self._pacer = lines.control, pacer
        self._posts = Posts(topics)
        self._permits = Permits(
            self.table,
            self._intake,
            book,
            in_flight,
            pacer,
            lines.control,
            most=plan.max_calls,
            paced=plan.rate > 0,
            clock=topics.clock,
            posts=self._posts,
            purse=purse,
        )
        self._waits: dict[int, anyio.Event] = {}
        self._changed, self._collected = anyio.Event(), anyio.Event()
        self._result_at = 0.0
        self._trouble = ""

    async def __aenter__(self) -> Self:
        await self._posts.hellos.__aenter__()
        self._book.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._posts.hellos.publish(written(self._hello(over=True)))
        try:
            await self._posts.hellos.aclose()
        finally:
            done = all(map(self._lines.settled, range(len(self._lines))))
            self._book.close(done=done)

    # -- the lines ---------------------------------------------------------------------------

    async def hold(self, line: Line) -> Outcome:
        """Have a line run by a worker and return what came of it."""
        await self._collected.wait()
        index = line.index
        if self._control.draining:
            raise Stopped
        self._intake.row(index, line)
        self._waits[index] = anyio.Event()
        try:
            if not self.table.offer(index, line.answered).ended:
                self._wake()
                await self._waits[index].wait()
            outcome = self._intake.outcomes.pop(index, None)
        finally:
            del self._waits[index]
            if not self.table.rows[index].ended:
                self.table.withdraw(index)
        if outcome is None:
            raise Stopped
        if outcome.line.answered >= 0:
            outcome.line = line
        return outcome

    def safe(self, index: int) -> None:
        """Let nsqd and the worker forget a result: the log has it."""
        self._intake.safe(index)
        self._wake()

    def _wake_line(self, index: int) -> None:
        if (event := self._waits.get(index)) is not None:
            event.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _news(self) -> None:
        """Wait until something has changed, or for a moment."""
        with anyio.move_on_after(BEAT / 2):
            await self._changed.wait()

    # -- all that runs -----------------------------------------------------------------------

    async def serve(self) -> None:
        """Take in what comes, hand out lines and grant calls, until cancelled."""
        topics, batch = self._topics, self._book.batch
        own = f"{self._life}#ephemeral"
        async with (
            topics.consumer(topics.results(batch), "coordinator") as results,
            topics.consumer(topics.news(batch), own) as news,
            topics.consumer(topics.hellos, own) as hellos,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._posts.serve)
            tasks.start_soon(self._read, results, Result, self._take_result)
            tasks.start_soon(self._read, news, News, self._take_news)
            tasks.start_soon(self._read, hellos, Hello, self._take_hello)
            tasks.start_soon(self._decide, tasks)
            tasks.start_soon(self._book.keep_synced)
            try:
                await self._beat(news)
            finally:
                self._intake.forget()

    async def _read(
        self, consumer: Consumer, kind: type[T], take: Callable[[T, Delivery], Awaitable[None]]
    ) -> None:
        """Take in the messages of a topic; what is not ours is passed over and counted."""
        async for delivery in consumer:
            try:
                await take(read(delivery.body, kind), delivery)
            except ValueError as error:
                delivery.finish()
                self.foreign += 1
                if self.foreign == 1:
                    log.warning("a message that is none of this batch is passed over: %s", error)
            except FatalError as error:
                self._control.halt(error)  # nsqd keeps a result for the next run
            self._wake()

    async def _beat(self, news: Consumer) -> None:
        began = last = self._topics.clock.monotonic()
        while True:
            now = self._topics.clock.monotonic()
            if not self._posts.hellos.left and news.connected:
                self._permits.steady += min(
                    now - last, 2 * BEAT
                )  # nsqd hears us: silence means something
            last = now
            self._posts.hellos.publish(written(self._hello()))
            if not self._collected.is_set():
                quiet = now - max(self._result_at, began) >= COLLECTING
                if self._book.epoch == 1 or (quiet and self._permits.steady >= COLLECTING):
                    self._collected.set()
            await self._watch(now - began)
            self._intake.forget()
            await anyio.sleep(BEAT)

    async def _watch(self, passed: float) -> None:
        """Look for workers that are gone, or only fail, and for lines that wait in vain."""
        table = self.table
        for name in table.silent(self._permits.steady):
            log.warning("worker %s is gone; its lines go to others", name)
        table.bench(self._permits.steady)
        self._intake.give_up()
        if not table.members and table.rows and passed % ALONE < BEAT and passed > ALONE:
            where = ",".join(self._topics.addresses)
            log.warning("no worker is here; start: gpt4batch worksvc --nsqd-tcp-address %s", where)
        if self._trouble and all(member.news.leaving for member in table.members.values()):
            text = tr("no worker is left; the last one said: {trouble}", trouble=self._trouble)
            self._control.halt(FatalError(text))
        self._wake()

    # -- what comes in -----------------------------------------------------------------------

    async def _take_result(self, result: Result, delivery: Delivery) -> None:
        self._result_at = self._topics.clock.monotonic()
        if result.batch != self._book.batch:
            raise ForeignError(tr("it is of batch {batch}", batch=result.batch))
        await self._intake.take(result, delivery)

    async def _take_hello(self, hello: Hello, delivery: Delivery) -> None:
        delivery.finish()
        rival = (hello.epoch, hello.life) > (self._book.epoch, self._life)
        if hello.batch == self._book.batch and rival and not hello.over:
            raise FatalError(TAKEN_OVER)

    async def _take_news(self, news: News, delivery: Delivery) -> None:
        delivery.finish()
        if news.batch != self._book.batch:
            raise ForeignError(tr("it is of batch {batch}", batch=news.batch))
        if not ADDRESS.fullmatch(news.topic):
            raise ForeignError(tr("{name} is not as it should be", name="topic"))
        words = {int(index): word(entry) for index, entry in news.lines.items()}
        self._expect(words)
        self._intake.tally(news.worker, news.tally)
        if self.table.hear(news, words, self._permits.steady, self._topics.clock.monotonic()):
            log.info("worker %s is here, with %d places", news.worker, news.places)
            self.seen.add(news.worker)
        if news.trouble:
            self._trouble = self.table.health.left_out[news.worker] = heard(news.trouble[0])
        if news.limits:
            requests, tokens = (tuple(Window(*one) for one in kind) for kind in news.limits)
            self._pacer.limits(Limits(requests, tokens))

    def _expect(self, words: dict[int, Word]) -> None:
        """Take in the lines that workers have from an earlier coordinator."""
        for index, said in words.items():
            if index not in self.table.rows and 0 <= index < len(self._lines):
                line = self._lines.line(index)
                if not self._lines.settled(index) and line.key.hex() == said.key:
                    self._intake.row(index, line)

    # -- what goes out -----------------------------------------------------------------------

    async def _decide(self, tasks: TaskGroup) -> None:
        """Hand out lines, and tell the workers which to forget, whenever something has changed."""
        await self._collected.wait()
        tasks.start_soon(self._permits.serve, self._news)
        while True:
            self._permits.settle()
            if self._control.draining:
                self._withdraw()
            else:
                for row in self.table.assign(self._permits.steady):
                    await self._hand_out(row)
            for worker, index, run in self.table.drops:
                if (member := self.table.members.get(worker)) is not None:
                    drop = Drop(batch=self._book.batch, worker=worker, line=index, run=run)
                    self._posts.say(drop, member.news.topic)
            self.table.drops.clear()
            await self._news()

    def _withdraw(self) -> None:
        """Leave the lines that have no call out, and those that have not begun."""
        for index in self._waits:
            row = self.table.rows[index]
            if not row.ended and not row.out and (self._control.halted or not row.begun):
                row.asks = False  # nor is its call granted before it is gone
                self._wake_line(index)

    async def _hand_out(self, row: Row) -> None:
        """Send a line, with its newest record, to the worker that it was given to."""
        run, line = row.run, self._lines.line(row.index)
        task = _task(self._plan, self._book.batch, row, line)
        body = written(task)
        if not await self._posts.hellos.fits(body):
            limit = self._posts.hellos.limit
            text = tr(
                "the line has {count} bytes, more than nsqd takes (--max-msg-size {limit})",
                count=len(body),
                limit=limit,
            )
            self._intake.fail(row, failed(line, CallError(text, stage="fleet")))
        elif row.run == run:
            self._posts.say(task, self.table.members[row.worker].news.topic)

    def _hello(self, *, over: bool = False) -> Hello:
        manner, book = asdict(self._plan.manner), self._book
        return Hello(batch=book.batch, epoch=book.epoch, life=self._life, manner=manner, over=over)

    # -- what is told ------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """Return the lines that the workers can run at a time."""
        return sum(member.news.places for member in self.table.members.values())

    def stats(self) -> CallStats:
        """Return what the workers tell of calls and files, and the calls that are out."""
        counts, out = self._intake.counts, self.table.out
        self._permits.tell_left()
        longest = max((m.news.longest for m in self.table.members.values()), default=0.0)
        return CallStats(
            calls=self._intake.chats + counts["uploads"] + out,
            in_flight=out,
            longest=longest,
            uploads=counts["uploads"],
            unanswered=counts["unanswered"],
            downloads=counts["downloads"],
            download_bytes=counts["download_bytes"],
        )

    def totals(self) -> dict[str, Any]:
        """Return what the summary says of the fleet."""
        counts = self._book.counts
        told = {name: counts[name] for name in ("asked_again", "paid_twice")}
        told |= {"workers": len(self.seen), "foreign": self.foreign}
        return {**told, "left_out": dict(self.table.health.left_out)}


def _task(plan: Plan, batch: str, row: Row, line: Line) -> Task:
    return Task(
        batch=batch,
        worker=row.worker,
        seq=row.seq,
        line=row.index,
        key=line.key.hex(),
        run=row.run,
        number=line.number,
        fresh=not (line.answered or line.error or line.meta),
        files=packed(plan.folder, line, plan.inline) if plan.inline else [],
        record=line.raw.rstrip(),
    )


def failed(line: Line, error: CallError) -> Outcome:
    """Return the outcome of a line that could not be run."""
    return Outcome(line, line.answers(), error, published=max(0, line.answered))
