"""The input: where each line lies, all of it checked before the first call."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import stat
import sys
import tempfile
from array import array
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gpt4batch import disk
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import InputError, UsageError
from gpt4batch.journal.watched import Watched
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.asks import Asks
from gpt4batch.lines.parse import BOM, BadLine, Line, parse_line
from gpt4batch.lines.record import LOG_MARK, is_bad_record
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpt4batch.lines.formats.base import Format

log = logging.getLogger(__name__)

BUFFER = 1 << 20
PAGE = 1 << 16
LOOK_INTERVAL = 0.02
LOOKED_AT = 100
"""Lines of an input that are looked at to tell its form: the first ones may be bad."""
"""Seconds between two looks at whether the input was changed: a look at each line costs 3 %."""

STDIN = "-"


class Source:
    """An input file, read once to check it and again as its lines are run.

    It keeps 12 bytes a line: where it begins and its number in the file. The file stays open, so
    that replacing it by name does not change the input under the run; `is_changed` tells whether it
    was edited in place.

    Args:
        path: The file, or `-` for standard input, which is spooled to a temporary file. So is any
            other descriptor or pipe, and paths are relative to the working folder then.
        form_of: Returns the form of its lines by the first that tells it; by default they are asks.
        spool: The folder for that temporary file.
        clock: Tells the time.
    """

    def __init__(
        self,
        path: str,
        *,
        form_of: Callable[[bytes], Format] = lambda _first: Asks(),
        spool: Path | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        number = 0 if path == STDIN else disk.descriptor_of(path)
        self.path = "<stdin>" if number == 0 else path
        self.stem = "stdin" if number == 0 else Path(path).stem
        self._file = _opened(path, spool) if number is None else _spooled(number, spool)
        has_folder = number is None and isinstance(getattr(self._file, "raw", None), Watched)
        self.folder = Path(os.path.realpath(path)).parent if has_folder else Path.cwd()
        self.size = os.fstat(self._file.fileno()).st_size
        self._window = (0, b"")
        self._unseen, self._seen_at = False, 0.0
        self._starts = array("Q")
        self._numbers = array("I")
        self.bad: list[InputError] = []
        self._bad_reasons: dict[int, str] = {}
        self._log_starts = array("Q")
        self._log_numbers = array("I")
        try:
            lines = (raw for _, _, raw, _ in islice(self._physical(), LOOKED_AT))
            self.form = form_of(next(filter(_tells, lines), b""))
        except UsageError:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of lines, bad ones included."""
        return len(self._starts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def is_changed(self) -> bool:
        """Return whether the lines are no longer where they were; ask this after reading one.

        A line out of a window that was looked at is as it was, whatever the file is by now.
        """
        raw, now = getattr(self._file, "raw", None), self._clock.monotonic()
        if not isinstance(raw, Watched):
            return False
        if self._unseen or now - self._seen_at > LOOK_INTERVAL:
            self._unseen, self._seen_at = False, now
            return raw.is_changed()
        return raw.changed

    @property
    def descriptor(self) -> int:
        """Return the open file's descriptor."""
        return self._file.fileno()

    def scan(self, see: Callable[[Line], None]) -> None:
        """Read the whole input, remember where each line lies and show each good one to `see`.

        Bad lines are collected in `bad`. Records of a log, where the input is the output of a run
        that was killed, are no lines of their own: `log_records` yields them.
        """
        for start, number, raw, marked in self._physical():
            if marked:
                self._log_starts.append(start)
                self._log_numbers.append(number)
            else:
                self.add(start, number, raw, see)

    def add(self, start: int, number: int, raw: bytes, see: Callable[[Line], None]) -> None:
        """Take one line in."""
        index = len(self._starts)
        try:
            line = self.form.parse(raw, index, number)
        except BadLine as error:
            if self._log_starts and start + len(raw) == self.size:
                log.warning(
                    "%s:%d: an incomplete last line of a log was dropped", self.path, number
                )
                return
            self._starts.append(start)
            self._numbers.append(number)
            self._bad_reasons[index] = str(error)
            if not is_bad_record(raw):
                self.bad.append(InputError(self.path, number, str(error)))
            return
        self._starts.append(start)
        self._numbers.append(number)
        see(line)

    @property
    def is_log(self) -> bool:
        """Return whether the input is the log of a run that was killed."""
        return len(self._log_starts) > 0

    def log_records(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield start, number and text of the records of a log, in their order."""
        for start, number in zip(self._log_starts, self._log_numbers, strict=True):
            yield start, number, self._at(start)

    def _physical(self) -> Iterator[tuple[int, int, bytes, bool]]:
        """Yield start, line number, text and log mark of each line that is not blank."""
        start = number = 0
        self._file.seek(0)
        while start < self.size:
            text = self._file.readline()
            if not text:
                break
            number += 1
            begin, start = start, start + len(text)
            if start > self.size:  # the file has grown since it was opened: not our input
                text = text[: self.size - begin]
            if number == 1 and text.startswith(BOM):
                begin, text = begin + len(BOM), text[len(BOM) :]
            raw = text.rstrip(b"\r\n")
            if raw.strip():
                yield begin, number, raw, raw.startswith(LOG_MARK)

    @property
    def bad_count(self) -> int:
        """Return the number of bad lines, those that an earlier run kept included."""
        return len(self._bad_reasons)

    def bad_reason(self, index: int) -> str | None:
        """Return why a line is bad, or None for a good one."""
        return self._bad_reasons.get(index)

    def text(self, index: int) -> bytes:
        """Return the text of a line as it stands."""
        return self._at(self._starts[index])

    def raw(self, index: int) -> bytes:
        """Return the text of a line in our own form; that of a bad line as it stands."""
        text = self.text(index)
        return text if index in self._bad_reasons else self.form.own(text)

    def _at(self, start: int) -> bytes:
        # Without a position in the file: a snapshot reads it in a thread at the same time.
        offset, window = self._window
        if not offset <= start < offset + len(window):
            offset, window = start, os.pread(self.descriptor, min(PAGE, self.size - start), start)
            self._unseen = True  # before another thread can take a line out of it
            self._window = offset, window
        end = window.find(b"\n", start - offset)
        return window[start - offset : end].rstrip(b"\r") if end >= 0 else self._long_at(start)

    def _long_at(self, start: int) -> bytes:
        """Return a line that does not end in the window."""
        found, step = b"", PAGE
        while start + len(found) < self.size:
            wanted = min(step, self.size - start - len(found))
            piece, newline, _ = os.pread(self.descriptor, wanted, start + len(found)).partition(
                b"\n"
            )
            found += piece
            if newline or len(piece) < wanted:
                break
            step *= 2
        self._unseen = True
        return found.rstrip(b"\r")

    def line(self, index: int) -> Line:
        """Return a good line."""
        return parse_line(self.raw(index), index, self._numbers[index])

    def start(self, index: int) -> int:
        """Return the offset of a line."""
        return self._starts[index]

    def number(self, index: int) -> int:
        """Return the number of a line in the file, from 1."""
        return self._numbers[index]


def refuse_missing(path: str) -> None:
    """Refuse an input that is not there, before anything else is said of a run.

    Raises:
        UsageError: It is not.
    """
    if path != STDIN and not os.path.exists(path):  # noqa: PTH110
        _opened(path, None).close()


def _opened(path: str, spool: Path | None) -> IO[bytes]:
    try:
        file = io.BufferedReader(Watched(path), BUFFER)  # open as long as the run
    except OSError as error:
        hint = tr(" (name the input with -i FILE)") if path == "example.jsonl" else ""
        raise UsageError(
            tr(
                "cannot read the input {path}: {reason}{hint}",
                path=path,
                reason=because(error),
                hint=hint,
            )
        ) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        with file:
            return _copied(file, spool)
    return file


def _spooled(number: int, folder: Path | None) -> IO[bytes]:
    if number == 0:
        return _copied(sys.stdin.buffer, folder)
    try:
        file = os.fdopen(number, "rb", closefd=False)
    except OSError as error:
        raise UsageError(
            tr(
                "cannot read the input, descriptor {number}: {reason}",
                number=number,
                reason=because(error),
            )
        ) from None
    with file:
        return _copied(file, folder)


def _copied(stream: IO[bytes], folder: Path | None) -> IO[bytes]:
    spool: IO[bytes] | None = None
    try:
        spool = _temporary(folder)
        shutil.copyfileobj(stream, spool)
        spool.flush()
    except OSError as error:
        if spool is not None:
            with contextlib.suppress(OSError):
                spool.close()
        raise UsageError(
            tr("cannot spool standard input: {reason}", reason=because(error))
        ) from None
    return spool


def _tells(raw: bytes) -> bool:
    """Return whether a line tells what form its input has."""
    try:
        doc = rawjson.loads(raw)
    except rawjson.JSONError:
        return False
    return isinstance(doc, dict) and not doc.keys().isdisjoint(("asks", "custom_id"))


def _temporary(folder: Path | None) -> IO[bytes]:
    """Return a file without a name in the folder, or where temporary files are kept."""
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            return tempfile.TemporaryFile(dir=folder, buffering=BUFFER)
    return tempfile.TemporaryFile(buffering=BUFFER)
