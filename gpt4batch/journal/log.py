"""The log: records appended to the output, a file or a stream, and brought to the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from gpt4batch import disk
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import OutputError
from gpt4batch.journal.ledger import Ledger
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import LOG_MARK, State
from gpt4batch.lines.steps import Standing, step
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

STDOUT = 1

ANSWERED = re.compile(rb'"answers"\s*:\s*\[\s*\{|"response"\s*:\s*\{')
"""Where an answer begins, in a record and in a row."""


@dataclass(slots=True)
class _Go:
    """A line in hand whose records of this run are written as steps."""

    name: str
    standing: Standing
    steps: int = 0


def is_stream(out: Path) -> bool:
    """Return whether an output is a device or a pipe, from which nothing can be read back."""
    try:
        mode = out.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)


class Log:
    """Records of lines, each appended in one write; the ledger says where they lie.

    Args:
        out: The output file; None is a stream, to which each line is written as it is done.
        fsync: `always`, `interval` (somebody calls `sync` each second) or `never`.
        descriptor: The stream's number, where there is no file.
        clock: Tells the time.
    """

    def __init__(
        self, out: Path | None, *, fsync: str, descriptor: int, clock: Clock = SYSTEM
    ) -> None:
        self.streaming = out is None or is_stream(out)
        named = "<stdout>" if descriptor == STDOUT else f"<descriptor {descriptor}>"
        self.out = Path(named) if out is None else out
        self.ledger = Ledger()
        self.fd = -1
        self.run_start = 0
        """Where the records of this run begin."""
        self.end = 0
        self.row: Callable[[bytes], bytes] = bytes
        """Returns a record as the stream is to have it."""
        self._descriptor = descriptor if out is None else None
        self._fsync = fsync
        self._synced = 0
        self._disk_failed = False
        self._foreign: list[tuple[int, int]] = []
        self._syncing = anyio.Lock()
        self._unsaved: list[tuple[int, State, bytes]] = []
        self._goes: dict[int, _Go] = {}
        self._name = f"{clock.ns() % (1 << 32):08x}"
        self._count = 0

    # -- opening -----------------------------------------------------------------------------

    def open_stream(self) -> None:
        """Open the stream that the output is."""
        number = self._descriptor
        self.fd = os.open(self.out, os.O_WRONLY) if number is None else os.dup(number)

    def open_to_read(self) -> None:
        """Open the output as it is, for somebody who only looks at it."""
        self.fd = os.open(self.out, os.O_RDONLY)

    def open(self) -> None:
        """Open the output to append to it."""
        self.fd = disk.open_to_append(self.out)

    def tail_has_answers(self) -> bool:
        """Tell whether a torn last line has at least the beginning of an answer in it."""
        tail = os.pread(self.fd, os.fstat(self.fd).st_size - self.run_start, self.run_start)
        return bool(ANSWERED.search(tail))

    def cut(self, torn: int, kept_in: Path | None) -> None:
        """Cut a torn last line off, which is known to be ours by now.

        Args:
            torn: Its bytes.
            kept_in: Where its text is kept, if it is.
        """
        if os.fstat(self.fd).st_size == self.run_start + torn:
            if kept_in is not None:
                told = tr("%s: an incomplete last line (%d bytes) does not count: see %s")
                log.warning(told, self.out, torn, kept_in)
            elif os.pread(self.fd, torn, self.run_start).strip():
                log.warning("%s: an incomplete last line (%d bytes) was dropped", self.out, torn)
            os.ftruncate(self.fd, self.run_start)

    def begin(self) -> None:
        """Append from here on; a last line without a newline gets one, so that nothing is glued."""
        self.end = self.run_start = self._synced = os.fstat(self.fd).st_size
        if self.end and os.pread(self.fd, 1, self.end - 1) != b"\n":
            self._write(b"\n")

    def close(self) -> None:
        """Close the output."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # -- records -----------------------------------------------------------------------------

    def append(self, index: int, state: State, record: bytes) -> None:
        """Write a record of a line; from here on a crash cannot lose it.

        Raises:
            OutputError: It could not be written; it is held in `unsaved`.
        """
        if self.streaming and state is State.PARTIAL:
            return
        text = self._shown(self.row(record)) if self.streaming else LOG_MARK + record + b"\n"
        try:
            self.write_unsaved()
            start = self._write(text)
        except OSError as error:
            self._unsaved.append((index, state, text))
            raise OutputError(
                tr("cannot write {out}: {reason}", out=self.out, reason=because(error))
            ) from error
        self.ledger.put(index, state, start, len(text), in_input=False)

    def advance(self, index: int, state: State, now: Standing) -> None:
        """Write what is new of a line since its last record of this run.

        Raises:
            OutputError: It could not be written; the whole record is held in `unsaved`.
        """
        if self.streaming:
            self.append(index, state, now.whole())
            return
        last = self._goes.pop(index, None)
        record = step(last.standing, now, last.name, last.steps + 1) if last else None
        if last is not None and record is not None:
            self._append_step(index, state, record, now)
            going = _Go(last.name, now, last.steps + 1)
        else:
            self._count += 1
            going = _Go(f"{self._name}.{self._count}", now)
            self.append(index, state, now.whole(going.name if state is State.PARTIAL else ""))
        if state is State.PARTIAL:
            self._goes[index] = going

    def _append_step(self, index: int, state: State, record: bytes, now: Standing) -> None:
        text = LOG_MARK + record + b"\n"
        try:
            self.write_unsaved()
            start = self._write(text)
        except OSError as error:
            self._unsaved.append((index, state, LOG_MARK + now.whole() + b"\n"))
            raise OutputError(
                tr("cannot write {out}: {reason}", out=self.out, reason=because(error))
            ) from error
        self.ledger.step(index, state, start, len(text))

    def show(self, record: bytes) -> None:
        """Write a line to the stream, which may be a terminal."""
        self._write(self._shown(record))

    def _shown(self, record: bytes) -> bytes:
        """Return a record as a line of a stream, which may be a terminal."""
        return (rawjson.escaped_controls(record) if os.isatty(self.fd) else record) + b"\n"

    def unsaved(self) -> Iterator[bytes]:
        """Yield every record of this run that is not safe on the disk, one line each."""
        lost = self._disk_failed
        if self.is_removed():
            lost, self._synced = True, self.run_start
        if lost:
            with os.fdopen(os.dup(self.fd), "rb") as file:
                file.seek(self._synced)
                yield from (line.strip() + b"\n" for line in file)
        for _, _, text in self._unsaved:
            yield text.strip() + b"\n"

    def write_unsaved(self) -> None:
        """Write what could not be written before."""
        while self._unsaved:
            index, state, text = self._unsaved[0]
            start = self._write(text)
            self.ledger.put(index, state, start, len(text), in_input=False)
            del self._unsaved[0]

    def _write(self, text: bytes) -> int:
        """Write at the end, which another program may have moved; return where the text begins."""
        view = memoryview(text)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
            status = os.fstat(self.fd)
            if not self.streaming and not status.st_nlink:
                raise FileNotFoundError(None, tr("the file or its folder was removed"))
        except OSError:
            if (written := len(text) - len(view)) and not self.streaming:
                with contextlib.suppress(OSError):  # a torn record would spoil the next one
                    os.ftruncate(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR) - written)
            raise
        if self.streaming:
            return 0
        start = self.end
        if status.st_size != start + len(text):
            start = os.lseek(self.fd, 0, os.SEEK_CUR) - len(text)
            self._note_foreign(start)
        self.end = start + len(text)
        return start

    def _note_foreign(self, end: int) -> None:
        """Note what another program has written since our last record."""
        if end > self.end:
            self._foreign.append((self.end, end))

    def foreign_parts(self) -> list[tuple[int, int]]:
        """Return offset and size of what other programs have written while the run was on."""
        self._note_foreign(os.fstat(self.fd).st_size)
        return [(start, end - start) for start, end in self._foreign]

    def is_removed(self) -> bool:
        """Return whether the output was removed, so that nobody will find what is in it."""
        return not self.streaming and self.fd >= 0 and os.fstat(self.fd).st_nlink == 0

    @property
    def on_disk(self) -> int:
        """Return up to where the log would survive a power cut, as far as `--fsync` wants it to."""
        return self.end if self.streaming or self._fsync == "never" else self._synced

    def settled(self) -> None:
        """Take note that all that was written is on the disk, in another form."""
        self._synced = self.end

    async def durable(self) -> None:
        """Wait until what was appended is on the disk, where `--fsync always` asks for it."""
        if self._fsync == "always":
            await self.sync()

    async def sync(self) -> None:
        """Bring what was appended to the disk; callers at the same time share one fsync.

        Raises:
            OutputError: The disk refused.
        """
        if self.streaming or self._fsync == "never":
            return
        wanted = self.end
        with anyio.CancelScope(shield=True):
            async with self._syncing:
                if self._synced >= wanted:
                    return
                end = self.end
                try:
                    await anyio.to_thread.run_sync(disk.sync, self.fd)
                except OSError as error:
                    self._disk_failed = True
                    raise OutputError(
                        tr("cannot write {out}: {reason}", out=self.out, reason=because(error))
                    ) from error
                self._synced = end
