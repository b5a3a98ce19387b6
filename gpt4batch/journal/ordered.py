"""Every line as its latest record tells it, and all of them in input order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from gpt4batch import disk
from gpt4batch.errors import InputChanged, OutputError
from gpt4batch.lines.parse import NOT_RUN, BadLine, Line, parse_line
from gpt4batch.lines.record import (
    State,
    calls_noted,
    gone_on,
    in_key_order,
    render,
    render_bad,
    usage_noted,
)
from gpt4batch.usage import NO_USAGE, Usage
from gpt4batch.words import tr

if TYPE_CHECKING:
    from pathlib import Path

    from gpt4batch.journal.ledger import Ledger
    from gpt4batch.journal.log import Log
    from gpt4batch.journal.source import Source


WITH_ID = b'{"id":'
"""How a record of ours begins whose line has an id."""


class Told(NamedTuple):
    """What the lines of an output tell of all runs: chat calls, and tokens."""

    calls: int
    usage: Usage


class Records:
    """The latest record of each line, in the log or in the input.

    Args:
        source: The input.
        log: The output.
        is_output: The input is the output as well, which grows, and is ours.
    """

    def __init__(self, source: Source, log: Log, *, is_output: bool) -> None:
        self._source = source
        self._log = log
        self._is_output = is_output
        self.equals = b""
        """A byte a line, 1 where another line is equal, as far as that is known."""
        self.moved = False
        """Whether the output did not follow the input line for line."""

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before.

        Raises:
            InputChanged: The input was edited in place.
            OutputError: The line's record in the output can no longer be read.
        """
        number = self._source.number(index)
        try:
            if self._log.ledger.place(index) is not None:
                anew = self._log.ledger.states[index] == State.DONE
                record = self._record(index, self._log.ledger, anew=anew)
                return parse_line(record, index, number)
            text = self._source.text(index)
            self._check_input()
            line = self._source.form.line(text, index, number)
        except BadLine as error:
            raise self.unreadable(error) from error
        line.forget()
        return line

    def _record(self, index: int, ledger: Ledger, *, anew: bool = False) -> bytes:
        """Return the latest record of a line, or the line itself, without its newline.

        One that is to be asked `anew` comes with the keys of the input.

        The record of an earlier run that left the line undone comes with the keys of the input, and
        so does one of several equal lines, as it may be another one's. Where the output does not
        follow the input, a line without an id may have had an equal one that was edited since.
        """
        place = ledger.place(index)
        if place is None:
            return self._line_of_input(index)
        text = self._source.form.result(ledger.read(index, self._source.descriptor, self._log.fd))
        start, _, in_input = place
        if in_input:
            self._check_input()
        earlier = start != self._source.start(index) if in_input else start < self._log.run_start
        shared = bool(self.equals and self.equals[index])
        shared = shared or (self.moved and not text.startswith(WITH_ID))
        if anew or (earlier and (shared or ledger.states[index] != State.DONE)):
            return gone_on(self._line_of_input(index), text)
        return text

    def _line_of_input(self, index: int) -> bytes:
        text = self._source.raw(index)
        self._check_input()
        return text

    def _check_input(self) -> None:
        """Refuse what was just read of the input where it is not what it was."""
        if not self._is_output and self._source.is_changed():
            raise self.input_changed()

    def input_changed(self) -> InputChanged:
        """Return what stops a run whose input was edited."""
        return InputChanged(
            tr(
                "the input {path} was changed while the run was on: its lines are no longer "
                "where they were; the answers so far are in {out}, in the order they came: "
                "run again with -f",
                path=self._source.path,
                out=self._log.out,
            )
        )

    def unreadable(self, error: BadLine) -> OutputError:
        """Return what stops a run whose output was edited."""
        return OutputError(
            tr(
                "cannot write {out} in order: a record in it was changed and cannot be read "
                "({error}); the answers so far are in it, in the order they came: run again "
                "with -f",
                out=self._log.out,
                error=error,
            )
        )

    def write(
        self, path: Path, temporary: Path, ledger: Ledger, *, errors: Path | None = None
    ) -> Told:
        """Write every line to a file, atomically; return what they tell of.

        Args:
            path: The file.
            temporary: What it is until it is whole.
            ledger: Where the records lie.
            errors: A file of its own for the rows of lines that are not done.
        """
        calls, usage, row = 0, NO_USAGE, self._source.form.row
        with ExitStack() as stack:
            file = apart = stack.enter_context(disk.replacing(path, temporary))
            if errors is not None:
                beside = errors.with_name(f".{errors.name}.{temporary.name}")
                apart = stack.enter_context(disk.replacing(errors, beside))
            for index in range(len(ledger)):
                record = self._final_record(index, ledger)
                calls += calls_noted(record)
                usage = usage.plus(usage_noted(record))
                done = ledger.states[index] == State.DONE
                (file if done else apart).write(row(record) + b"\n")
        return Told(calls, usage)

    def told(self, path: Path) -> Told:
        """Return what the lines of an output tell of that is in order already."""
        calls, usage = 0, NO_USAGE
        with path.open("rb") as file:
            for row in file:
                record = self._source.form.result(row)
                calls += calls_noted(record)
                usage = usage.plus(usage_noted(record))
        return Told(calls, usage)

    def ordered_line(self, index: int, ledger: Ledger) -> bytes:
        """Return a line as the ordered output has it."""
        return self._source.form.row(self._final_record(index, ledger)) + b"\n"

    def _final_record(self, index: int, ledger: Ledger) -> bytes:
        """Return the record of a line with its keys in order, and without what only a log has."""
        state = ledger.states[index]
        record = self._record(index, ledger)
        finished = state == State.FAILED or (state == State.DONE and b'"iErr"' not in record)
        if finished and in_key_order(record):
            return record
        if reason := self._source.bad_reason(index):
            return render_bad(record, reason)
        line = parse_line(record)
        if ledger.place(index) is None:
            line.forget()
        error = None if state == State.DONE else line.error or NOT_RUN
        line.meta.pop("go", None)
        return render(record, line.answers(), error, line.meta)
