"""What comes in of a batch: results go into the log, each once, and are counted."""

from __future__ import annotations

import logging
from collections import Counter, deque
from copy import copy
from typing import TYPE_CHECKING

from gpt4batch.fleet.health import OPINIONS, is_lines_own
from gpt4batch.fleet.messages import BACK, COUNTED, FINAL, ForeignError, outcome_of
from gpt4batch.lines.record import INDEX, superseded
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.fleet.epoch import Book
    from gpt4batch.fleet.messages import Result
    from gpt4batch.fleet.plan import Lines
    from gpt4batch.fleet.purse import Purse
    from gpt4batch.fleet.table import Row, Table
    from gpt4batch.lines.parse import Line
    from gpt4batch.nsq.link import Delivery
    from gpt4batch.service.conversation import Outcome

log = logging.getLogger(__name__)


class Intake:
    """Take results in.

    Args:
        table: Who has which line.
        book: Notes what is counted.
        lines: The lines and their log.
        ended: Called with a line whose end is known.
        purse: Is told what calls took.
    """

    def __init__(
        self,
        table: Table,
        book: Book,
        lines: Lines,
        ended: Callable[[int], None],
        purse: Purse,
    ) -> None:
        self.outcomes: dict[int, Outcome] = {}
        """What came of lines whose end is known, and is not in the log yet."""
        self.counts = Counter(unanswered=book.counts["unanswered"])
        self._table = table
        self._book = book
        self._lines = lines
        self._progress = lines.progress
        self._ended = ended
        self._purse = purse
        self._unsafe: dict[int, Delivery] = {}
        self._written: deque[tuple[int, Delivery]] = deque()
        """Results that the log has, and where it ended then."""
        self._failures: dict[int, Outcome] = {}
        self._published: dict[int, int] = {}
        self._tallies: dict[str, dict[str, int]] = {}
        self._lost: Counter[str] = Counter()
        self._twice: set[tuple[str, int]] = set()

    # -- counts ------------------------------------------------------------------------------

    def tally(self, worker: str, told: dict[str, int]) -> None:
        """Take in what a worker has done in all; of calls before our time only later ones count."""
        first = (
            {} if self._book.epoch == 1 else {**told, "unanswered": self._book.heard.get(worker, 0)}
        )
        known = self._tallies.setdefault(worker, first)
        for name in COUNTED:
            value, before = told.get(name, 0), known.get(name, 0)
            if value > before:
                self.counts[name] += value - before
                known[name] = value
                if name == "unanswered":
                    self._book.unanswered(value - before, worker, value)
        self._lost.pop(worker, None)
        self._tell()

    def lost(self, worker: str) -> None:
        """Count a chat that a worker was to make, and of which it says nothing any more."""
        self._lost[worker] += 1
        self._tell()

    @property
    def chats(self) -> int:
        """Return the chats that were made, as far as is known."""
        return self.counts["chats"] + self._lost.total()

    def _tell(self) -> None:
        self._progress.chats = self.chats
        self._progress.retries = self.counts["retries"]

    # -- results -----------------------------------------------------------------------------

    def row(self, index: int, line: Line) -> Row:
        """Return what is known of a line in hand, what an earlier coordinator noted included."""
        if (row := self._table.rows.get(index)) is None:
            row = self._table.expect(index, max(0, line.answered))
            if (noted := self._book.out.get(index)) is not None:
                run, call = noted
                row.unsure[run] = call
        return row

    async def take(self, result: Result, delivery: Delivery) -> None:
        """Take a result in; nsqd forgets it when the log has it on the disk.

        Raises:
            ForeignError: It is of another batch, or of another line than it says.
        """
        index = result.line
        if not 0 <= index < len(self._lines):
            raise ForeignError(tr("there is no line {number}", number=index + 1))
        self.tally(result.worker, result.tally)
        line, row = self._lines.line(index), self._table.rows.get(index)
        if line.key.hex() != result.key:
            raise ForeignError(tr("line {number} is another one now", number=index + 1))
        outcome = None if result.kind == BACK else outcome_of(line, result.record, result.error)
        if outcome is not None:
            self._purse.brought(index, result.record, answered=result.added > 0)
        if self._lines.settled(index) or (row is not None and row.ended):
            self._take_late(result, line, outcome, delivery)
            return
        unknown = row is None
        row = self.row(index, line)
        whole = outcome is not None
        fresh = self._table.take(row, result.run, result.step, result.call, result.how, whole=whole)
        if outcome is None:
            if fresh:
                self._table.move(row, told=False)
        elif (
            fresh
            or (unknown and len(outcome.answers) >= line.answered)
            or (result.kind == FINAL and outcome.error is None)
            or len(outcome.answers) > row.answered  # an earlier go at the line came further
        ):
            await self._enter(row, result, line, outcome, delivery)
            return
        else:
            self._note_twice(result, line, outcome)
        self._call_over(row, result)
        self._is_written(delivery)

    def _call_over(self, row: Row, result: Result) -> None:
        """Note that what the newest call of a go brought is in the log, or was nothing."""
        run, call = self._book.out.get(row.index, ("", 0))
        if run == result.run and result.call >= call and not (row.out or run in row.unsure):
            self._book.call_over(row.index)

    async def _enter(
        self, row: Row, result: Result, line: Line, outcome: Outcome, delivery: Delivery
    ) -> None:
        """Bring a result that is news into the log, or keep it for whoever waits for it."""
        anew = len(outcome.superseded) > len(superseded(line.meta))
        if anew:
            line.answered = -1
        before = 0 if anew else self._published.get(row.index, max(0, line.answered))
        outcome.published = before
        outcome.ran = {"worker": result.worker, "run": result.run, INDEX: row.index}
        row.answered = len(outcome.answers)
        if result.kind == FINAL and not self._is_doubtful(row, result, line, outcome):
            self._unsafe[row.index] = delivery
            self._end(row, outcome)
            return
        half = copy(outcome)
        half.error = None  # another worker may do better: it is not at its end
        await self._lines.keep(half)
        outcome.published = self._published[row.index] = half.published
        self._call_over(row, result)
        if result.kind != FINAL and (before_it := self._failures.get(row.index)) is not None:
            outcome.error = before_it.error  # should the line be given up, it is with these answers
            self._failures[row.index] = outcome
        if not row.ended and (result.kind == FINAL or row.run != result.run):
            self._table.move(row)
        self._is_written(delivery)

    def _end(self, row: Row, outcome: Outcome) -> None:
        self._failures.pop(row.index, None)
        if outcome.error is not None:  # what was lost with its worker is asked again by nobody
            self.counts["unanswered"] += len(row.unsure)
            self._book.unanswered(len(row.unsure))
        elif row.unsure:  # a power cut took the note
            self._book.asked_again(row.index)
        self.outcomes[row.index] = outcome
        self._table.end(row)
        self._ended(row.index)

    def _is_doubtful(self, row: Row, result: Result, line: Line, outcome: Outcome) -> bool:
        """Tell whether a line failed perhaps by its worker's fault: another one has to try it."""
        error, health = outcome.error, self._table.health
        if error is None:
            files = any(ask.images or ask.files for ask in line.asks)
            downloads = b'"spec_downloads"' in result.record
            health.done(result.worker, files=files, downloads=downloads)
            return False
        if is_lines_own(error.stage, error.code):
            return False
        health.failed(result.worker, error.stage, str(error))
        row.tried.add(result.worker)
        if sum(map(health.well, row.tried)) >= OPINIONS or self._table.alone(row):
            return False
        self._failures[row.index] = outcome
        return True

    def give_up(self) -> None:
        """Fail the lines that nobody is left to try."""
        for index, outcome in list(self._failures.items()):
            row = self._table.rows.get(index)
            if row is None:
                del self._failures[index]
            elif not row.run and self._table.alone(row):
                self._end(row, outcome)

    def fail(self, row: Row, outcome: Outcome) -> None:
        """Fail a line that no worker can be given."""
        self._end(row, outcome)

    def safe(self, index: int) -> None:
        """Let the worker forget a result, and nsqd soon: the log has it."""
        self._published.pop(index, None)
        self._book.call_over(index)
        if (delivery := self._unsafe.pop(index, None)) is not None:
            self._is_written(delivery)
        self._table.forget(index)

    def _is_written(self, delivery: Delivery) -> None:
        """Take note that the log has all that is worth having of a result."""
        self._written.append((self._lines.written, delivery))

    def forget(self) -> None:
        """Let nsqd forget the results that a power cut would leave in the log."""
        while self._written and self._written[0][0] <= self._lines.on_disk:
            self._written.popleft()[1].finish()

    # -- late ones ---------------------------------------------------------------------------

    def _take_late(
        self, result: Result, line: Line, outcome: Outcome | None, delivery: Delivery
    ) -> None:
        """Drop a result of a line that has its end: the first one counts."""
        row = self._table.rows.get(result.line)
        if row is not None and row.run == result.run and result.line in self._unsafe:
            if result.kind == FINAL:
                self._unsafe[result.line] = delivery  # nsqd asks again; the answer is on its way
                return
        elif outcome is not None:
            self._note_twice(result, line, outcome)
        if row is None:
            self._table.drops.append((result.worker, result.line, result.run))
        self._is_written(delivery)

    def _note_twice(self, result: Result, line: Line, outcome: Outcome) -> None:
        """Count an answer that another one was faster than."""
        known, place = line.answers(), len(outcome.answers) - 1
        if (ended := self.outcomes.get(result.line)) is not None:
            known = ended.answers
        if not result.added or (result.run, result.step) in self._twice or place >= len(known):
            return
        # One answer is the beginning of itself, whatever was noted of its downloads.
        short, long = sorted((known[place], outcome.answers[place]), key=len)
        if not long.startswith(short[:-1]):
            self._twice.add((result.run, result.step))
            self._book.asked_again(result.line)
            self._book.count("paid_twice")
            where = result.line + 1
            log.info("line %d was answered twice: %s came later", where, result.worker)
