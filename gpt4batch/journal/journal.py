"""The output: an append-only log while the run is on, one line per input line after it."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from gpt4batch import disk
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import OutputError
from gpt4batch.journal.aside import keep_aside, move_aside
from gpt4batch.journal.findings import Findings
from gpt4batch.journal.lock import Lock
from gpt4batch.journal.log import STDOUT, Log
from gpt4batch.journal.names import ORDERED, SNAPSHOT, beside
from gpt4batch.journal.ordered import Records, Told
from gpt4batch.journal.resume import Resume, whole
from gpt4batch.lines.parse import BadLine
from gpt4batch.lines.record import State
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from gpt4batch.journal.ledger import Ledger
    from gpt4batch.journal.source import Source
    from gpt4batch.lines.parse import Line

log = logging.getLogger(__name__)

SPARE = 4
"""Descriptors that are kept back, so that the output can be put in order when there are no more."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ERROR_FILE = tr(
    "cannot write {errors} (--error-file): {reason}; the answers so far are in {out}, in the order "
    "they came: {advice} and run again with -f"
)


class Journal:
    """The results of one batch on disk, and what is known of every line.

    Args:
        out: The output file, its lock beside it; None is a stream, to which each line is written
            as it is done.
        fsync: `always`, `interval` (whoever runs the journal syncs the log each second) or `never`.
        descriptor: The stream's number, where there is no file.
        clock: Tells the time.
    """

    def __init__(
        self,
        out: Path | None,
        *,
        fsync: str = "interval",
        descriptor: int = STDOUT,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self.log = Log(out, fsync=fsync, descriptor=descriptor, clock=clock)
        self.out, self.streaming = self.log.out, self.log.streaming
        self.findings = Findings(self.out)
        self.torn = 0
        """Bytes of a last line that a crash left half-written."""
        self.moved_to: Path | None = None
        self.kept_in: Path | None = None
        self.errors: Path | None = None
        """Where the ordered rows of requests go that have failed, instead of the output."""
        self.told: Told | None = None
        """What the ordered output tells of all runs."""
        self._lock = Lock(self.out)
        self._records: Records
        self._in_order = False
        self._spare: list[int] = []

    @classmethod
    def of(cls, out: str, *, fsync: str = "interval", clock: Clock = SYSTEM) -> Journal:
        """Return the journal of what `-o` names: a file, a device, `-` or a descriptor."""
        descriptor = STDOUT if out == "-" else disk.descriptor_of(out)
        if descriptor is not None:
            return cls(None, fsync=fsync, descriptor=descriptor, clock=clock)
        return cls(Path(os.path.realpath(out)), fsync=fsync, clock=clock)

    @property
    def ledger(self) -> Ledger:
        """Return what is known of each line."""
        return self.log.ledger

    def state(self, index: int) -> State:
        """Return how far a line is."""
        return State(self.ledger.states[index])

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before.

        Raises:
            InputChanged: The input was edited in place.
            OutputError: The line's record in the output can no longer be read.
        """
        return self._records.line(index)

    # -- opening -----------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the only run that writes this output.

        Raises:
            UsageError: Another run does.
            OutputError: The folder cannot be written.
        """
        if not self.streaming:
            self._lock.take()

    def look_at_lock(self) -> None:
        """Refuse what `lock` would refuse, without making a file.

        Raises:
            UsageError: Another run writes this output.
            OutputError: The lock cannot be opened.
        """
        if not self.streaming:
            self._lock.look()

    def open(self, source: Source, *, fix: bool, repair: bool = True) -> None:
        """Read the input, and find what is done already if `fix`.

        Args:
            source: The input.
            fix: Whether results that are there count.
            repair: The run goes on to `start`; else the output is only looked at.

        Raises:
            OutputError: The output cannot be read.
            InputChanged: The input was edited in these moments.
        """
        resume = Resume(source, self.out, fix=fix)
        self.log.row = source.form.row
        try:
            there = not self.streaming and self.out.exists()
            same = there and os.path.samestat(self.out.stat(), os.fstat(source.descriptor))
            self._records = Records(source, self.log, is_output=same and fix)
            if fix and there:
                self.log.run_start = whole(self.out)
                self.torn = self.out.stat().st_size - self.log.run_start
            if same and fix:
                source.size = self.log.run_start
            if fix and there and not same:
                resume.read(self.out, self.log.run_start)
            else:
                resume.read(None)
            if fix and not repair and self.out.is_file():
                self.log.open_to_read()
        except OSError as error:
            raise OutputError(
                tr("cannot read {out}: {reason}", out=self.out, reason=because(error))
            ) from None
        except BadLine:
            raise self._records.input_changed() from None  # between two looks at a line
        self.log.ledger, self.findings = resume.ledger, resume.findings
        self._records.equals = resume.equals
        self._records.moved = resume.moved
        self._in_order = resume.in_order

    def start(self, *, fix: bool) -> None:
        """Open the log for appending; without `fix` an earlier output is moved aside.

        Raises:
            OutputError: The output cannot be written.
        """
        try:
            if self.streaming:
                self._start_stream()
                return
            if not fix:
                self.moved_to = move_aside(self.out, self._clock)
            self.log.open()
            kept = self.torn and (self.findings.is_refused or self.log.tail_has_answers())
            if kept:
                self.findings.keep(self.log.run_start, self.torn)
            if len(self.findings):
                self.kept_in = keep_aside(self.out, self.log.fd, self.findings.kept(), self._clock)
            if self.torn:
                self.log.cut(self.torn, self.kept_in if kept else None)
            self.log.begin()
            for name in (ORDERED, SNAPSHOT):
                beside(self.out, name).unlink(missing_ok=True)  # a killed run's
            temporary = beside(self.out, ORDERED)
            temporary.touch()  # refused now, not when everything is paid for
            temporary.unlink()
            self._spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(SPARE)]
        except OSError as error:
            raise OutputError(
                tr("cannot write {out}: {reason}", out=self.out, reason=because(error))
            ) from None

    def _start_stream(self) -> None:
        """Open the stream and write the lines that came done: nothing else would keep them."""
        self.log.open_stream()
        for index, state in enumerate(self.ledger.states):
            if state == State.DONE:
                record = self._records.ordered_line(index, self.ledger)
                self.log.show(record.rstrip(b"\n"))

    def close(self) -> None:
        """Close the log and give the lock back."""
        self.log.close()
        self._lock.give_back()
        self._free_spare()

    def _free_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    # -- in input order ----------------------------------------------------------------------

    async def snapshot(self, path: Path) -> None:
        """Write every line in input order to a file, atomically, in a thread of its own.

        Raises:
            InputChanged: The input was edited in place.
            OutputError: A record in the output can no longer be read.
            OSError: The file cannot be written.
        """
        moment, temporary = self.ledger.copy(), beside(self.out, SNAPSHOT)
        try:
            await anyio.to_thread.run_sync(self._records.write, path, temporary, moment)
        except BadLine as error:
            raise self._records.unreadable(error) from error

    def finish(self) -> None:
        """Replace the log by one line per input line, in input order.

        Raises:
            OutputError: There was no room; the log stays as it is and `-f` goes on from it.
            InputChanged: The input was edited in place; the log stays as it is too.
        """
        self._free_spare()
        try:
            self.log.write_unsaved()
            if self.streaming:
                return
            foreign = self.log.foreign_parts()
            if self._in_order and self.log.end == self.log.run_start and self.errors is None:
                self.told = self._records.told(self.out)  # nothing was added: it is in order
                return
            if foreign:
                path = keep_aside(self.out, self.log.fd, foreign, self._clock)
                what = tr(
                    "%s: another program wrote to it during the run; what it wrote is kept in %s"
                )
                log.warning(what, self.out, path)
            ordered = beside(self.out, ORDERED)
            self.told = self._records.write(self.out, ordered, self.ledger, errors=self.errors)
            self.log.settled()
        except OSError as error:
            raise self._unfinished(error) from error
        except BadLine as error:
            raise self._records.unreadable(error) from error

    def _unfinished(self, error: OSError) -> OutputError:
        if self.streaming:
            return OutputError(
                tr("cannot write {out}: {reason}", out=self.out, reason=because(error))
            )
        if self.log.is_removed():
            return OutputError(
                tr(
                    "{out} was removed while the run was on: the answers of this run were "
                    "written to standard error; put them into {out} before you run again with -f",
                    out=self.out,
                )
            )
        advice = tr("make room") if error.errno in NO_ROOM else tr("fix that")
        if self.errors is not None and Path(error.filename or "").parent == self.errors.parent:
            told = {"errors": self.errors, "reason": because(error), "out": self.out}
            return OutputError(NO_ERROR_FILE.filled(**told, advice=advice))
        if (ordered := disk.whole_of(self.out)).exists():
            return OutputError(
                tr(
                    "cannot write {out}: {reason}; what belongs in it is in {ordered}: {advice} "
                    "and run again with -f, which puts it there",
                    out=self.out,
                    reason=because(error),
                    ordered=ordered,
                    advice=advice,
                )
            )
        return OutputError(
            tr(
                "cannot write {out}: {reason}; the answers so far are in it, in the order "
                "they came: {advice} and run again with -f",
                out=self.out,
                reason=because(error),
                advice=advice,
            )
        )
