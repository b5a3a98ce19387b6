"""A run from its first call to its last word: signals, syncs, snapshots, the ordered output."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from gpt4batch.batch.snapshots import Snapshots
from gpt4batch.batch.summary import Summary
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import FatalError, OutputError
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import State
from gpt4batch.signals import ENDING, listening, name_of
from gpt4batch.words import because, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from gpt4batch.batch.work import Executor, Work
    from gpt4batch.journal.in_flight import InFlight
    from gpt4batch.nsq.publisher import Publisher
    from gpt4batch.service.counters import CallStats
    from gpt4batch.settings import Settings

    Task = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)

SYNC_INTERVAL = 1.0

NSQ_PATIENCE = 5.0
"""Seconds that messages which nsqd has not taken yet get at the end."""


class Runner:
    """Runs the lines by an executor, whichever it is, and puts the output in order.

    Args:
        settings: What to run.
        work: The lines.
        executor: What brings their answers.
        in_flight: The note of chats on their way.
        publisher: Where answers are published, if anywhere.
        clock: Tells the time.
    """

    def __init__(
        self,
        settings: Settings,
        work: Work,
        executor: Executor,
        in_flight: InFlight,
        publisher: Publisher | None,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._work = work
        self._executor = executor
        self._in_flight = in_flight
        self._publisher = publisher
        self._journal = work.journal
        self._control = work.control
        self._progress = work.progress
        self._snapshots = Snapshots(work.journal.out, clock)
        self._signal = 0

    @property
    def snapshot(self) -> Path | None:
        """Return the newest snapshot of this run."""
        return self._snapshots.newest

    async def run(self, places: int, beside: Sequence[Task], *, signals: bool) -> Summary:
        """Run the lines, then write the output in order.

        Args:
            places: Lines that run at the same time.
            beside: Tasks that go on until the output is in order, such as the display.
            signals: Obey SIGINT, SIGTERM and SIGHUP.
        """
        with listening(self._obey) if signals else nullcontext():
            async with anyio.create_task_group() as aside:
                for task in (*beside, self._sync_each_second):
                    aside.start_soon(task)
                await self._run_lines(places)
                with self._control.working():  # a signal ends the wait for nsqd, not the ordering
                    await self._finish()
                    if self._publisher is not None:
                        await self._publisher.drain(NSQ_PATIENCE)
                aside.cancel_scope.cancel()
            if self._publisher is not None:
                await self._publisher.aclose(0)
            return self._summary()

    async def _run_lines(self, places: int) -> None:
        async with anyio.create_task_group() as snapshots:
            if self._settings.rdb and not self._journal.streaming:
                snapshots.start_soon(self._snapshot_each_interval)
            try:
                with self._control.working():
                    await self._work.run(self._executor, places)
            except anyio.get_cancelled_exc_class():  # by the program that runs us
                snapshots.cancel_scope.cancel()
                await self._finish()
                raise
            snapshots.cancel_scope.cancel()

    # -- meanwhile ---------------------------------------------------------------------------

    def _obey(self, number: int) -> None:
        if self._signal and number == signal.SIGHUP:
            return  # kernel and shell each send one when a terminal closes, systemd after SIGTERM
        if self._signal or self._progress.finishing:
            log.warning("stopping at once")
            self._control.cancel()
            return
        self._signal = number
        self._tell_stop(name_of(number))
        self._control.drain(self._settings.grace)

    def _tell_stop(self, name: str) -> None:
        """Say what a signal does, and which calls it may cost."""
        calls, grace = self._executor.stats(), self._settings.grace
        if not calls.in_flight:
            log.warning(ENDING, name, grace)
            return
        log.warning(
            counted(
                "{name}: no new lines; {n:,} call in flight, for {oldest:.0f} s, has {grace:g} s to"
                " finish, then it is given up and may be paid for all the same (--grace); again to"
                " stop at once",
                "{name}: no new lines; {n:,} calls in flight, the oldest for {oldest:.0f} s, have "
                "{grace:g} s to finish, then they are given up and may be paid for all the same "
                "(--grace); again to stop at once",
                calls.in_flight,
                name=name,
                oldest=calls.longest,
                grace=grace,
            )
        )

    async def _sync_each_second(self) -> None:
        while True:
            await anyio.sleep(SYNC_INTERVAL)
            self._in_flight.write()
            try:
                await self._journal.log.sync()
            except OutputError as error:
                self._work.stop(error)
                return

    async def _snapshot_each_interval(self) -> None:
        while True:
            await anyio.sleep(self._settings.rdb_interval * 60)
            path = self._snapshots.name(self._work.source.stem)
            self._snapshots.make_room()
            try:
                await self._journal.snapshot(path)
            except OSError as error:
                log.warning("no snapshot: cannot write %s: %s", path, because(error))
            except FatalError as error:
                self._work.stop(error)
            else:
                self._snapshots.written(path)
                log.info("snapshot: %s", path)

    # -- the end -----------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Write the output in order; what cannot be written goes to standard error."""
        self._progress.finishing = True
        with anyio.CancelScope(shield=True):
            self._snapshots.make_room()
            try:
                await anyio.to_thread.run_sync(self._journal.finish)
            except FatalError as error:
                self._control.error = None  # whatever it was: this one says where the answers are
                self._control.halt(error)
                with suppress(OSError):  # where that is broken as well, nothing is left to try
                    for record in self._journal.log.unsaved():
                        sys.stderr.buffer.write(rawjson.escaped_controls(record))
                    sys.stderr.buffer.flush()
            else:
                self._snapshots.remove()

    def _summary(self) -> Summary:
        ledger, progress, calls = self._journal.ledger, self._progress, self._executor.stats()
        done = ledger.count(State.DONE)
        failed = ledger.count(State.FAILED) + self._work.source.bad_count
        in_all, told = progress.chats, self._journal.told
        if told is not None and self._settings.fix:  # as far as the lines tell of earlier runs
            in_all = max(told.calls, progress.chats)
        error = self._control.error
        by_signal = signal.Signals(self._signal).name if self._signal else ""
        return Summary(
            started=progress.started.isoformat(timespec="seconds"),
            finished=self._clock.now().isoformat(timespec="seconds"),
            lines=len(ledger),
            done=done,
            failed=failed,
            not_run=len(ledger) - done - failed,
            done_before=progress.done_before,
            chats=progress.chats,
            chats_in_all=in_all if told is not None or not self._settings.fix else None,
            **self._spent(calls),
            retries=progress.retries,
            unanswered=calls.unanswered,
            killed_in_flight=self._in_flight.left,
            uploads=calls.uploads,
            downloads=calls.downloads,
            download_bytes=calls.download_bytes,
            seconds=round(progress.elapsed, 3),
            latency=progress.percentiles(),
            failures=[asdict(group) for group in progress.failures.values()],
            stopped=by_signal if error is None else str(error),
            exit_code=self._exit_code(failed, len(ledger) - done),
            input=self._work.source.path,
            out=str(self._journal.out),
            moved_to=str(self._journal.moved_to or ""),
        )

    def _spent(self, calls: CallStats) -> dict[str, Any]:
        """Return what the summary says of tokens and money: nothing where answers do not tell."""
        usage, told, price = self._progress.usage, self._journal.told, self._settings.priced
        in_all = told.usage if told is not None and self._settings.fix else usage
        if not usage.total and not in_all.total:
            return {"finishes": dict(calls.finishes)}
        models = {name: item._asdict() for name, item in sorted(calls.usage.items())}
        return {
            "finishes": dict(calls.finishes),
            "tokens": usage._asdict(),
            "tokens_in_all": in_all._asdict(),
            "models": models,
            "cost": price and round(price.of(usage), 6),
            "cost_in_all": price and round(price.of(in_all), 6),
        }

    def _exit_code(self, failed: int, left: int) -> int:
        if self._control.error is not None:
            return self._control.error.exit_code
        if self._signal and left:
            return 128 + self._signal
        if self._work.defects:
            return OutputError.exit_code
        unfinished = self._progress.done + self._progress.failed < self._progress.to_run
        return 1 if failed or self._progress.failed or unfinished else 0
