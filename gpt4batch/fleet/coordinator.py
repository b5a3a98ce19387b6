"""The coordinator of a fleet: hand lines out to workers by way of nsqd, take in what comes back.

What is true is in the journal; nsqd only carries. A line is out from its task to its result, in the
hands of the worker that says it has it; when that one falls silent, the line goes to another.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio

from gpt4batch import errors
from gpt4batch.control import Stopped
from gpt4batch.errors import BudgetError, CallError, FatalError
from gpt4batch.fleet.inline_files import packed
from gpt4batch.fleet.messages import (
    COLLECT,
    COUNTED,
    FINAL,
    OVER,
    PART,
    RUN,
    Beacon,
    ForeignError,
    Manner,
    Report,
    Result,
    Task,
    read,
    unpacked,
    written,
)
from gpt4batch.fleet.slots import Wheel
from gpt4batch.nsq.consumer import Consumer
from gpt4batch.nsq.link import Access
from gpt4batch.nsq.publisher import Publisher
from gpt4batch.nsq.spool import Backlog
from gpt4batch.service.counters import CallStats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from gpt4batch.batch.progress import Progress
    from gpt4batch.control import Control
    from gpt4batch.fleet.epoch import Book
    from gpt4batch.lines.parse import Line
    from gpt4batch.nsq.link import Delivery
    from gpt4batch.service.conversation import Outcome
    from gpt4batch.settings import Settings, WorkerSettings

log = logging.getLogger(__name__)

BEAT = 0.5
"""Seconds between two beacons, and between two reports of a worker."""
FRESH = 5.0
"""Seconds after which a worker that hears no beacon begins no line and makes no call."""
COLLECTING = FRESH + 1
"""Seconds that a coordinator listens before it hands out what its predecessor may have."""
QUIET = 1.0
"""Seconds without a result after which those that waited are in."""
LEAST_OUT, MOST_OUT = 16, 4096
AHEAD = 1.25
"""Lines that are out for each place of the workers alive: so many wait at nsqd."""
RESULTS_ROOM = 1000


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where the messages of a fleet go."""

    addresses: tuple[str, ...]
    lookup: tuple[str, ...]
    base: str
    access: Access

    @property
    def tasks(self) -> str:
        """Return the topic of the tasks of all batches."""
        return f"{self.base}.fleet.tasks"

    @property
    def control(self) -> str:
        """Return the topic of the beacons of all batches."""
        return f"{self.base}.fleet.control#ephemeral"

    def results(self, batch: str) -> str:
        """Return the topic of a batch's results."""
        return f"{self.base}.fleet.results.{batch}"

    def reports(self, batch: str) -> str:
        """Return the topic of the workers' reports on a batch."""
        return f"{self.base}.fleet.reports.{batch}#ephemeral"


def exchange(settings: Settings | WorkerSettings) -> Exchange:
    """Return where messages go by the settings."""
    return Exchange(
        tuple(settings.nsqd_tcp_address.split(",")),
        tuple(filter(None, settings.lookupd_http_address.split(","))),
        settings.nsq_topic,
        Access(settings.nsq_tls, settings.nsq_ca, settings.nsq_auth_secret),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet is asked to do; a rate or a number of calls of 0 is no limit.

    Attachments of a line in `folder` travel with it if they are `inline` bytes at most.
    """

    manner: Manner
    rate: float
    max_calls: int
    lease: float
    folder: Path
    inline: int


class Lines(Protocol):
    """The lines of the batch, and where their answers go."""

    def __len__(self) -> int:
        """Return the number of lines."""

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before."""

    def settled(self, index: int) -> bool:
        """Tell whether a line has come to its end."""

    def ended(self, index: int) -> bool:
        """Tell whether a line has come to its end, in this run or before."""

    async def keep(self, outcome: Outcome) -> None:
        """Note a line that is half-way."""


@dataclass(slots=True)
class Lease:
    """A line that is out: its newest task, and the worker that says it has it."""

    index: int
    key: str
    seq: int = 0
    worker: str = ""
    since: float = 0.0
    published: int = 0
    runs: set[str] = field(default_factory=set)
    result: Result | None = None
    error: CallError | None = None
    delivery: Delivery | None = None
    stopped: bool = False
    ended: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Member:
    """A worker as its last report shows it."""

    report: Report
    seen: float
    came: float
    granted: int = 0


class Fleet:
    """Hold conversations by way of workers elsewhere.

    An async context manager; `serve` has to run meanwhile.

    Args:
        book: The batch, the epoch, and what earlier coordinators saw.
        plan: What is asked of the workers.
        place: Where messages go.
        lines: The batch's lines.
        control: Whether the run goes on.
        progress: Where chats and retries are counted.
    """

    def __init__(
        self,
        book: Book,
        plan: Plan,
        place: Exchange,
        lines: Lines,
        control: Control,
        progress: Progress,
    ) -> None:
        self.members: dict[str, Member] = {}
        self._book = book
        self._plan = plan
        self._place = place
        self._lines = lines
        self._control = control
        self._progress = progress
        self._leases: dict[int, Lease] = {}
        self._unsafe: dict[int, Delivery] = {}
        self._limit = anyio.CapacityLimiter(LEAST_OUT)
        self._phase = COLLECT
        self._collected = anyio.Event()
        self._seq = 0
        self._steady = 0.0
        self._last_result = 0.0
        self._wheel = Wheel(plan.rate, time.monotonic()) if plan.rate else None
        self._trouble: list[str] = []
        self._dry = 0
        self._granted = 0
        self._counts: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._foreign = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        place, batch = self._place, self._book.batch

        def publisher(topic: str, newest: int = 0) -> Publisher:
            backlog = Backlog(newest)
            say = log.debug if newest else log.warning  # told once is enough
            return Publisher(place.addresses, topic, backlog, access=place.access, on_state=say)

        def consumer(topic: str, channel: str, room: int) -> Consumer:
            access, lookup = place.access, place.lookup
            return Consumer(
                place.addresses, topic, channel, room=room, access=access, lookup=lookup
            )

        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            self._tasks = await enter(publisher(place.tasks))
            self._beacons = await enter(publisher(place.control, newest=1))
            self._book.open()
            stack.callback(lambda: self._book.close(done=self._is_done()))
            results = consumer(place.results(batch), "coordinator", RESULTS_ROOM)
            self._results = await enter(results)
            reports = consumer(place.reports(batch), "coordinator#ephemeral", RESULTS_ROOM)
            self._reports = await enter(reports)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._phase = OVER
        self._beacons.publish(written(self._beacon()))
        await self._stack.aclose()

    def _is_done(self) -> bool:
        return all(map(self._lines.settled, range(len(self._lines))))

    # -- the lines ---------------------------------------------------------------------------

    async def hold(self, line: Line) -> Outcome:
        """Have a line run by a worker and return what came of it."""
        await self._collected.wait()
        async with self._limit:
            lease = self._leases.get(line.index)
            if lease is None:
                if self._control.draining:
                    raise Stopped
                lease = self._leases[line.index] = Lease(line.index, line.key.hex())
                await self._hand_out(lease)
            await lease.ended.wait()
            self._leases.pop(line.index, None)
            return self._outcome(lease, line)

    def _outcome(self, lease: Lease, line: Line) -> Outcome:
        if lease.stopped:
            raise Stopped
        if lease.result is None:
            assert lease.error is not None
            return failed(line, lease.error)
        result = lease.result
        outcome = unpacked(line, result.outcome, result.texts)
        outcome.ran = {"worker": result.worker, "run": result.run}
        outcome.published = lease.published if line.answered >= 0 else 0
        return outcome

    def safe(self, index: int) -> None:
        """Let nsqd forget a result: the journal has it."""
        if (delivery := self._unsafe.pop(index, None)) is not None:
            delivery.finish()

    async def _hand_out(self, lease: Lease) -> None:
        """Publish a task with the newest record of its line."""
        line = self._lines.line(lease.index)
        self._seq += 1
        lease.seq, lease.worker, lease.since = self._seq, "", self._steady
        task = Task(
            batch=self._book.batch,
            epoch=self._book.epoch,
            seq=self._seq,
            line=lease.index,
            key=lease.key,
            number=line.number,
            fresh=not (line.answered or line.error or line.meta),
            files=packed(self._plan.folder, line, self._plan.inline) if self._plan.inline else [],
            record=line.raw.rstrip(),
        )
        body = written(task)
        if await self._tasks.fits(body):
            self._tasks.publish(body)
            return
        limit = self._tasks.limit
        text = f"the line has {len(body)} bytes, more than nsqd takes (--max-msg-size {limit})"
        lease.error = CallError(text, stage="fleet")
        lease.ended.set()

    # -- what comes in -----------------------------------------------------------------------

    async def serve(self) -> None:
        """Take in results and reports, and send beacons, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._take_results)
            tasks.start_soon(self._take_reports)
            await self._beat()

    async def _take_results(self) -> None:
        async for delivery in self._results:
            self._last_result = time.monotonic()
            try:
                result = read(Result, delivery.body)
                if result.batch != self._book.batch:
                    raise ForeignError(f"it is of batch {result.batch}")
                await self._take_result(result, delivery)
            except ValueError as error:
                self._refuse(error, delivery)
            except FatalError as error:
                self._control.halt(error)  # nsqd keeps the result for the next run

    def _refuse(self, error: Exception, delivery: Delivery) -> None:
        delivery.finish()
        self._foreign += 1
        if self._foreign == 1:
            log.warning("a message that is none of this batch is passed over: %s", error)

    async def _take_result(self, result: Result, delivery: Delivery) -> None:
        index = result.line
        if not 0 <= index < len(self._lines):
            raise ForeignError(f"there is no line {index + 1}")
        lease = self._leases.get(index)
        if self._lines.settled(index) or (lease is not None and lease.ended.is_set()):
            self._take_late(result, lease, delivery)
            return
        line = self._lines.line(index)
        if line.key.hex() != result.key:
            raise ForeignError(f"line {index + 1} is another one now")
        if lease is None:
            lease = self._leases[index] = Lease(index, result.key)
        lease.runs.add(result.run)
        if result.kind != PART:
            self._count(result)
        if result.kind == FINAL:
            unpacked(line, result.outcome, result.texts)  # refuses what cannot be read
            self._end(lease, result, delivery)
        elif result.kind == PART:
            await self._keep(lease, result)
            delivery.finish()
        else:
            await self._take_back(lease, result)
            delivery.finish()

    def _count(self, result: Result) -> None:
        self._progress.chats += result.chats
        self._progress.retries += result.retries
        for name in COUNTED:
            value = result.counts.get(name, 0)
            if isinstance(value, int) and value > 0:
                self._counts[name] += value

    def _end(self, lease: Lease, result: Result, delivery: Delivery) -> None:
        lease.result = result
        self._unsafe[lease.index] = delivery
        self._book.count("begun_again", len(lease.runs) - 1)
        lease.ended.set()

    def _take_late(self, result: Result, lease: Lease | None, delivery: Delivery) -> None:
        """Drop a result of a line that has its end: the first one counts."""
        index = result.line
        if lease is not None and lease.result is not None:
            run = lease.result.run
            if run == result.run and result.kind == FINAL and index in self._unsafe:
                self._unsafe[index] = delivery  # nsqd asks again; the answer is on its way
                return
        else:
            run = str(self._lines.line(index).meta.get("run", ""))
        delivery.finish()
        if result.kind == FINAL and run != result.run:
            self._count(result)
            self._book.count("paid_twice")
            log.info("line %d was answered twice: %s came later", index + 1, result.worker)

    async def _keep(self, lease: Lease, result: Result) -> None:
        line = self._lines.line(lease.index)
        before = line.answered
        outcome = unpacked(line, result.outcome, result.texts)
        if len(outcome.answers) < before and line.answered >= 0:
            return  # of a worker that began anew while another was further
        outcome.ran = {"worker": result.worker, "run": result.run}
        outcome.published = max(lease.published, outcome.published) if line.answered >= 0 else 0
        await self._lines.keep(outcome)
        lease.published = outcome.published

    async def _take_back(self, lease: Lease, result: Result) -> None:
        """Hand a line out again that a worker gave back, unless another has it by now."""
        lease.runs.discard(result.run)
        if lease.worker not in ("", result.worker):
            return
        lease.worker, lease.since = "", self._steady
        if self._phase == RUN and not self._control.draining:
            await self._hand_out(lease)

    async def _take_reports(self) -> None:
        async for delivery in self._reports:
            came = time.monotonic()
            try:
                report = read(Report, delivery.body)
                if report.batch != self._book.batch:
                    raise ForeignError(f"it is of batch {report.batch}")
                self._take_report(report, came)
            except (ValueError, TypeError) as error:
                self._refuse(error, delivery)
            except FatalError as error:
                self._control.halt(error)
            else:
                delivery.finish()

    def _take_report(self, report: Report, came: float) -> None:
        name = report.worker
        before = self.members.get(name)
        if before is not None and report.now <= before.report.now:
            return
        self._mind_pace(report, before.report if before else None)
        if report.trouble:
            self._trouble = report.trouble
        if report.leaving:
            self._part_with(name)
            log.info("worker %s has left: %s", name, ": ".join(report.trouble) or "told to stop")
            return
        if before is None:
            log.info("worker %s is here, with %d places", name, report.places)
            self._seen.add(name)
        granted = before.granted if before else 0
        self.members[name] = Member(report, self._steady, came, granted)
        self._note_lines(report)

    def _mind_pace(self, report: Report, before: Report | None) -> None:
        """Tell the pace of the calls and the 429s since a worker's last report."""
        if self._wheel is None or before is None:
            return
        calls = max(0, report.chats - before.chats)
        self._wheel.heard(time.monotonic(), calls, max(0, report.limited - before.limited))

    def _note_lines(self, report: Report) -> None:
        """Note which lines a worker has, those of an earlier coordinator included."""
        begun: list[int] = []
        for text, (key, run) in report.lines.items():
            index = int(text)
            lease = self._leases.get(index) or self._adopted(index, key)
            if lease is None or lease.key != key or lease.ended.is_set():
                continue
            if run not in lease.runs:
                lease.runs.add(run)
                begun.append(index)
            lease.worker, lease.since = report.worker, self._steady
        self._book.begin(begun)
        for lease in self._leases.values():
            if lease.worker == report.worker and str(lease.index) not in report.lines:
                lease.worker, lease.since = "", self._steady

    def _adopted(self, index: int, key: str) -> Lease | None:
        """Return a lease for a line that a worker runs without one."""
        if not 0 <= index < len(self._lines) or self._lines.settled(index):
            return None
        if self._lines.line(index).key.hex() != key:
            return None
        lease = self._leases[index] = Lease(index, key)
        return lease

    def _part_with(self, name: str) -> list[Lease]:
        """Forget a worker and return the lines that it had."""
        self.members.pop(name, None)
        lines = [lease for lease in self._leases.values() if lease.worker == name]
        for lease in lines:
            lease.worker, lease.since = "", self._steady
        return lines

    # -- what goes out -----------------------------------------------------------------------

    async def _beat(self) -> None:
        began = last = time.monotonic()
        while True:
            now = time.monotonic()
            if not self._beacons.left and self._reports.connected:
                self._steady += min(now - last, 2 * BEAT)  # nsqd hears us: silence means something
            last = now
            await self._watch(began)
            if self._wheel is not None and self._phase == RUN:
                self._wheel.turn(now, self._weights())
            self._beacons.publish(written(self._beacon()))
            await anyio.sleep(BEAT)

    def _weights(self) -> dict[str, float]:
        return {
            name: 1.0 + member.report.waiting
            for name, member in self.members.items()
            if not member.report.trouble and self._steady - member.seen < FRESH
        }

    async def _watch(self, began: float) -> None:
        if self._phase == COLLECT:
            self._see_whether_collected(began)
        if self._control.halted:
            self._phase = OVER
        elif self._plan.max_calls:
            self._grant()
        self._limit.total_tokens = max(LEAST_OUT, math.ceil(AHEAD * self.places))
        if self._control.draining:
            self._withdraw()
        for name in list(self.members):
            if self._steady - self.members[name].seen > self._plan.lease:
                log.warning("worker %s is silent; its lines go to others", name)
                await self._hand_out_again(self._part_with(name))
        await self._hand_out_again(list(self._lost()))
        if self._trouble and not self.members and not self._control.halted:
            self._halt(self._trouble)

    def _see_whether_collected(self, began: float) -> None:
        now = time.monotonic()
        quiet = self._results.connected and now - max(self._last_result, began) >= QUIET
        if self._book.epoch == 1 or (quiet and self._steady >= COLLECTING):
            self._phase = RUN
            self._collected.set()
            for lease in list(self._leases.values()):
                if not lease.worker and not lease.ended.is_set():
                    del self._leases[lease.index]  # given back, or its worker is gone
            gone = [index for index in self._book.begun if self._is_gone(index)]
            self._book.count("begun_again", len(gone))

    def _is_gone(self, index: int) -> bool:
        """Tell whether a line was begun under an earlier coordinator and came to no end."""
        known = index in self._leases or index >= len(self._lines)
        return not known and not self._lines.ended(index)

    @property
    def places(self) -> int:
        """Return the lines that the workers can run at a time."""
        return sum(member.report.places for member in self.members.values())

    def _lost(self) -> Iterator[Lease]:
        """Yield the lines that nobody has though there are workers with nothing to do."""
        if self._phase != RUN or not any(m.report.free for m in self.members.values()):
            return
        for lease in self._leases.values():
            idle = not lease.worker and not lease.ended.is_set()
            if idle and self._steady - lease.since > self._plan.lease:
                yield lease

    async def _hand_out_again(self, leases: list[Lease]) -> None:
        if self._phase != RUN or self._control.draining:
            return
        for lease in leases:
            if not lease.ended.is_set():
                await self._hand_out(lease)

    def _withdraw(self) -> None:
        """Leave the lines that no worker has begun."""
        self._collected.set()
        for lease in self._leases.values():
            if not lease.worker and not lease.ended.is_set():
                lease.stopped = True
                lease.ended.set()

    def _halt(self, trouble: list[str]) -> None:
        kind, text = (*trouble, "")[:2]
        found = getattr(errors, kind, FatalError)
        error = found if isinstance(found, type) and issubclass(found, FatalError) else FatalError
        self._control.halt(error(f"no worker is left; the last one said: {text}"))

    def _grant(self) -> None:
        """Hand out permits for chats, little by little, so that few are left unused."""
        members = [member for member in self.members.values() if not member.report.trouble]
        for member in members:
            left = self._plan.max_calls - self._granted
            chunk = min(left, max(1, left // (4 * len(members))), 2 * member.report.places)
            if member.granted - member.report.chats < max(1, chunk // 2):
                member.granted += chunk
                self._granted += chunk
        dry = [m for m in members if m.report.waiting and m.report.chats >= m.granted]
        self._dry = self._dry + 1 if dry and self._granted >= self._plan.max_calls else 0
        if self._dry * BEAT > 2:
            most = self._plan.max_calls
            text = f"--max-calls {most}: that many chat calls were made; run again with -f to go on"
            self._control.halt(BudgetError(text))

    def _beacon(self) -> Beacon:
        wheel = self._wheel if self._phase == RUN else None
        out = [lease for lease in self._leases.values() if not lease.ended.is_set()]
        permits = {name: member.granted for name, member in self.members.items()}
        return Beacon(
            batch=self._book.batch,
            epoch=self._book.epoch,
            seq=self._seq,
            phase=self._phase,
            manner=asdict(self._plan.manner),
            lines={str(lease.index): [lease.seq, lease.worker] for lease in out},
            rate=self._plan.rate,
            workers=wheel.workers if wheel else [],
            slots=list(wheel.runs) if wheel else [],
            permits=permits if self._plan.max_calls else None,
            echo={name: [m.report.now, m.came] for name, m in self.members.items()},
            now=time.monotonic(),
        )

    # -- what is told ------------------------------------------------------------------------

    def stats(self) -> CallStats:
        """Return what the results tell of calls and files, and the reports of calls in flight."""
        reports = [member.report for member in self.members.values()]
        counted: dict[str, Any] = {name: self._counts[name] for name in COUNTED}
        return CallStats(
            calls=self._progress.chats + self._counts["uploads"],
            in_flight=sum(report.places - report.free for report in reports),
            longest=max((report.longest for report in reports), default=0.0),
            **counted,
        )

    def totals(self) -> dict[str, int]:
        """Return what the summary says of the fleet."""
        totals = {"workers": len(self._seen), "foreign": self._foreign}
        counts = self._book.counts
        return totals | {name: counts[name] for name in ("begun_again", "paid_twice")}


def failed(line: Line, error: CallError) -> Outcome:
    """Return the outcome of a line that no worker could run."""
    from gpt4batch.service.conversation import Outcome

    return Outcome(line, line.answers(), error, published=max(0, line.answered))
