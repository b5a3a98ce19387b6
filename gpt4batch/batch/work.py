"""The lines of a run: each goes to an executor, and what comes back goes to the journal."""

from __future__ import annotations

import logging
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from gpt4batch.batch.chosen import Chosen
from gpt4batch.batch.pool import Pool
from gpt4batch.batch.progress import Progress
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.control import Stopped
from gpt4batch.errors import FatalError, InputChanged, ReplyError, ServiceError
from gpt4batch.lines.record import State
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.control import Control
    from gpt4batch.journal.journal import Journal
    from gpt4batch.journal.source import Source
    from gpt4batch.lines.parse import Line
    from gpt4batch.service.conversation import Outcome
    from gpt4batch.service.counters import CallStats
    from gpt4batch.settings import Settings

log = logging.getLogger(__name__)

LISTED = 5
"""Failures of one cause that are logged one by one."""

FAILED = tr("%s:%d (id %s): failed: %s")
AND_SO_ON = tr("%d lines failed so; more of them are only counted (--log-level debug lists all)")

KEPT = tr("%s:%d (id %s): not answered anew: what it had stays")

MOST_FETCHING = 128
"""How many lines may wait for their files beside the `-g` that ask; a file host may be down."""


class Executor(Protocol):
    """What brings the answers of a line: this process, or a fleet of workers."""

    async def hold(self, line: Line) -> Outcome:
        """Return what came of a line; `Stopped` is raised where it is left as it is."""

    def stats(self) -> CallStats:
        """Return what was done so far for all lines."""


class Work:
    """The lines of one run, and what came of each.

    An executor hands in lines that are half-way by `keep`; a fleet also asks for lines and for
    how far they are.

    Args:
        settings: Which lines, and when to give up.
        journal: Where results go; it is open.
        source: The input.
        control: Whether the run goes on.
        clock: Tells the time.

    Raises:
        UsageError: A line was named that the input does not have.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        source: Source,
        control: Control,
        clock: Clock = SYSTEM,
    ) -> None:
        self.journal = journal
        self.source = source
        self.control = control
        self.progress = Progress(clock)
        self.pool = Pool(MOST_FETCHING)
        self.defects = 0
        self.publish: Callable[[Outcome], None] = _not_published
        """Is handed each outcome once the journal has it."""
        self.safe: Callable[[int], None] = _not_told
        """Is told of each line once its outcome would survive a crash."""
        self._settings = settings
        self._chosen = Chosen(journal, source, settings.limit, settings.only, redo=settings.redo)
        self._executor: Executor
        self._failed: set[int] = set()
        self._counted: dict[int, tuple[int, int]] = {}
        self._in_hand: dict[int, Line] = {}

    def count(self) -> None:
        """Count the lines of the input and those that are to be run."""
        ledger, progress = self.journal.ledger, self.progress
        progress.total = len(ledger)
        progress.done_before = ledger.count(State.DONE)
        progress.to_run = len(self._chosen)

    async def run(self, executor: Executor, places: int) -> None:
        """Run the lines that are not done, so many at a time at most."""
        self._executor = executor
        workers = max(1, min(places, self.progress.to_run))
        chosen = takewhile(lambda _: not self.control.draining, self._chosen)
        await self.pool.run(self._run_line, chosen, workers)

    def stop(self, error: FatalError) -> None:
        """Make no more calls; answers in flight are waited for, since they are paid for."""
        grace = self._settings.grace if isinstance(error, ServiceError) else float("inf")
        self.control.halt(error, grace)

    # -- what executors ask for --------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.journal.ledger)

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before."""
        try:
            return self.journal.line(index)
        except InputChanged as error:
            self.stop(error)
            if index not in self._in_hand:
                raise
            return self._in_hand[index]

    async def keep(self, outcome: Outcome) -> None:
        """Append a line that is half-way."""
        self._count_answers(outcome)
        standing = outcome.standing(finished=False)
        self.journal.log.advance(outcome.line.index, State.PARTIAL, standing)
        self.publish(outcome)
        await self.journal.log.durable()

    @property
    def written(self) -> int:
        """Return where the log ends."""
        return self.journal.log.end

    @property
    def on_disk(self) -> int:
        """Return up to where the log would survive a power cut."""
        return self.journal.log.on_disk

    def settled(self, index: int) -> bool:
        """Return whether a line has come to its end, as far as this run is concerned."""
        return self.journal.state(index) == State.DONE or index in self._failed

    def ended(self, index: int) -> bool:
        """Return whether a line has come to its end, in this run or before."""
        return self.journal.state(index) in (State.DONE, State.FAILED)

    # -- one line ----------------------------------------------------------------------------

    async def _run_line(self, index: int) -> None:
        """Run one line and append what came of it."""
        self.progress.running += 1
        try:
            line = self._in_hand[index] = self.journal.line(index)
            line.anew = self.journal.state(index) == State.DONE  # it was named with --redo
            outcome = await self._executor.hold(line)
            self._count(outcome)
            if not outcome.done:
                self._failed.add(index)
                if line.anew and outcome.is_as_before:
                    log.warning(KEPT, self.source.path, line.number, line.id)
                    return
            state = State.DONE if outcome.done else State.FAILED
            self.journal.log.advance(index, state, outcome.standing())
            self.publish(outcome)
            await self.journal.log.durable()
            self.safe(index)
        except Stopped:
            pass
        except FatalError as error:
            self.stop(error)
        except Exception as error:
            # A defect of ours must not take the answers in flight of other lines with it.
            self.defects += 1
            where = f"{self.source.path}:{self.source.number(index)}"
            log.error("%s: left as it is: unexpected error: %r", where, error)  # noqa: TRY400
            log.debug("%s: unexpected error", where, exc_info=True)
        finally:
            self._in_hand.pop(index, None)
            self.progress.running -= 1

    def _count_answers(self, outcome: Outcome) -> None:
        """Count the answers of a line that came since the last time."""
        index, beginnings = outcome.line.index, len(outcome.superseded)
        first = max(outcome.line.answered, 0)
        if (counted := self._counted.get(index)) and counted[0] == beginnings:
            first = counted[1]
        for timing in outcome.timings[first:]:
            self.progress.answered(timing["seconds"], timing.get("tokens"))
        self._counted[index] = beginnings, max(first, len(outcome.timings))

    def _count(self, outcome: Outcome) -> None:
        """Count what came of a line, and stop where nothing but failures comes."""
        progress, line = self.progress, outcome.line
        self._count_answers(outcome)
        del self._counted[line.index]
        if outcome.error is None:
            progress.line_done()
            return
        if isinstance(outcome.error, ReplyError) and outcome.error.usage is not None:
            progress.usage = progress.usage.plus(outcome.error.usage)
        alike = progress.line_failed(line.number if line.id is None else line.id, outcome.error)
        told = log.info if alike <= LISTED else log.debug
        told(FAILED, self.source.path, line.number, line.id, outcome.error)
        if alike == LISTED:
            log.info(AND_SO_ON, LISTED)
        most = self._settings.max_consecutive_failures
        if most and progress.in_a_row >= most:
            only_failures = ServiceError(
                tr(
                    "{in_a_row} lines failed in a row and none was done between; the last: "
                    "{error}. Run again with -f when the service works "
                    "(--max-consecutive-failures sets the number, 0 is never)",
                    in_a_row=progress.in_a_row,
                    error=outcome.error,
                )
            )
            self.stop(only_failures)


def _not_published(_: Outcome) -> None:
    """Publish nothing: the run goes without NSQ."""


def _not_told(_: int) -> None:
    """Tell nobody: nothing waits for the line."""
