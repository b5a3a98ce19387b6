"""One batch, wired together: read, converse, append; the signals; the summary."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread

from gpt4batch.batch.download_folder import MIXED, download_folder
from gpt4batch.batch.pool import Pool
from gpt4batch.batch.progress import Progress
from gpt4batch.batch.refusals import (
    lines_at_once,
    publisher_for,
    refuse_bad_lines,
    refuse_bad_results,
    refuse_other_files,
    refuse_output,
    refuse_shared_files,
    too_few_descriptors,
)
from gpt4batch.batch.snapshots import Snapshots
from gpt4batch.batch.summary import Summary
from gpt4batch.control import Control, Stopped
from gpt4batch.errors import (
    BudgetError,
    FatalError,
    InputChanged,
    OutputError,
    ServiceError,
    UsageError,
)
from gpt4batch.fleet import messages
from gpt4batch.fleet.coordinator import MOST_OUT, Fleet, Plan
from gpt4batch.fleet.epoch import Book
from gpt4batch.fleet.topics import topics
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import State
from gpt4batch.nsq.publisher import Publisher, message
from gpt4batch.service import credentials, wiring
from gpt4batch.service.client import Client
from gpt4batch.service.conversation import Conversation, Manner, Outcome
from gpt4batch.service.pacing import Pacer
from gpt4batch.service.probing import Probing
from gpt4batch.settings import KIB, Settings, endpoints
from gpt4batch.signals import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from gpt4batch.lines.parse import Line
    from gpt4batch.service.counters import CallStats
    from gpt4batch.service.downloads import Downloads

log = logging.getLogger(__name__)

SYNC_INTERVAL = 1.0
MOST_FETCHING = 128
"""How many lines may wait for their files beside the `-g` that ask; a file host may be down."""

NSQ_PATIENCE = 5.0
"""Seconds that messages which nsqd has not taken yet get at the end."""


async def run(
    settings: Settings,
    *,
    show: Callable[[Progress, Batch], Coroutine[Any, Any, None]] | None = None,
    signals: bool = False,
) -> Summary:
    """Run one batch and return its summary.

    Args:
        settings: What to run.
        show: A task that displays the progress until it is cancelled.
        signals: Obey SIGINT, SIGTERM and SIGHUP, as the command line does, until the run is over.

    Raises:
        UsageError: Something is refused; nothing was called.
    """
    async with AsyncExitStack() as stack:
        batch = Batch(settings, stack)
        await batch.prepare()
        return await batch.run(show, signals=signals)


class Executor(Protocol):
    """What brings the answers of a line: this process, or a fleet of workers."""

    async def hold(self, line: Line) -> Outcome:
        """Return what came of a line; `Stopped` is raised where it is left as it is."""

    def stats(self) -> CallStats:
        """Return what was done so far for all lines."""


class Batch:
    """The parts of one run and their lives."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.control = Control()
        self.progress = Progress()
        self.pool = Pool(MOST_FETCHING)
        self.signal = 0
        self._at_once = settings.goroutine
        self._defects = 0
        self._stack = stack
        self._failed: set[int] = set()
        self._in_hand: dict[int, Line] = {}
        self.publisher: Publisher | None = None
        self.downloads: Downloads | None = None
        self.fleet: Fleet | None = None
        self.executor: Executor
        self.journal = Journal.of(settings.out, fsync=settings.fsync)
        self._snapshots = Snapshots(self.journal.out)
        log_file = None if self.journal.streaming else self.journal.out
        self.in_flight = InFlight(log_file and log_file.with_name(f"{log_file.name}.inflight"))
        self.pacer = Pacer(settings.qps, self.control, settings.ramp)
        self.probing = Probing(self.control, settings.patience)

    # -- before the first call ---------------------------------------------------------------

    async def prepare(self) -> None:
        """Read the input, find what is done and open everything; nothing is called.

        Raises:
            UsageError: Something is refused.
            OutputError: The output cannot be written.
        """
        settings = self.settings
        if settings.mock and not settings.origin:
            raise UsageError(
                "mock=True: nothing listens; start gpt4batch.mock.server.MockService and pass its "
                "origin and token, as examples/python_api.py does"
            )
        refuse_shared_files(settings)
        refuse_output(settings, self.journal)
        refuse_other_files(settings)
        if not settings.fleet:
            self._at_once = lines_at_once(settings)
        # The workers of a fleet have tokens of their own.
        read = credentials.read_token
        token = "" if settings.fleet else read(settings.token, settings.token_file)
        self._read()
        if settings.fleet:
            await self._gather_fleet()
        else:
            self._connect(token)
        if settings.enable_nsq:
            await self._connect_nsq()
        if self.downloads is not None:
            self.downloads.prepare(chosen=bool(self.settings.download_dir))
            if not settings.download_dir and not settings.mock:
                log.info(MIXED, self.source.folder)
        self.journal.start(fix=settings.fix)
        for words in self.journal.findings.words(self.source.path, self.journal.kept_in):
            log.warning("%s", words)
        self.in_flight.open()
        self._stack.callback(self.in_flight.close)
        self._count()

    def _read(self) -> None:
        """Take the lock, read the input and find what is done."""
        settings = self.settings
        self.journal.lock()
        self._stack.callback(self.journal.close)
        spool = None if self.journal.streaming else self.journal.out.parent
        self.source = Source(settings.input, spool=spool)
        self._stack.callback(self.source.close)
        self.journal.open(self.source, fix=settings.fix)
        refuse_bad_lines(self.source, skip=settings.skip_bad_lines)
        refuse_bad_results(self.journal, skip=settings.skip_bad_results)

    def _connect(self, token: str) -> None:
        settings = self.settings
        addresses = endpoints(settings)
        transport = wiring.sockets(addresses, settings.proxy)
        self._stack.push_async_callback(transport.aclose)
        client = Client(
            transport,
            addresses,
            wiring.tokens(settings, token, transport, self.control),
            self.pacer,
            self.control,
            retries=settings.retries,
            timeout=settings.timeout,
            before_chat=self._spend,
            on_retry=lambda error, _delay: self.progress.retrying(error),
            in_flight=self.in_flight,
            probing=self.probing,
        )
        if settings.enable_download:
            folder = download_folder(settings, self.source)
            self.downloads = wiring.downloads(folder, settings, addresses, transport, self.control)
        manner = Manner(
            self.source.folder,
            settings.model,
            settings.gizmo_id,
            settings.history_and_training_disabled,
            self.source.path,
        )
        self.executor = Conversation(client, self.downloads, manner, self.keep, places=self.pool)

    async def _gather_fleet(self) -> None:
        settings, streaming = self.settings, self.journal.streaming
        path = None if streaming else self.journal.out.with_name(f"{self.journal.out.name}.fleet")
        manner = messages.Manner(
            model=settings.model,
            gizmo=settings.gizmo_id,
            history_disabled=settings.history_and_training_disabled,
            retries=settings.retries,
            timeout=settings.timeout,
            downloads=settings.enable_download,
        )
        fleet = Fleet(
            Book(path, fix=settings.fix),
            Plan(
                manner,
                settings.qps,
                settings.max_calls,
                settings.lease,
                self.source.folder,
                settings.inline_files * KIB,
            ),
            topics(settings),
            self,
            self.control,
            self.progress,
            self.pacer,
            self.in_flight,
        )
        self.executor = self.fleet = await self._stack.enter_async_context(fleet)

    async def _connect_nsq(self) -> None:
        publisher = publisher_for(self.settings, self.journal)
        self.publisher = await self._stack.enter_async_context(publisher)

    def _count(self) -> None:
        ledger, progress = self.journal.ledger, self.progress
        progress.total = len(ledger)
        progress.done_before = ledger.count(State.DONE)
        progress.to_run = progress.total - progress.done_before - self.source.bad_count
        if self.settings.limit:
            progress.to_run = min(progress.to_run, self.settings.limit)
        if self._at_once < min(self.settings.goroutine, progress.to_run):
            log.warning("%s", too_few_descriptors(self.settings, self._at_once))

    # -- the run -----------------------------------------------------------------------------

    async def run(
        self, show: Callable[[Progress, Batch], Coroutine[Any, Any, None]] | None, *, signals: bool
    ) -> Summary:
        """Run the lines, then write the output in order."""
        with listening(self._obey) if signals else nullcontext():
            await self._run(show)
            if self.publisher is not None:
                await self.publisher.aclose(0)
            return self._summary()

    async def _run(
        self, show: Callable[[Progress, Batch], Coroutine[Any, Any, None]] | None
    ) -> None:
        async with anyio.create_task_group() as aside:
            if show is not None:
                aside.start_soon(show, self.progress, self)
            aside.start_soon(self._sync_each_second)
            if self.fleet is not None:
                aside.start_soon(self.fleet.serve)
            async with anyio.create_task_group() as snapshots:
                if self.settings.rdb and not self.journal.streaming:
                    snapshots.start_soon(self._snapshot_each_interval)
                try:
                    with self.control.working():
                        await self.pool.run(self._work, self._lines(), self._workers())
                except anyio.get_cancelled_exc_class():  # by the program that runs us
                    snapshots.cancel_scope.cancel()
                    await self._finish()
                    raise
                snapshots.cancel_scope.cancel()
            with self.control.working():  # a signal ends the wait for nsqd, not the ordering
                await self._finish()
                if self.publisher is not None:
                    await self.publisher.drain(NSQ_PATIENCE)
            aside.cancel_scope.cancel()

    def _workers(self) -> int:
        most = self._at_once if self.fleet is None else MOST_OUT
        return max(1, min(most, self.progress.to_run))

    def _lines(self) -> Iterator[int]:
        """Yield the index of each line that is to be run, until the run is told to stop."""
        left = self.progress.to_run
        for index in range(len(self.journal.ledger)):
            if left == 0 or self.control.draining:
                return
            if self.journal.ledger.states[index] == State.DONE or self.source.bad_reason(index):
                continue
            left -= 1
            yield index

    async def _work(self, index: int) -> None:
        """Run one line and append what came of it."""
        self.progress.running += 1
        try:
            line = self._in_hand[index] = self.journal.line(index)
            outcome = await self.executor.hold(line)
            self._note(outcome)
            if not outcome.done:
                self._failed.add(index)
            state = State.DONE if outcome.done else State.FAILED
            self.journal.advance(index, state, outcome.standing())
            self._publish(outcome)
            await self.journal.durable()
            if self.fleet is not None:
                self.fleet.safe(index)
        except Stopped:
            pass
        except FatalError as error:
            self._stop(error)
        except Exception as error:
            # A defect of ours must not take the answers in flight of other lines with it.
            self._defects += 1
            where = f"{self.source.path}:{self.source.number(index)}"
            log.error("%s: left as it is: unexpected error: %r", where, error)  # noqa: TRY400
            log.debug("%s: unexpected error", where, exc_info=True)
        finally:
            self._in_hand.pop(index, None)
            self.progress.running -= 1

    async def keep(self, outcome: Outcome) -> None:
        """Append a line that is half-way."""
        standing = outcome.standing(finished=False)
        self.journal.advance(outcome.line.index, State.PARTIAL, standing)
        self._publish(outcome)
        await self.journal.durable()

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before."""
        try:
            return self.journal.line(index)
        except InputChanged as error:
            self._stop(error)
            if index not in self._in_hand:
                raise
            return self._in_hand[index]

    def settled(self, index: int) -> bool:
        """Tell whether a line has come to its end, as far as this run is concerned."""
        return self.journal.state(index) == State.DONE or index in self._failed

    def ended(self, index: int) -> bool:
        """Tell whether a line has come to its end, in this run or before."""
        return self.journal.state(index) in (State.DONE, State.FAILED)

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.journal.ledger)

    def _publish(self, outcome: Outcome) -> None:
        """Hand the new answers of a line, which the journal has by now, to NSQ."""
        if self.publisher is None:
            return
        asks, folder = outcome.line.asks, str(self.downloads.folder if self.downloads else "")
        for place in range(outcome.published, len(outcome.answers)):
            self.publisher.publish(message(asks[place].content, outcome.answers[place], folder))
        outcome.published = len(outcome.answers)

    def _note(self, outcome: Outcome) -> None:
        progress, line = self.progress, outcome.line
        for timing in outcome.timings[max(line.answered, 0) :]:
            progress.answered(timing["seconds"])
        if outcome.error is None:
            progress.line_done()
            return
        progress.line_failed(line.number if line.id is None else line.id, outcome.error)
        log.info("%s:%d: failed: %s", self.source.path, line.number, outcome.error)
        most = self.settings.max_consecutive_failures
        if most and progress.in_a_row >= most:
            raise_later = ServiceError(
                f"{progress.in_a_row} lines failed in a row and none was done between; the last: "
                f"{outcome.error}. Run again with -f when the service works "
                "(--max-consecutive-failures sets the number, 0 is never)"
            )
            self._stop(raise_later)

    def _spend(self) -> None:
        """Count a chat call, or refuse it when the budget is spent."""
        most = self.settings.max_calls
        if most and self.progress.chats >= most:
            raise BudgetError(
                f"--max-calls {most}: that many chat calls were made; run again with -f to go on"
            )
        self.progress.chat_sent()

    def _stop(self, error: FatalError) -> None:
        """Make no more calls; answers in flight are waited for, since they are paid for."""
        if self.control.error is None:
            log.error("stopping: %s", error)
        grace = self.settings.grace if isinstance(error, ServiceError) else float("inf")
        self.control.halt(error, grace)

    # -- aside -------------------------------------------------------------------------------

    def _obey(self, number: int) -> None:
        if self.signal and number == signal.SIGHUP:
            return  # kernel and shell each send one when a terminal closes, systemd after SIGTERM
        if self.signal or self.progress.finishing:
            log.warning("stopping at once")
            self.control.cancel()
            return
        self.signal = number
        log.warning(
            "%s: no new lines; those in flight have %g s to finish (again to stop at once)",
            signal.Signals(number).name,
            self.settings.grace,
        )
        self.control.drain(self.settings.grace)

    async def _sync_each_second(self) -> None:
        while True:
            await anyio.sleep(SYNC_INTERVAL)
            self.in_flight.write()
            try:
                await self.journal.sync()
            except OutputError as error:
                self._stop(error)
                return

    async def _snapshot_each_interval(self) -> None:
        while True:
            await anyio.sleep(self.settings.rdb_interval * 60)
            await self._write_snapshot()

    async def _write_snapshot(self) -> None:
        path = self._snapshots.name(self.source.stem)
        self._snapshots.make_room()
        try:
            await self.journal.snapshot(path)
        except OSError as error:
            log.warning("no snapshot: cannot write %s: %s", path, error.strerror)
        except FatalError as error:
            self._stop(error)
        else:
            self._snapshots.written(path)
            log.info("snapshot: %s", path)

    @property
    def snapshot(self) -> Path | None:
        """Return the newest snapshot of this run."""
        return self._snapshots.newest

    # -- the end -----------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Write the output in order; what cannot be written goes to standard error."""
        self.progress.finishing = True
        with anyio.CancelScope(shield=True):
            self._snapshots.make_room()
            try:
                await anyio.to_thread.run_sync(self.journal.finish)
            except FatalError as error:
                self.control.halt(error)
                self.control.error = error
                with suppress(OSError):  # where that is broken as well, nothing is left to try
                    for record in self.journal.unsaved():
                        sys.stderr.buffer.write(rawjson.escaped_controls(record))
                    sys.stderr.buffer.flush()
            else:
                self._snapshots.remove()

    def _summary(self) -> Summary:
        self.in_flight.forget()
        ledger, progress = self.journal.ledger, self.progress
        done, failed = ledger.count(State.DONE), ledger.count(State.FAILED)
        failed += self.source.bad_count
        files, nsq, calls = self.downloads, self.publisher, self.executor.stats()
        return Summary(
            started=progress.started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            lines=len(ledger),
            done=done,
            failed=failed,
            not_run=len(ledger) - done - failed,
            done_before=progress.done_before,
            chats=progress.chats,
            chats_in_all=self._chats_in_all(),
            retries=progress.retries,
            unanswered=calls.unanswered,
            killed_in_flight=self.in_flight.left,
            uploads=calls.uploads,
            downloads=calls.downloads,
            download_bytes=calls.download_bytes,
            seconds=round(progress.elapsed, 3),
            latency=progress.percentiles(),
            failures=[asdict(group) for group in progress.failures.values()],
            stopped=self._why_stopped(),
            exit_code=self._exit_code(failed, len(ledger) - done),
            input=self.source.path,
            out=str(self.journal.out),
            moved_to=str(self.journal.moved_to or ""),
            download_dir=str(files.folder) if files else "",
            nsq_sent=nsq.sent if nsq else 0,
            nsq_left=nsq.left if nsq else 0,
            nsq_lost=nsq.dropped if nsq else 0,
            nsq_spool=str(nsq.path) if nsq else "",
            fleet=self.fleet.totals() if self.fleet else {},
        )

    def _chats_in_all(self) -> int | None:
        """Return the chats of every run of this output, as far as its lines tell of them."""
        noted, made = self.journal.calls, self.progress.chats
        return made if not self.settings.fix else None if noted is None else max(noted, made)

    def _why_stopped(self) -> str:
        if self.control.error is not None:
            return str(self.control.error)
        return signal.Signals(self.signal).name if self.signal else ""

    def _exit_code(self, failed: int, left: int) -> int:
        if self.control.error is not None:
            return self.control.error.exit_code
        if self.signal and left:
            return 128 + self.signal
        if self._defects:
            return OutputError.exit_code
        unfinished = self.progress.done + self.progress.failed < self.progress.to_run
        return 1 if failed or unfinished else 0
