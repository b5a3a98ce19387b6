"""An output read beside its input, as long as each record is that of the next line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.journal.ledger import Ledger
from gpt4batch.lines.parse import BATCH, BOM, OWN_KEYS, BadLine, decoded, parse_line
from gpt4batch.lines.record import LOG_MARK, State, says_done, state_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from gpt4batch.lines.formats.base import Format
    from gpt4batch.lines.parse import Line

BUFFER = 1 << 20


class Beside:
    """The output of a finished run, which needs no table of keys: its order is that of the input.

    `found` is what its records tell of the lines so far, `end` the offset up to which it was read,
    `follows` whether every line so far had its record there.
    """

    def __init__(self, path: Path, size: int, form: Format) -> None:
        self._form = form
        self._size = size
        self._file = path.open("rb", buffering=BUFFER)
        self._begin = len(BOM) if self._file.read(len(BOM)) == BOM else 0
        self._file.seek(self._begin)
        self.found = Ledger()
        self.end = self._begin
        self.follows = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def forget(self) -> None:
        """Drop what was found."""
        self.found, self.end, self.follows = Ledger(), self._begin, False

    def take(self, line: Line) -> bool:
        """Take the next record in and return True, where it is one of this line."""
        raw = self._file.readline() if self.end < self._size else b""
        state = _state_in(self._form.result(raw), line)
        if state is None:
            self.follows = False
            return False
        if len(self.found.states) != line.index:
            self.found.grow(line.index)
        self.found.add(state, self.end, len(raw))
        self.end += len(raw)
        return True


def _state_in(raw: bytes, line: Line) -> State | None:
    """Return how far a record says that a line is; None if it is not its ordered record."""
    if raw.startswith(LOG_MARK):
        return None
    try:
        doc = decoded(raw)
        if not _has_keys_of(doc, line):
            return None
        if says_done(doc, line):
            return State.DONE
        record = parse_line(raw)
    except BadLine:
        return None
    if "go" in record.meta:
        return None  # of a log, though its mark is gone: steps may follow
    return state_of(record) if record.key == line.key else None


def _has_keys_of(doc: dict[str, Any], line: Line) -> bool:
    """Return whether a record has what a line carries along: that of an equal line may not."""
    if BATCH in line.options:
        return True  # such lines are never equal, and their rows carry nothing along
    told = b'"extra"' in line.raw or line.options
    return _carried(doc) == (_carried(decoded(line.raw)) if told else {})


def _carried(doc: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in doc.items() if name not in OWN_KEYS}
    if doc.get("extra") is not None:
        found["extra"] = doc["extra"]
    return found
