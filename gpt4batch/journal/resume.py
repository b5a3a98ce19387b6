"""What earlier runs did already: the input and the output, each looked through once."""

from __future__ import annotations

import contextlib
import logging
import os
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gpt4batch.journal.aside import moved_aside
from gpt4batch.journal.beside import Beside
from gpt4batch.journal.claims import Claims, bare, is_other
from gpt4batch.journal.findings import Findings, around_holes, is_torn
from gpt4batch.journal.half_way import HalfWay
from gpt4batch.journal.ledger import KeyIndex, Ledger
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import (
    BOM,
    NO_ASKS,
    BadLine,
    Line,
    decoded,
    parse_line,
    parsed,
)
from gpt4batch.lines.record import (
    LOG_MARK,
    State,
    is_bad_record,
    key_if_done,
    state_of,
    superseded,
)
from gpt4batch.lines.steps import is_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.journal.source import Source
    from gpt4batch.lines.formats.base import Format

log = logging.getLogger(__name__)

BUFFER = 1 << 20
LOOKED_AT = 50
"""Records of an earlier output that are looked at to tell whose it is."""


class Resume:
    """Finds which line each result belongs to, and how far each line is.

    Args:
        source: The input.
        out: The output, which is named in what is found.
        fix: Take the results in; without it every line is new.
    """

    def __init__(self, source: Source, out: Path | None = None, *, fix: bool) -> None:
        self.ledger = Ledger()
        self.findings = Findings(out or Path())
        self.in_order = False
        self._source = source
        self._fix = fix
        self._keys: KeyIndex | None = None
        self._claims: Claims
        if fix:
            self._use_keys()
        self._beside: Beside | None = None
        self._output = -1
        self._next = 0
        self._half_way = HalfWay()

    @property
    def moved(self) -> bool:
        """Tell whether the output does not follow the input line for line."""
        return self._beside is not None and not self._beside.follows

    @property
    def equals(self) -> bytes:
        """Return a byte a line: 1 where another line has the same id and asks, so far as known."""
        return self._keys.equal_lines(len(self.ledger)) if self._keys is not None else b""

    def read(self, out: Path | None, size: int = 0) -> None:
        """Read the input with its own results, and those in the first `size` bytes of an output.

        `in_order` then tells whether the output holds one line per input line in their order,
        `findings` what else it holds.
        """
        if out is None:
            self._read_input()
            return
        with Beside(out, size, self._source.form) as self._beside:
            self._read_input()
        self._read_output(out, size, self._beside)

    def _read_input(self) -> None:
        self._source.scan(self._see)
        self.ledger.grow(len(self._source))
        if self._source.is_log:
            if not len(self._source):
                log.warning(
                    "%s is the log of a run that was killed and holds only the lines that were "
                    "begun; to run the others too, use the original input: -i INPUT -o %s -f",
                    self._source.path,
                    self._source.path,
                )
            if self._beside is not None:  # the output comes after the log, and not beside it
                if self._beside.follows:
                    self._add_keys(len(self._source))
                self._beside.forget()
            if self._keys is None:
                self._use_keys()
                self._add_keys(len(self._source))
            for start, number, raw in self._source.log_records():
                self._take_log_record(start, number, raw)
        if not self._fix:
            self.ledger = Ledger()
        self.ledger.grow(len(self._source))

    def _see(self, line: Line) -> None:
        """Look at a line of the input."""
        if self._keys is None:
            return
        carries = line.answered or line.error or line.meta
        if carries and (state := state_of(line)) is not State.NEW:
            self.ledger.grow(line.index + 1)
            start = self._source.start(line.index)
            self.ledger.put(line.index, state, start, len(line.raw), in_input=True)
        if self._beside is not None and self._beside.follows:
            if self._beside.take(line):
                return
            self._add_keys(line.index)
        self._keys.add(line.key, line.index)

    def _use_keys(self) -> None:
        self._keys = KeyIndex()
        self._claims = Claims(self._keys, lambda: self.ledger.states, self._known)

    def _add_keys(self, end: int) -> None:
        """Add the keys of the lines before `end`, none of which was added so far."""
        assert self._keys is not None
        for index in range(end):
            if self._source.bad_reason(index) is None:
                self._keys.add(self._source.line(index).key, index)

    def _read_output(self, out: Path, size: int, beside: Beside) -> None:
        """Read what the output holds from where it no longer followed the input."""
        assert self._keys is not None
        taken = len(beside.found)
        self.findings.records = self.findings.readable = taken
        with out.open("rb", buffering=BUFFER) as file:
            self._output = file.fileno()
            start = file.seek(beside.end)
            if start < size and beside.follows:
                self._add_keys(len(self._source))
            whole = start == size and taken == len(self._source)
            self.in_order = whole and not self._source.bad_count
            self._next = self._keys.after(taken - 1) if taken else 0
            self._take_found(beside.found)
            for number, raw in enumerate(file, taken + 1):
                if start >= size:
                    break
                self._take_record(start, number, raw)
                start += len(raw)
        if self.ledger.count(State.NEW):
            if beside.follows and whole:
                self._add_keys(len(self._source))
            keys, states = self._keys, self.ledger.states
            self.findings.elsewhere = [
                path
                for path in moved_aside(out)
                if any(
                    (index := keys.find(line.key)) >= 0 and states[index] == State.NEW
                    for line in answered_in(path, self._source.form)
                )
            ]

    def _take_found(self, found: Ledger) -> None:
        """Note what was found beside the input."""
        if self.ledger.count(State.NEW) == len(self.ledger):
            found.grow(len(self.ledger))
            self.ledger = found
            return
        for index in range(len(found)):
            if place := found.place(index):
                offset, size, _ = place
                self._put(index, State(found.states[index]), offset, size, in_input=False)

    def _take_log_record(self, start: int, number: int, raw: bytes) -> None:
        """Read a record of a log, which is a new line where it belongs to no earlier one."""
        try:
            line = parse_line(raw)
        except BadLine as error:
            if self._take_step(start, raw, str(error)):
                return
            line = None
        if line is None or not self._assign(line, start, len(raw), in_input=True, grown=True):
            index = len(self._source)
            self._source.add(start, number, raw, self._see)
            self.ledger.grow(len(self._source))
            if line is not None and len(self._source) > index:
                self._begin(index, start, line)

    def _take_record(self, start: int, number: int, raw: bytes) -> None:
        """Note one line of the output, or that it is an answer to no line of the input."""
        if not raw.strip():
            self.in_order = False
            return
        self.findings.records += 1
        try:
            text = self._source.form.result(raw)
            doc = decoded(text)
            key = key_if_done(doc)
            if key is not None and self._take_done(key, start, raw):
                return
            line = parsed(doc, text)
        except BadLine as error:
            if not self._take_step(start, raw, str(error)):
                self._take_unreadable(start, number, raw, str(error))
            return
        self.findings.readable += 1
        if (index := self._next_line(raw, line.key)) >= 0:
            state = state_of(line)
            self._put(index, state, start, len(raw), in_input=False)
            begun = state is not State.DONE and line.answered
            if begun and (equals := self._claims.equals_of(line)) is not None:
                equals.have(index)
            self._begin(index, start, line)
        elif not self._assign(line, start, len(raw), in_input=False) and line.answered:
            assert self._keys is not None
            self.findings.stranger(start, number, line, len(raw), self._keys.find)

    def _take_done(self, key: bytes, start: int, raw: bytes) -> bool:
        """Note the record of a line that is done; False where it has no line, or equal ones."""
        assert self._keys is not None
        index = self._next_line(raw, key)
        if index < 0:
            index = self._keys.find(key)
            known = index >= 0 and self.ledger.states[index]
            if index < 0 or known or index in self._keys.equals:
                return False
            self._next = self._keys.after(index)
        self.ledger.put(index, State.DONE, start, len(raw), in_input=False)
        self.findings.readable += 1
        return True

    def _take_step(self, start: int, raw: bytes, reason: str) -> bool:
        """Read a step of a half-way line; False where it is not one or lacks its beginning."""
        step = decoded(raw) if reason == NO_ASKS else {}
        taken = is_step(step) and self._half_way.go_on(self.ledger, step, start, len(raw))
        self.findings.readable += taken
        return taken

    def _begin(self, index: int, start: int, line: Line) -> None:
        if "go" in line.meta and self._keys is not None:  # steps may follow
            self._half_way.begin(self.ledger, index, start, line, self._claims.equals_of(line))

    def _take_unreadable(self, start: int, number: int, raw: bytes, reason: str) -> None:
        """Take what can be read of a line with holes; note any other one as damaged."""
        findings = self.findings
        if is_bad_record(raw):
            findings.readable += 1
            return
        pieces = around_holes(raw)
        if pieces is None:
            findings.damage(start, number, raw, reason)
            return
        findings.holes += 1
        for place, piece in pieces:
            try:
                parse_line(piece)
            except BadLine:
                findings.keep(start + place, len(piece))
            else:
                self._take_record(start + place, number, piece)

    def _next_line(self, raw: bytes, key: bytes) -> int:
        """Return the next line, where a record is its own as in an ordered output; else -1."""
        assert self._keys is not None
        if raw.startswith(LOG_MARK) or self._keys.key_at(self._next) != key:
            return -1
        if self.ledger.states[self._keys.line_at(self._next)]:
            return -1
        self._next += 1
        return self._keys.line_at(self._next - 1)

    def _put(
        self, index: int, state: State, start: int, size: int, *, in_input: bool, anew: bool = False
    ) -> None:
        """Note a record of a line; what is new tells nothing.

        What is done is not undone, unless it was asked anew: the record then has what it was.
        """
        if state is State.DONE or (state and (anew or self.ledger.states[index] != State.DONE)):
            self.ledger.put(index, state, start, size, in_input=in_input)

    def _assign(
        self, line: Line, start: int, size: int, *, in_input: bool, grown: bool = False
    ) -> bool:
        """Give a record to the line it belongs to, wherever that stands.

        Args:
            line: The record.
            start: Its offset.
            size: Its bytes, where it stands.
            in_input: Whether it stands in the input.
            grown: The line may have been made from a record itself; then a further one that is
                done is an equal line.
        """
        assert self._keys is not None
        state = state_of(line)
        index = self._keys.find(line.key)
        if index < 0:
            return False
        equals = self._claims.equals_of(line)
        if equals is not None:
            index = self._claims.claim(equals, line)
            if index < 0 and line.answered and not self._claims.has(equals, line):
                return False
        elif (before := self.ledger.states[index]) and (
            (grown and before == State.DONE) or is_other(line, self._known(index))
        ):
            return False
        if index >= 0:
            self._next = self._keys.after(index)
            anew = bool(superseded(line.meta))
            self._put(index, state, start, size, in_input=in_input, anew=anew)
            self._begin(index, start, line)
        return True

    def _known(self, index: int) -> list[Any]:
        """Return the answers that are known of a line, without what was noted in them."""
        record = self.ledger.read(index, self._source.descriptor, self._output)
        return [bare(text) for text in parse_line(self._source.form.result(record)).answers()]


def answered_in(path: Path, form: Format) -> Iterator[Line]:
    """Yield the first lines of an earlier output that have answers, as far as it can be read."""
    with contextlib.suppress(OSError), path.open("rb", buffering=BUFFER) as file:
        for raw in islice(file, LOOKED_AT):
            with contextlib.suppress(BadLine):
                line = parse_line(form.result(raw.removeprefix(BOM)))
                if line.answered:
                    yield line


def whole(out: Path) -> int:
    """Return the size of an output without a torn last line."""
    if not out.exists():
        return 0
    with out.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _last_line(file, size)
    if not tail.endswith(b"\n"):
        with contextlib.suppress(rawjson.JSONError):
            rawjson.loads(tail.removeprefix(BOM) if len(tail) == size else tail)
            return size
        return size - len(tail) if is_torn(tail) else size
    return size


def _last_line(file: IO[bytes], size: int) -> bytes:
    """Return what follows the last newline before the end, the newline at the end included."""
    found = b""
    while size and found.count(b"\n", 0, len(found) - 1) == 0:
        step = min(size, max(BUFFER, len(found)))
        size -= step
        file.seek(size)
        found = file.read(step) + found
    return found[found.rfind(b"\n", 0, len(found) - 1) + 1 :] if found else b""
