"""A worker of a fleet: take lines from nsqd, run them, hand the results in."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import anyio
from filelock import FileLock, Timeout

from gpt4batch.control import Control, Stopped
from gpt4batch.dialects.known import dialect_for
from gpt4batch.errors import AttachmentError, CallError, FatalError, OutputError, UsageError
from gpt4batch.fleet import messages
from gpt4batch.fleet.coordinator import BEAT, FRESH, Exchange, exchange, failed
from gpt4batch.fleet.inline_files import unpacked
from gpt4batch.fleet.messages import Beacon, ForeignError, Report, Result, Task, read, written
from gpt4batch.fleet.slots import Clock, Slots, tolerance
from gpt4batch.lines.parse import BadLine, parse_line
from gpt4batch.nsq.consumer import MSG_TIMEOUT, Consumer
from gpt4batch.nsq.publisher import Publisher
from gpt4batch.nsq.spool import Backlog
from gpt4batch.service import wiring
from gpt4batch.service.client import Client
from gpt4batch.service.conversation import Conversation, Manner, Outcome
from gpt4batch.service.pacing import Pacer
from gpt4batch.service.probing import Probing
from gpt4batch.settings import WorkerSettings
from gpt4batch.signals import obeyed

if TYPE_CHECKING:
    from gpt4batch.dialects.limits import Limits
    from gpt4batch.lines.parse import Line
    from gpt4batch.nsq.link import Delivery

log = logging.getLogger(__name__)

TOUCH = MSG_TIMEOUT / 3
HELD = 600.0
"""Seconds after which nsqd may forget a task: it takes no more TOUCH after 15 minutes.

From then on the line is kept alive by the reports alone.
"""
PATIENCE = 10.0
"""Seconds that a task waits for a coordinator that has fallen silent."""
LATER = 30.0
"""Seconds after which such a task is looked at again."""
RESENT = 10.0
"""Seconds after which a result that the coordinator does not seem to have is sent again."""
IDLE = 60.0
"""Seconds of silence after which a batch is put away."""
LEAST_GAP = 0.05


@dataclass(slots=True)
class Go:
    """One go at a line."""

    line: int
    key: str
    seq: int
    run: str
    chats: int = 0
    retries: int = 0
    counts: dict[str, int] = field(default_factory=dict)


GO: ContextVar[Go] = ContextVar("GO")
"""The go that a call is made for."""


@dataclass(slots=True)
class Held:
    """A result that the coordinator may not have yet."""

    go: Go
    body: bytes
    sent: float


class Turns:
    """The pace of one batch at this worker: the fleet's slots, and this worker's own limit."""

    def __init__(self, desk: Desk, own: Pacer) -> None:
        self._desk = desk
        self._own = own
        self._turn = anyio.Lock(fast_acquire=True)
        self._held_until = 0.0
        self.slots = Slots()
        self.waiting = self.succeeded = self.limited = 0

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call, `new` if a line's first; return when it may leave."""
        with self._desk.control.waiting(new=new):
            self.waiting += 1
            try:
                async with self._turn:
                    await self._own.wait(new=new)
                    await self._pass()
            finally:
                self.waiting -= 1
        return time.monotonic()

    async def _pass(self) -> None:
        desk = self._desk
        while True:
            await anyio.sleep(max(0.0, self._held_until - time.monotonic()))
            if desk.may_call() and (not desk.rate or await self._reach_slot()):
                return
            if not desk.may_call() or desk.rate:
                await desk.next_beacon()

    async def _reach_slot(self) -> bool:
        """Wait for the next slot of ours; tell whether there was one, and we were there on time."""
        desk = self._desk
        while (now := desk.now()) is not None:
            moment = self.slots.take(now)
            if moment is None:
                return False
            await anyio.sleep(max(0.0, moment - now))
            late = (desk.now() or moment) - moment
            if late <= tolerance(desk.rate) and desk.may_call():
                return True
        return False

    def slow_down(self, sent: float, after: float | None) -> None:
        """Take note of a 429; the coordinator hears of it and slows all workers down."""
        self.limited += 1
        self._held_until = max(self._held_until, time.monotonic() + (after or 0.0))
        if not self._desk.rate:
            self._own.slow_down(sent, after)

    def crowded(self, sent: float) -> None:
        """Take note of a refusal that may come of too many calls at a time."""
        self._own.crowded(sent)

    def speed_up(self) -> None:
        """Take note of a success."""
        self.succeeded += 1
        self._own.speed_up()

    def done(self) -> None:
        """Take note that a call that left has come to its end."""
        self._own.done()

    def limits(self, limits: Limits) -> None:
        """Take note of the limits that the headers of a reply name."""
        self._own.limits(limits)


class Desk:
    """One batch at this worker: what its coordinator says, and the lines under way."""

    def __init__(self, worker: Worker, batch: str, results: Publisher, reports: Publisher) -> None:
        self.batch = batch
        self.control = Control()
        self.goes: dict[int, Go] = {}
        self.held: dict[int, Held] = {}
        self.results = results
        self.rate = 0.0
        self.chats = 0
        self.errors: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._worker = worker
        self._reports = reports
        self._beacon: Beacon | None = None
        self._heard = time.monotonic()
        self._clock = Clock()
        self._changed = anyio.Event()
        self._news = anyio.Event()
        self.turns = Turns(self, worker.pacer)

    # -- what the coordinator says -----------------------------------------------------------

    def hear(self, beacon: Beacon) -> None:
        """Take in a beacon."""
        before, now = self._beacon, time.monotonic()
        if before is None:
            self._equip(beacon)
        elif (beacon.epoch, beacon.now) <= (before.epoch, before.now):
            return  # overtaken by a newer one
        if before is None or beacon.epoch != before.epoch:
            self._clock = Clock()
            self.turns.slots.forget()
        self._beacon, self._heard, self.rate = beacon, now, beacon.rate
        self._keep_time(beacon, now)
        if beacon.phase == messages.OVER:
            self.control.halt()
        if beacon.phase == messages.RUN:
            self._look_after_results(beacon)
        self._changed.set()
        self._changed = anyio.Event()

    def _equip(self, beacon: Beacon) -> None:
        worker, folder = self._worker, self._worker.parcels(self.batch)
        self.conversation = worker.conversation(self, beacon, Path(worker.settings.files_root))
        self.with_parcels = worker.conversation(self, beacon, folder)

    def _keep_time(self, beacon: Beacon, now: float) -> None:
        me = self._worker.id
        if echo := beacon.echo.get(me):
            self._clock.learn(echo[0], echo[1], beacon.now, now)
        if me in beacon.workers:
            self.turns.slots.learn(beacon.rate, beacon.slots, beacon.workers.index(me))

    def _look_after_results(self, beacon: Beacon) -> None:
        """Forget the results that the coordinator has, and send again what it seems to miss."""
        now = time.monotonic()
        for index, held in list(self.held.items()):
            if str(index) not in beacon.lines:
                if held.go.seq <= beacon.seq:
                    del self.held[index]
            elif now - held.sent > RESENT:
                held.sent = now
                self.results.publish(held.body)

    async def next_beacon(self) -> None:
        """Wait until there is news."""
        await self._changed.wait()

    def now(self) -> float | None:
        """Return the time by the coordinator's clock, where it is known."""
        ahead = self._clock.ahead
        return None if ahead is None else time.monotonic() + ahead

    @property
    def longest(self) -> float:
        """Return how long the oldest call in flight has been waiting."""
        if self._beacon is None:
            return 0.0
        return max(held.stats().longest for held in (self.conversation, self.with_parcels))

    @property
    def fresh(self) -> bool:
        """Tell whether what the coordinator said last still holds."""
        if self._beacon is None:
            return False
        now = self.now()
        age = time.monotonic() - self._heard if now is None else now - self._beacon.now
        return age < FRESH

    def may_call(self) -> bool:
        """Tell whether a call may be made, if it has its turn."""
        if self._beacon is None or not self.fresh:
            return False
        permits = self._beacon.permits
        return permits is None or self.chats < permits.get(self._worker.id, 0)

    def spend(self) -> None:
        """Count a chat."""
        permits = self._beacon.permits if self._beacon else None
        if permits is not None and self.chats >= permits.get(self._worker.id, 0):
            raise Stopped  # another call was faster; the line goes back
        self.chats += 1
        GO.get().chats += 1

    def note_retry(self, error: CallError, _delay: float) -> None:
        """Count a failed attempt that is tried again."""
        self.errors[type(error).__name__] += 1
        GO.get().retries += 1

    # -- tasks -------------------------------------------------------------------------------

    async def wants(self, task: Task) -> bool | None:
        """Tell whether a task is to be run here and now; None where nobody says."""
        with anyio.move_on_after(PATIENCE):
            while not (self.fresh and self._beacon and self._beacon.epoch >= task.epoch):
                await self.next_beacon()
            return self._judge(task, self._beacon)
        return None

    def _judge(self, task: Task, beacon: Beacon) -> bool:
        if task.epoch < beacon.epoch or self.control.halted or task.line in self.goes:
            return False
        if (held := self.held.get(task.line)) and held.go.key == task.key:
            self.results.publish(held.body)
            return False
        if task.seq > beacon.seq:
            return True
        seq, owner = beacon.lines.get(str(task.line), (0, ""))
        return bool(seq == task.seq and owner in ("", self._worker.id))

    async def run(self, task: Task) -> None:
        """Run a line and hand in what comes of it.

        Raises:
            FatalError: This worker cannot go on; the line is given back.
        """
        line = _line_of(task)
        go = Go(task.line, task.key, task.seq, token_hex(4))
        GO.set(go)
        self.goes[go.line] = go
        self._news.set()
        outcome: Outcome | None = None
        try:
            outcome = await self._conversation(task).hold(line)
        except AttachmentError as error:
            outcome = failed(line, error)
        except Stopped:
            pass
        finally:
            # Also when this is cancelled: the coordinator has to know.
            self._count_up(go)
            if outcome is None:
                self._hand_in(go, messages.BACK, None)
            del self.goes[go.line]
        if outcome is not None:
            await self._finish(go, outcome)
        await self.results.settled()

    def _conversation(self, task: Task) -> Conversation:
        """Return what holds a line's conversation, with the files that came along with it."""
        if not task.files:
            return self.conversation
        folder = self._worker.parcels(self.batch)
        try:
            unpacked(folder, task.files)
        except OSError as error:
            raise OutputError(f"cannot write in {folder}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise AttachmentError(f"an attachment that came along is none: {error}") from error
        return self.with_parcels

    async def _finish(self, go: Go, outcome: Outcome) -> None:
        if isinstance(outcome.error, AttachmentError):
            outcome.error = _named(outcome.error, self._worker.name)
        body = self._body(go, messages.FINAL, outcome)
        if not await self.results.fits(body):
            outcome = self._too_big(outcome, body)
            body = self._body(go, messages.FINAL, outcome)
        self.held[go.line] = Held(go, body, time.monotonic())
        self.results.publish(body)

    def _too_big(self, outcome: Outcome, body: bytes) -> Outcome:
        """Put a result aside that nsqd does not take, and return the failure that says so."""
        self.results.publish(body)
        text = (
            f"the answers have {len(body)} bytes, more than nsqd takes (--max-msg-size "
            f"{self.results.limit}); worker {self._worker.name} keeps them in its spool"
        )
        return Outcome(outcome.line, [], CallError(text, stage="fleet"))

    def _count_up(self, go: Go) -> None:
        """Let the end of this go tell what was done since the last one that told."""
        done = self._done()
        go.counts = dict(done - self._told)
        self._told = done

    def _done(self) -> Counter[str]:
        """Return what was counted of the batch here, whichever folder its files came from."""
        done: Counter[str] = Counter()
        for conversation in (self.conversation, self.with_parcels):
            stats = conversation.stats()
            done.update({name: getattr(stats, name) for name in messages.COUNTED})
        return done

    async def keep(self, outcome: Outcome) -> None:
        """Hand in a line that is half-way."""
        self._hand_in(self.goes[outcome.line.index], messages.PART, outcome)

    def _hand_in(self, go: Go, kind: str, outcome: Outcome | None) -> None:
        self.results.publish(self._body(go, kind, outcome))

    def _body(self, go: Go, kind: str, outcome: Outcome | None) -> bytes:
        doc, texts = messages.packed(outcome) if outcome else ({}, [])
        return written(
            Result(
                batch=self.batch,
                line=go.line,
                key=go.key,
                worker=self._worker.id,
                run=go.run,
                kind=kind,
                chats=go.chats,
                retries=go.retries,
                counts=go.counts,
                outcome=doc,
                texts=texts,
            )
        )

    # -- reports -----------------------------------------------------------------------------

    async def live(self) -> None:
        """Report until the batch is over and all that is known of it is handed in."""
        while not self._is_over():
            self._report()
            await anyio.sleep(LEAST_GAP)
            with anyio.move_on_after(BEAT - LEAST_GAP):
                await self._news.wait()
            self._news = anyio.Event()
        self._report(leaving=True)

    def _is_over(self) -> bool:
        if self.goes:
            return False
        if self._worker.left:
            return True
        silent = time.monotonic() - self._heard > IDLE
        return (silent or self.control.halted) and self.results.left == 0

    def _report(self, *, leaving: bool = False) -> None:
        goes = [*self.goes.values(), *(held.go for held in self.held.values())]
        worker = self._worker
        report = Report(
            batch=self.batch,
            worker=worker.id,
            places=worker.settings.goroutine,
            free=worker.free,
            lines={str(go.line): [go.key, go.run] for go in goes},
            waiting=self.turns.waiting,
            chats=self.chats,
            succeeded=self.turns.succeeded,
            limited=self.turns.limited,
            errors=dict(self.errors),
            longest=self.longest,
            trouble=worker.trouble,
            leaving=leaving,
            now=time.monotonic(),
        )
        self._reports.publish(written(report))


class Worker:
    """Take lines of every batch that is on, as many at a time as there are places."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.name = settings.name or socket.gethostname()
        self.id = f"{self.name}-{token_hex(2)}"
        self.control = Control()
        self.pacer = Pacer(settings.qps, self.control)
        self.trouble: list[str] = []
        self.left = False
        self._place: Exchange = exchange(settings)
        self._desks: dict[str, Desk] = {}
        self._opening: set[str] = set()
        self._opened = anyio.Event()
        self._deliveries: set[Delivery] = set()
        self._places = anyio.CapacityLimiter(settings.goroutine)
        self._stopping = anyio.Event()
        self._foreign = 0

    @property
    def free(self) -> int:
        """Return how many more lines could run."""
        return 0 if self._stopping.is_set() else int(self._places.available_tokens)

    async def run(self) -> int:
        """Work until told to stop; return the exit code.

        Raises:
            UsageError: A setting is refused, or nsqd does not answer.
        """
        async with AsyncExitStack() as stack:
            self._dialect = dialect_for(self.settings)
            token = wiring.first_token(self.settings, self._dialect)
            self._lock(stack)
            addresses = wiring.endpoints(self.settings, self._dialect)
            self._transport = wiring.sockets(addresses, self.settings.proxy)
            stack.push_async_callback(self._transport.aclose)
            self._tokens = wiring.tokens(self.settings, token, self._transport, self.control)
            await self._try_nsqd()
            await self._work()
        return FatalError.exit_code if self.trouble else 0

    def _lock(self, stack: AsyncExitStack) -> None:
        path = Path(self.settings.spool_dir) / f"{self.name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(self.settings.download_dir).mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path, timeout=0).acquire())
        except Timeout:
            raise UsageError(
                f"another worker named {self.name} runs here (it holds {path}); choose a --name"
            ) from None
        except OSError as error:
            what = error.filename or f"{path.name} in --spool-dir {path.parent}"
            raise UsageError(f"cannot write {what}: {error.strerror}") from None

    async def _try_nsqd(self) -> None:
        place = self._place
        async with Publisher(place.addresses, place.control, Backlog(), access=place.access):
            pass

    async def _work(self) -> None:
        place, settings = self._place, self.settings
        access, lookup = place.access, place.lookup
        tasks = Consumer(
            place.addresses,
            place.tasks,
            "workers",
            room=settings.goroutine,
            access=access,
            lookup=lookup,
        )
        control = Consumer(
            place.addresses,
            place.control,
            f"{token_hex(8)}#ephemeral",
            room=100,
            access=access,
            lookup=lookup,
        )
        async with tasks, control, anyio.create_task_group() as aside:
            aside.start_soon(self._obey_signals)
            aside.start_soon(self._touch)
            aside.start_soon(self._hear, control, aside)
            self._deliver_leftovers(aside)
            log.info("worker %s is ready, with %d places", self.id, settings.goroutine)
            async with anyio.create_task_group() as goes:
                aside.start_soon(self._stop_later, tasks, goes)
                goes.start_soon(self._take, tasks, goes)
            self.left = True
            while self._desks or self._opening:  # noqa: ASYNC110 - a moment, at the end
                await anyio.sleep(LEAST_GAP)
            aside.cancel_scope.cancel()

    async def _obey_signals(self) -> None:
        with anyio.open_signal_receiver(*obeyed()) as received:
            async for number in received:
                if self._stopping.is_set() and number == signal.SIGHUP:
                    continue  # a terminal that closes may send several
                if self._stopping.is_set():
                    self.control.cancel()
                log.warning(
                    "%s: no new lines; those under way have %g s (again to stop at once)",
                    signal.Signals(number).name,
                    self.settings.grace,
                )
                self._stopping.set()

    async def _stop_later(self, tasks: Consumer, goes: anyio.abc.TaskGroup) -> None:
        await self._stopping.wait()
        tasks.make_room(0)
        for desk in self._desks.values():
            desk.control.drain(self.settings.grace)
        with self.control.working():
            self.control.drain(self.settings.grace)
            # A few looks, at the end only.
            while any(desk.goes for desk in self._desks.values()):  # noqa: ASYNC110
                await anyio.sleep(LEAST_GAP)
        goes.cancel_scope.cancel()

    async def _touch(self) -> None:
        while True:
            await anyio.sleep(TOUCH)
            for delivery in list(self._deliveries):
                if time.monotonic() - delivery.since < HELD:
                    delivery.touch()
                else:
                    delivery.finish()
                    self._deliveries.discard(delivery)

    # -- batches -----------------------------------------------------------------------------

    async def _hear(self, control: Consumer, tasks: anyio.abc.TaskGroup) -> None:
        async for delivery in control:
            delivery.finish()
            try:
                beacon = read(Beacon, delivery.body)
                desk = self._desks.get(beacon.batch)
                if desk is not None:
                    desk.hear(beacon)
                elif beacon.phase != messages.OVER:
                    self._open(beacon.batch, tasks)
            except (ValueError, TypeError, LookupError) as error:
                self._note_foreign(error)

    def _open(self, batch: str, tasks: anyio.abc.TaskGroup) -> None:
        if batch not in self._opening and batch not in self._desks and not self.left:
            self._opening.add(batch)
            tasks.start_soon(self._serve, batch)

    def _deliver_leftovers(self, tasks: anyio.abc.TaskGroup) -> None:
        """Send what an earlier worker of this name could not."""
        for path in Path(self.settings.spool_dir).glob(f"{self.name}.*.nsq-spool"):
            batch = path.name.removesuffix(".nsq-spool").rpartition(".")[2]
            self._open(batch, tasks)

    async def _serve(self, batch: str) -> None:
        place = self._place
        spool = Path(self.settings.spool_dir) / f"{self.name}.{batch}.nsq-spool"
        results = Publisher(place.addresses, place.results(batch), spool, access=place.access)
        reports = Publisher(
            place.addresses,
            place.reports(batch),
            Backlog(newest=1),
            access=place.access,
            on_state=log.debug,
        )
        try:
            async with results, reports:
                desk = self._desks[batch] = Desk(self, batch, results, reports)
                self._opening.discard(batch)
                self._opened.set()
                self._opened = anyio.Event()
                await desk.live()
                del self._desks[batch]
            shutil.rmtree(self.parcels(batch), ignore_errors=True)
        except UsageError as error:  # nsqd is away; the next beacon tries again
            log.warning("%s", error)
        finally:
            self._opening.discard(batch)

    def parcels(self, batch: str) -> Path:
        """Return the folder for attachments that come along with the lines of a batch."""
        return Path(self.settings.spool_dir) / f"{self.name}.{batch}.files"

    def conversation(self, desk: Desk, beacon: Beacon, root: Path) -> Conversation:
        """Return what holds the conversations of a batch, with attachments from a folder."""
        settings, manner = self.settings, messages.Manner(**beacon.manner)
        addresses = wiring.endpoints(settings, self._dialect)
        client = Client(
            self._transport,
            addresses,
            self._tokens,
            desk.turns,
            desk.control,
            retries=manner.retries,
            timeout=manner.timeout,
            before_chat=desk.spend,
            on_retry=desk.note_retry,
            idle_timeout=settings.idle_timeout if settings.stream else float("inf"),
            dialect=self._dialect,
            probing=Probing(desk.control, settings.patience),
        )
        downloads = None
        if manner.downloads and self._dialect.linked:
            folder = Path(settings.download_dir)
            downloads = wiring.downloads(folder, settings, addresses, self._transport, desk.control)
            downloads.prepare(chosen=True)
        asked = Manner(root, manner.options)
        return Conversation(client, downloads, asked, desk.keep)

    # -- lines -------------------------------------------------------------------------------

    async def _take(self, tasks: Consumer, goes: anyio.abc.TaskGroup) -> None:
        async for delivery in tasks:
            goes.start_soon(self._go, delivery)

    async def _go(self, delivery: Delivery) -> None:
        self._deliveries.add(delivery)
        delay: float | None = 0.0
        try:
            async with self._places:
                delay = await self._run(delivery)
        except ValueError as error:
            self._note_foreign(error)
            delay = None
        except FatalError as error:
            self._fail(error)
            delay = None
        finally:
            self._deliveries.discard(delivery)
            if delay is None:
                delivery.finish()
            else:
                delivery.give_back(delay)

    async def _run(self, delivery: Delivery) -> float | None:
        """Run the line of a task; return in how many seconds nsqd shall hand it out again."""
        task = read(Task, delivery.body)
        desk = await self._desk(task.batch)
        wanted = await desk.wants(task) if desk else None
        if desk is None or wanted is None:
            return LATER
        if wanted and self._stopping.is_set():
            return 0.0
        if wanted:
            await desk.run(task)
        return None

    async def _desk(self, batch: str) -> Desk | None:
        """Return a batch's desk, once its coordinator is heard."""
        with anyio.move_on_after(PATIENCE):
            while batch not in self._desks:
                await self._opened.wait()
        return self._desks.get(batch)

    def _fail(self, error: FatalError) -> None:
        """Take no more lines: the account or token does not do."""
        if not self.trouble:
            self.trouble = [type(error).__name__, str(error)]
            log.error("stopping: %s", error)
        for desk in self._desks.values():
            desk.control.halt()
        self._stopping.set()

    def _note_foreign(self, error: Exception) -> None:
        self._foreign += 1
        if self._foreign == 1:
            log.warning("a message that is none of ours is passed over: %s", error)


def _line_of(task: Task) -> Line:
    try:
        line = parse_line(task.record, task.line, task.number)
    except BadLine as error:
        raise ForeignError(f"a task whose line is none: {error}") from None
    if task.fresh:
        line.forget()
    if line.key.hex() != task.key:
        raise ForeignError("a task whose line is another")
    return line


def _named(error: AttachmentError, name: str) -> AttachmentError:
    named = AttachmentError(f"{error}, on worker {name}", code=error.code, stage=error.stage)
    named.attempts = error.attempts
    return named
