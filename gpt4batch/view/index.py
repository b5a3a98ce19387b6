"""The index of one output: built in a thread, kept up to date while the run is on."""

from __future__ import annotations

import os
import stat
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.errors import UsageError
from gpt4batch.lines.record import LOG_MARK
from gpt4batch.lines.steps import folded
from gpt4batch.view.figures import Figures
from gpt4batch.view.questions import lacks_question
from gpt4batch.view.record import Facts, State, examine, go_of_step, go_of_whole
from gpt4batch.view.rows import Place, Rows
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpt4batch.price import Price

BLOCK = 2 << 20
LONGEST_LINE = 1 << 30
LONGEST_TAIL = 64 << 20
POLL = 0.5

INPUT, OUTPUT = 0, 1


class File(NamedTuple):
    """An open file and which one it is."""

    descriptor: int
    device: int
    inode: int


def open_file(path: Path) -> File:
    """Open a regular file for reading, or say why not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            tr("{path}: cannot be read: {reason}", path=path, reason=because(error))
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UsageError(tr("{path}: not a file; give an output such as out.jsonl", path=path))
    return File(descriptor, status.st_dev, status.st_ino)


def blocks(descriptor: int, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines, many at a time, and where they start; a last line without end is left."""
    tail, size = b"", BLOCK
    while data := os.pread(descriptor, size, start + len(tail)):
        block = tail + data
        end = block.rfind(b"\n") + 1
        if not end:
            tail, size = block, min(size * 2, LONGEST_LINE)
            continue
        yield start, block[:end]
        tail, size = block[end:], BLOCK
        start += end


class Index:
    """One version of an output; a file that replaces it gets an index of its own.

    Threads: one writes; any may read. A row's columns change under the lock only.
    """

    def __init__(
        self,
        output: File,
        source: File | None,
        generation: int,
        price: Price | None = None,
    ) -> None:
        self.files = {OUTPUT: output}
        if source is not None:
            self.files[INPUT] = source
        self.generation = generation
        self.rows = Rows()
        self.figures = Figures(price)
        self.lock = threading.Lock()
        self.changes = array("I")
        self.positions = dict.fromkeys(self.files, 0)
        self.goes: dict[str, int] = {}
        self.earlier: dict[int, list[Place]] = {}
        self.tail_size = -1
        self.log_records = 0
        self.complete = False
        self.stopped = False

    def close(self) -> None:
        """Stop whoever still reads and close the files."""
        self.stopped = True
        with self.lock:
            for file in self.files.values():
                os.close(file.descriptor)
            self.files = {}

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's line."""
        with self.lock:
            return self._read_row(row)

    def _read_row(self, row: int) -> bytes:
        """Return a row's record, put together where it was written in steps."""
        places = [*self.earlier.get(row, ()), self.rows.place(row)]
        return folded([self._read(place) for place in places])

    def question(self, row: int) -> bytes:
        """Return the line of the input where the row does not repeat it, else nothing."""
        with self.lock:
            place = self.rows.question(row)
            return self._read(place) if place else b""

    def read_span(self, source: int, offset: int, length: int) -> bytes:
        """Return bytes of the input or the output."""
        with self.lock:
            return self._read(Place(source, offset, length))

    def _read(self, place: Place) -> bytes:
        file = self.files.get(place.source)
        return os.pread(file.descriptor, place.length, place.offset) if file else b""

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return len(self.rows) + len(self.changes)

    def follow(self) -> None:
        """Take in all whole lines that are there by now."""
        for source in sorted(self.files):
            for start, block in blocks(self.files[source].descriptor, self.positions[source]):
                self.take_block(source, start, block)
                self.positions[source] = start + len(block)
                if self.stopped:
                    return
        self.take_tail()
        self.complete = True

    def take_block(self, source: int, offset: int, block: bytes) -> None:
        """Take in the lines of a block."""
        for line in block.split(b"\n"):
            if line and not line.isspace():
                self.take(Place(source, offset, len(line)), line)
            offset += len(line) + 1

    def take_tail(self) -> None:
        """Take in a last line without an end if it is a whole record and no longer grows."""
        for source, file in self.files.items():
            start = self.positions[source]
            size = os.fstat(file.descriptor).st_size - start
            if not 0 < size <= LONGEST_TAIL or (source == OUTPUT and size != self.tail_size):
                self.tail_size = size if source == OUTPUT else self.tail_size
                continue
            line = os.pread(file.descriptor, size, start)
            if line.rstrip().endswith(b"}") and b"\n" not in line:
                self.take(Place(source, start, size), line)
                self.positions[source] = start + size

    def take(self, place: Place, line: bytes) -> None:
        """Take in one line: a new row, or news of one that is there."""
        is_log = place.source == OUTPUT and line.startswith(LOG_MARK)
        if is_log and (go := go_of_step(line)):
            self.take_step(go, place, line)
            return
        facts = examine(line)
        with self.lock:
            self.log_records += is_log
            row = self.row_of(facts.key, place, is_log=is_log)
            if row >= 0 and self.rows.source[row] == INPUT and lacks_question(line):
                self.rows.keep_question(row)
            self.show(row, place, facts)
            if is_log:
                row = row if row >= 0 else len(self.rows) - 1
                self.earlier.pop(row, None)
                if go := go_of_whole(line):
                    self.goes[go] = row

    def take_step(self, go: str, place: Place, line: bytes) -> None:
        """Take in what is new of a line that is half-way; without its beginning it is nothing."""
        with self.lock:
            self.log_records += 1
            row = self.goes.get(go)
            if row is None:
                return
            facts = examine(folded([self._read_row(row), line]))
            before = self.rows.place(row)
            self.show(row, place, facts)
            self.earlier.setdefault(row, []).append(before)
            if facts.state not in (State.PARTLY, State.NOT_RUN):
                del self.goes[go]

    def show(self, row: int, place: Place, facts: Facts) -> None:
        """Show a new row (-1), or news of one that is there."""
        cause = self.figures.cause_number(facts.cause, row if row >= 0 else len(self.rows))
        finish = self.figures.finish_number(facts.finish)
        if row < 0:
            self.rows.append(place, facts, cause, finish)
        else:
            self.forget(row)
            self.rows.replace(row, place, facts, cause, finish)
            self.changes.append(row)
        self.figures.count(facts, cause, finish, 1)

    def row_of(self, key: int, place: Place, *, is_log: bool) -> int:
        """Return the row that the line stands for, or -1 for a new one."""
        if is_log:
            return self.rows.updated_by(key)
        if place.source == OUTPUT and INPUT in self.files:
            return self.rows.matching().take(key)
        return -1

    def forget(self, row: int) -> None:
        """Take a row's line out of the figures."""
        facts: Facts = examine(self._read_row(row))
        self.figures.count(facts, self.rows.cause[row], self.rows.finish[row], -1)

    def progress(self) -> tuple[int, int]:
        """Return the bytes read and the bytes there are."""
        with self.lock:
            sizes = [os.fstat(file.descriptor).st_size for file in self.files.values()]
        return sum(self.positions.values()), sum(sizes)

    def public(self) -> dict[str, Any]:
        """Return the state of the index and its figures."""
        read, size = self.progress()
        with self.lock:
            return {
                "generation": self.generation,
                "version": self.version,
                "rows": len(self.rows),
                "log_records": self.log_records,
                "complete": self.complete,
                "read": read,
                "size": size,
                **self.figures.public(),
            }


class Output:
    """One output under its path, whichever file that is by now."""

    def __init__(self, path: Path, source: Path | None = None, price: Price | None = None) -> None:
        self.path = path
        self.price = price
        self.source = source if source is not None and not same_file(source, path) else None
        self.stop = threading.Event()
        self.generation = 0
        self.index = self.open_index()
        self.thread = threading.Thread(target=self.run, name=f"index {path.name}", daemon=True)

    def open_index(self) -> Index:
        """Open the files as they are now."""
        self.generation += 1
        source = open_file(self.source) if self.source is not None else None
        return Index(open_file(self.path), source, self.generation, self.price)

    def start(self) -> None:
        """Begin to index, in the background."""
        self.thread.start()

    def close(self) -> None:
        """End the background thread and close the files."""
        self.stop.set()
        self.index.stopped = True
        if self.thread.is_alive():
            self.thread.join()
        self.index.close()

    def run(self) -> None:
        """Index what is there, then what comes, until stopped."""
        while not self.stop.is_set():
            self.follow()
            self.stop.wait(POLL)

    def follow(self) -> None:
        """Take in what is new; a file that was replaced is indexed anew and then shown."""
        if self.was_replaced():
            try:
                fresh = self.open_index()
            except UsageError:
                return
            self.index, old = self.indexed(fresh), self.index
            old.close()
        else:
            self.index.follow()

    def indexed(self, fresh: Index) -> Index:
        """Index a file that is not shown yet."""
        for source in sorted(fresh.files):
            for start, block in blocks(fresh.files[source].descriptor, 0):
                fresh.take_block(source, start, block)
                fresh.positions[source] = start + len(block)
                if self.stop.is_set():
                    return fresh
        fresh.follow()
        return fresh

    def was_replaced(self) -> bool:
        """Tell whether the path names another file by now, or its file was cut."""
        file = self.index.files[OUTPUT]
        try:
            status = self.path.stat()
        except OSError:
            return False
        if (status.st_dev, status.st_ino) != (file.device, file.inode):
            return True
        return status.st_size < self.index.positions[OUTPUT]

    def public(self) -> dict[str, Any]:
        """Return what the overview shows of this output."""
        index = self.index
        try:
            modified = self.path.stat().st_mtime
        except OSError:
            modified = 0.0
        return {
            "name": self.path.name,
            "has_input": self.source is not None,
            "modified": modified,
            "now": time.time(),
            **index.public(),
        }


def same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths name one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False
