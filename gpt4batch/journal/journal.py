"""The output: an append-only log while the run is on, one line per input line after it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from filecmp import cmp
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from gpt4batch import disk
from gpt4batch.errors import InputChanged, OutputError, UsageError
from gpt4batch.journal.findings import Findings
from gpt4batch.journal.ledger import Ledger
from gpt4batch.journal.resume import Resume, moved_aside, whole
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import NOT_RUN, BadLine, Line, parse_line
from gpt4batch.lines.record import (
    LOG_MARK,
    State,
    calls_noted,
    gone_on,
    in_key_order,
    render,
    render_bad,
)
from gpt4batch.lines.steps import Standing, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpt4batch.journal.source import Source

log = logging.getLogger(__name__)

SPARE = 4
"""Descriptors that are kept back, so that the output can be put in order when there are no more."""

ORDERED, SNAPSHOT = TEMPORARY = ("", ".snapshot")


@dataclass(slots=True)
class _Go:
    """A line in hand whose records of this run are written as steps."""

    name: str
    standing: Standing
    steps: int = 0


STDOUT = 1
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAKE_ROOM = "make room"


def is_stream(out: Path) -> bool:
    """Tell whether an output is a device or a pipe, which keeps nothing that could be read back."""
    try:
        mode = out.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)


class Journal:
    """The results of one batch on disk, and what is known of every line.

    Args:
        out: The output file, its lock beside it; None is a stream, to which each line is written
            as it is done.
        fsync: `always`, `interval` (whoever runs the journal calls `sync` each second) or `never`.
        descriptor: The stream's number, where there is no file.
    """

    def __init__(
        self, out: Path | None, *, fsync: str = "interval", descriptor: int = STDOUT
    ) -> None:
        self.streaming = out is None or is_stream(out)
        named = "<stdout>" if descriptor == STDOUT else f"<descriptor {descriptor}>"
        self.out = Path(named) if out is None else out
        self.ledger = Ledger()
        self.moved_to: Path | None = None
        self.calls: int | None = None
        self._unsaved: list[tuple[int, State, bytes]] = []
        self.findings = Findings(self.out)
        self.torn = 0
        self.kept_in: Path | None = None
        self._goes: dict[int, _Go] = {}
        self._name = token_hex(4)
        self._count = 0
        self._fsync = fsync
        self._in_order = False
        self._source: Source | None = None
        self._is_output = False
        self._descriptor = descriptor if out is None else None
        self._lock = Path(f"{out}.lock")
        self._lock_fd = -1
        self._spare: list[int] = []
        self._fd = -1
        self._end = self._run_start = self._synced = 0
        self._foreign: list[tuple[int, int]] = []
        self._disk_failed = False
        self._syncing = anyio.Lock()

    @classmethod
    def of(cls, out: str, *, fsync: str = "interval") -> Journal:
        """Return the journal of what `-o` names: a file, a device, `-` or a descriptor."""
        descriptor = STDOUT if out == "-" else disk.descriptor_of(out)
        if descriptor is not None:
            return cls(None, fsync=fsync, descriptor=descriptor)
        return cls(Path(os.path.realpath(out)), fsync=fsync)

    # -- opening -----------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the only run that writes this output.

        Raises:
            UsageError: Another run does.
            OutputError: The folder cannot be written.
        """
        if self.streaming:
            return
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock_fd = disk.open_lock(self._lock)
            locked = disk.lock(self._lock_fd)
            if locked is False:
                raise self._taken()
            if locked is None:
                log.warning("%s cannot be locked: run nothing else with this output", self._lock)
            disk.put_back(self.out)  # a killed run's
        except OSError as error:
            raise self._unlockable(error) from None

    def look_at_lock(self) -> None:
        """Refuse what `lock` would refuse, without making a file.

        Raises:
            UsageError: Another run writes this output.
            OutputError: The lock cannot be opened.
        """
        if self.streaming or not os.path.lexists(self._lock):
            return
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._unlockable(error) from None
        try:
            if disk.lock(descriptor, shared=True) is False:
                raise self._taken()
        except OSError as error:
            raise self._unlockable(error) from None
        finally:
            os.close(descriptor)

    def _taken(self) -> UsageError:
        return UsageError(
            f"another run is writing {self.out} (it holds {self._lock}); "
            "wait for it to end, or choose another output with -o"
        )

    def _unlockable(self, error: OSError) -> OutputError:
        if os.path.lexists(self._lock):
            return OutputError(
                f"cannot use the lock {self._lock}: {error.strerror}; if no run is on, remove it "
                "(or have its owner do so), or choose another output with -o"
            )
        return OutputError(f"cannot write beside {self.out}: {error.strerror}")

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
        self._source = source
        same = self._same(source)
        self._is_output = same and fix  # which grows, and is ours
        resume = Resume(source, self.out, fix=fix)
        try:
            if fix and not self.streaming:
                self._run_start = whole(self.out)
                self.torn = self._size() - self._run_start
            if same and fix:
                source.size = self._run_start
            if not fix or same or self.streaming or not self.out.exists():
                resume.read(None)
            else:
                resume.read(self.out, self._run_start)
            if fix and not repair and self.out.is_file():
                self._fd = os.open(self.out, os.O_RDONLY)
        except OSError as error:
            raise OutputError(f"cannot read {self.out}: {error.strerror}") from None
        except BadLine:
            raise self._input_changed() from None  # between two looks at a line
        self.ledger, self.findings = resume.ledger, resume.findings
        self._in_order = resume.in_order

    def _size(self) -> int:
        return self.out.stat().st_size if self.out.exists() else 0

    def start(self, *, fix: bool) -> None:
        """Open the log for appending; without `fix` an earlier output is moved aside.

        Raises:
            OutputError: The output cannot be written.
        """
        try:
            if self.streaming:
                number = self._descriptor
                self._fd = os.open(self.out, os.O_WRONLY) if number is None else os.dup(number)
                self._pass_on_done()
                return
            if not fix:
                self._move_aside()
            self._fd = disk.open_to_append(self.out)
            if self.findings.is_refused and self.torn:
                self.findings.keep(self._run_start, self.torn)
            if len(self.findings):
                self.kept_in = self._keep_aside(self.findings.kept())
            self._repair()
            self._end = self._run_start = self._synced = os.fstat(self._fd).st_size
            self._end_last_line()
            for kind in TEMPORARY:
                self._temporary(kind).unlink(missing_ok=True)  # a killed run's
            self._temporary(ORDERED).touch()  # refused now, not when everything is paid for
            self._temporary(ORDERED).unlink()
            self._spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(SPARE)]
        except OSError as error:
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from None

    def _repair(self) -> None:
        """Cut a torn last line off the output, which is known to be ours by now."""
        if self.torn and os.fstat(self._fd).st_size == self._run_start + self.torn:
            if os.pread(self._fd, self.torn, self._run_start).strip():
                log.warning("%s: a torn last line (%d bytes) is dropped", self.out, self.torn)
            os.ftruncate(self._fd, self._run_start)

    def _pass_on_done(self) -> None:
        """Write the lines that came done: a stream has no other place that keeps them."""
        for index, state in enumerate(self.ledger.states):
            if state == State.DONE:
                self._write(self._shown(self._ordered_line(index, self.ledger).rstrip(b"\n")))

    def close(self) -> None:
        """Close the log and give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        self._free_spare()

    def _free_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def _same(self, source: Source) -> bool:
        try:
            return os.path.samestat(self.out.stat(), os.fstat(source.descriptor))
        except OSError:
            return False

    def _move_aside(self) -> None:
        """Keep the output of an earlier run under a name of its own."""
        if not self.out.exists() or not self.out.stat().st_size:
            return
        self.moved_to = self._free_name()
        disk.move_aside(self.out, self.moved_to)
        log.info("%s was there: moved to %s", self.out, self.moved_to)

    def _free_name(self) -> Path:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        names = (stamp, *(f"{stamp}-{count}" for count in range(1, 1000)))
        return next(
            path
            for name in names
            if not (path := self.out.with_name(f"{self.out.stem}.{name}{self.out.suffix}")).exists()
        )

    def _end_last_line(self) -> None:
        """Give a last line without a newline its newline, so that no record is glued to it."""
        if self._end and os.pread(self._fd, 1, self._end - 1) != b"\n":
            self._write(b"\n")

    def _record(self, index: int, ledger: Ledger) -> bytes:
        """Return the latest record of a line, or the line itself, without its newline.

        The record of an earlier run that left the line undone comes with the keys of the input.
        """
        assert self._source is not None
        place = ledger.place(index)
        if place is None:
            return self._line_of_input(index)
        text = ledger.read(index, self._source.descriptor, self._fd)
        start, _, in_input = place
        if in_input:
            self._check_input()
        earlier = start != self._source.start(index) if in_input else start < self._run_start
        if earlier and ledger.states[index] != State.DONE:
            return gone_on(self._line_of_input(index), text)
        return text

    def _line_of_input(self, index: int) -> bytes:
        assert self._source is not None
        text = self._source.raw(index)
        self._check_input()
        return text

    def _check_input(self) -> None:
        """Refuse what was just read of the input where it is not what it was."""
        assert self._source is not None
        if not self._is_output and self._source.is_changed():
            raise self._input_changed()

    def _input_changed(self) -> InputChanged:
        assert self._source is not None
        verb = "were written to" if self.streaming else "are in"
        return InputChanged(
            f"the input {self._source.path} was changed while the run was on: its lines are no "
            f"longer where they were; the answers so far {verb} {self.out}, in the order they "
            "came: run again with -f"
        )

    def _unreadable(self, error: BadLine) -> OutputError:
        return OutputError(
            f"cannot write {self.out} in order: a record in it was changed and cannot be read "
            f"({error}); the answers so far are in it, in the order they came: run again with -f"
        )

    # -- while the run is on -----------------------------------------------------------------

    def state(self, index: int) -> State:
        """Return how far a line is."""
        return State(self.ledger.states[index])

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before.

        Raises:
            InputChanged: The input was edited in place.
            OutputError: The line's record in the output is none any more.
        """
        assert self._source is not None
        try:
            raw = self._record(index, self.ledger)
            line = parse_line(raw, index, self._source.number(index))
        except BadLine as error:
            raise self._unreadable(error) from error
        if self.ledger.place(index) is None:
            line.forget()
        return line

    def append(self, index: int, state: State, record: bytes) -> None:
        """Write a record of a line; from here on a crash cannot lose it.

        Raises:
            OutputError: It could not be written; it is held in `unsaved`.
        """
        if self.streaming and state is State.PARTIAL:
            return
        text = self._shown(record) if self.streaming else LOG_MARK + record + b"\n"
        try:
            self._write_unsaved()
            start = self._write(text)
        except OSError as error:
            self._unsaved.append((index, state, text))
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from error
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
            self._write_unsaved()
            start = self._write(text)
        except OSError as error:
            self._unsaved.append((index, state, LOG_MARK + now.whole() + b"\n"))
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from error
        self.ledger.step(index, state, start, len(text))

    def _shown(self, record: bytes) -> bytes:
        """Return a record as a line of a stream, which may be a terminal."""
        return (rawjson.escaped_controls(record) if os.isatty(self._fd) else record) + b"\n"

    def unsaved(self) -> Iterator[bytes]:
        """Yield every record of this run that is not safe on the disk, one line each."""
        lost = self._disk_failed
        if self._is_removed():
            lost, self._synced = True, self._run_start
        if lost:
            with os.fdopen(os.dup(self._fd), "rb") as file:
                file.seek(self._synced)
                yield from (line.strip() + b"\n" for line in file)
        for _, _, text in self._unsaved:
            yield text.strip() + b"\n"

    def _write(self, text: bytes) -> int:
        """Write at the end, which another program may have moved; return where the text begins."""
        view = memoryview(text)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            status = os.fstat(self._fd)
            if not self.streaming and not status.st_nlink:
                raise FileNotFoundError(None, "the file or its folder was removed")
        except OSError:
            if (written := len(text) - len(view)) and not self.streaming:
                with contextlib.suppress(OSError):  # a torn record would spoil the next one
                    os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR) - written)
            raise
        if self.streaming:
            return 0
        start = self._end
        if status.st_size != start + len(text):
            start = os.lseek(self._fd, 0, os.SEEK_CUR) - len(text)
            self._note_foreign(start)
        self._end = start + len(text)
        return start

    def _note_foreign(self, end: int) -> None:
        """Note what another program has written since our last record."""
        if end > self._end:
            self._foreign.append((self._end, end))

    def _is_removed(self) -> bool:
        """Tell whether the output has no name any more, so that nobody will find what is in it."""
        return not self.streaming and self._fd >= 0 and os.fstat(self._fd).st_nlink == 0

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
        wanted = self._end
        with anyio.CancelScope(shield=True):
            async with self._syncing:
                if self._synced >= wanted:
                    return
                end = self._end
                try:
                    await anyio.to_thread.run_sync(disk.sync, self._fd)
                except OSError as error:
                    self._disk_failed = True
                    raise OutputError(f"cannot write {self.out}: {error.strerror}") from error
                self._synced = end

    # -- in input order ----------------------------------------------------------------------

    async def snapshot(self, path: Path) -> None:
        """Write every line in input order to a file, atomically, in a thread of its own.

        Raises:
            InputChanged: The input was edited in place.
            OutputError: A record in the output is none any more.
            OSError: The file cannot be written.
        """
        moment = self.ledger.copy()
        try:
            await anyio.to_thread.run_sync(self._write_ordered, path, moment, SNAPSHOT)
        except BadLine as error:
            raise self._unreadable(error) from error

    def finish(self) -> None:
        """Replace the log by one line per input line, in input order.

        Raises:
            OutputError: There was no room; the log stays as it is and `-f` goes on from it.
            InputChanged: The input was edited in place; the log stays as it is too.
        """
        self._free_spare()
        if self.streaming:
            self._finish_stream()
            return
        try:
            self._write_unsaved()
            self._note_foreign(os.fstat(self._fd).st_size)
            if self._in_order and self._end == self._run_start:
                return  # nothing was added to an output that is in order already
            if self._foreign:
                path = self._keep_aside((start, end - start) for start, end in self._foreign)
                what = "%s: another program wrote into it while the run was on; kept aside: %s"
                log.warning(what, self.out, path)
            self.calls = self._write_ordered(self.out, self.ledger)
        except OSError as error:
            raise self._unfinished(error) from error
        except BadLine as error:
            raise self._unreadable(error) from error

    def _unfinished(self, error: OSError) -> OutputError:
        if self._is_removed():
            return OutputError(
                f"{self.out} was removed while the run was on: the answers of this run were "
                f"written to standard error; put them into {self.out} before you run again with -f"
            )
        advice = MAKE_ROOM if error.errno in NO_ROOM else "see to it"
        if (whole := disk.whole_of(self.out)).exists():
            return OutputError(
                f"cannot write {self.out}: {error.strerror}; what belongs into it lies in {whole}: "
                f"{advice} and run again with -f, which puts it there"
            )
        return OutputError(
            f"cannot write {self.out}: {error.strerror}; the answers so far are in it, "
            f"in the order they came: {advice} and run again with -f"
        )

    def _finish_stream(self) -> None:
        try:
            self._write_unsaved()
        except OSError as error:
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from error

    def _write_unsaved(self) -> None:
        while self._unsaved:
            index, state, text = self._unsaved[0]
            start = self._write(text)
            self.ledger.put(index, state, start, len(text), in_input=False)
            del self._unsaved[0]

    def _keep_aside(self, places: Iterable[tuple[int, int]]) -> Path:
        """Copy what will not be in the ordered output to a file of its own, and name that.

        A run that was killed has kept the same texts already: they are not kept twice.
        """
        path, size = self._free_name(), 0
        with path.open("wb") as file:
            for start, length in places:
                size += file.write(os.pread(self._fd, length, start).strip() + b"\n")
            file.flush()
            disk.sync(file.fileno())
        for other in moved_aside(self.out):
            if other != path and other.stat().st_size == size and cmp(other, path, shallow=False):
                path.unlink()
                return other
        return path

    def _temporary(self, kind: str) -> Path:
        """Return where an ordered file is written at first; the lock makes it this run's own."""
        return self.out.with_name(f".{self.out.name}{kind}.tmp")

    def _write_ordered(self, path: Path, ledger: Ledger, kind: str = ORDERED) -> int:
        """Write every line to a file, atomically; return the chat calls that they tell of."""
        calls = 0
        with disk.replacing(path, self._temporary(kind)) as file:
            for index in range(len(ledger)):
                text = self._ordered_line(index, ledger)
                calls += calls_noted(text)
                file.write(text)
        return calls

    def _ordered_line(self, index: int, ledger: Ledger) -> bytes:
        assert self._source is not None
        state = ledger.states[index]
        record = self._record(index, ledger)
        finished = state == State.FAILED or (state == State.DONE and b'"iErr"' not in record)
        if finished and in_key_order(record):
            return record + b"\n"
        if reason := self._source.bad_reason(index):
            return render_bad(record, reason) + b"\n"
        line = parse_line(record)
        if ledger.place(index) is None:
            line.forget()
        error = None if state == State.DONE else line.error or NOT_RUN
        line.meta.pop("go", None)
        return render(record, line.answers(), error, line.meta) + b"\n"
