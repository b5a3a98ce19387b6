"""The output: an append-only log while the run is on, one line per input line after it."""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from filelock import FileLock, Timeout

from gpt4batch import jsonl
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.ledger import Equals, KeyIndex, Ledger, State
from gpt4batch.records import (
    LOG_MARK,
    NOT_RUN,
    BadLine,
    Line,
    glance,
    is_bad_record,
    parse_line,
    render,
    render_bad,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpt4batch.source import Source

log = logging.getLogger(__name__)

BUFFER = 1 << 20
ORDERED, SNAPSHOT = TEMPORARY = ("", ".snapshot")


class Journal:
    """The results of one batch on disk, and what is known of every line.

    Args:
        out: The output file, its lock beside it; None is standard output, to which each line is
            written as it is done.
        fsync: `always`, `interval` (whoever runs the journal calls `sync` each second) or `never`.
    """

    def __init__(self, out: Path | None, *, fsync: str = "interval") -> None:
        self.streaming = out is None or (out.exists() and not out.is_file())
        self.out = Path("<stdout>") if out is None else out
        self.ledger = Ledger()
        self.moved_to: Path | None = None
        self._unsaved: list[tuple[int, State, bytes]] = []
        self._orphans: list[tuple[int, int]] = []
        self._fsync = fsync
        self._keys: KeyIndex | None = None
        self._next = 0
        self._in_order = False
        self._source: Source | None = None
        self._lock = FileLock(f"{out}.lock", timeout=0)
        self._fd = -1
        self._end = self._run_start = self._synced = 0
        self._begun = False
        self._disk_failed = False
        self._syncing = anyio.Lock()

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
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"another run is writing {self.out} (it holds {self._lock.lock_file}); "
                "wait for it to end, or choose another output with -o"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write beside {self.out}: {error.strerror}") from None

    def open(self, source: Source, *, fix: bool) -> None:
        """Read the input, and find what is done already if `fix`.

        Raises:
            OutputError: The output cannot be read or repaired.
        """
        self._source = source
        self._keys = KeyIndex() if fix else None
        same = self._same(source)
        try:
            if same and fix:
                source.size = self._repair()
            self._scan(source, fix=fix)
            if fix and not same and not self.streaming and self.out.exists():
                self._repair()
                self._index_output()
        except OSError as error:
            raise OutputError(f"cannot read {self.out}: {error.strerror}") from None
        self._keys = None

    def start(self, *, fix: bool) -> None:
        """Open the log for appending; without `fix` an earlier output is moved aside.

        Raises:
            OutputError: The output cannot be written.
        """
        try:
            if self.streaming:
                is_stdout = self.out == Path("<stdout>")
                self._fd = os.dup(1) if is_stdout else os.open(self.out, os.O_WRONLY)
                return
            if not fix:
                self._move_aside()
            self._fd = os.open(self.out, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            self._end = self._run_start = self._synced = os.fstat(self._fd).st_size
            for kind in TEMPORARY:
                self._temporary(kind).unlink(missing_ok=True)  # a killed run's
        except OSError as error:
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from None

    def close(self) -> None:
        """Close the log and give the lock back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()

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
        self.out.rename(self.moved_to)
        log.info("%s was there: moved to %s", self.out, self.moved_to)

    def _free_name(self) -> Path:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        names = (stamp, *(f"{stamp}-{count}" for count in range(1, 1000)))
        return next(
            path
            for name in names
            if not (path := self.out.with_name(f"{self.out.stem}.{name}{self.out.suffix}")).exists()
        )

    def _repair(self) -> int:
        """Cut a torn last line off the output and return its size."""
        if not self.out.exists():
            return 0
        with self.out.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            tail = _last_line(file, size)
            if tail.endswith(b"\n") or not tail.strip():
                return size
            with contextlib.suppress(jsonl.JSONError):
                jsonl.loads(tail)
                return size
            log.warning("%s: a torn last line (%d bytes) is dropped", self.out, len(tail))
            file.truncate(size - len(tail))
            return size - len(tail)

    def _begin_log(self) -> None:
        """Mark where the log begins, once: what follows is no line of its own, even if torn."""
        if self._begun or self.streaming or not self._end:
            return
        tail = os.pread(self._fd, len(LOG_MARK), max(0, self._end - len(LOG_MARK)))
        if tail != LOG_MARK:
            self._write(LOG_MARK if tail.endswith(b"\n") else b"\n" + LOG_MARK)
        self._begun = True

    # -- what is done already ----------------------------------------------------------------

    def _scan(self, source: Source, *, fix: bool) -> None:
        """Read the input; note the results that its lines carry if `fix`."""

        def see(line: Line) -> None:
            if self._keys is None:
                return
            self._keys.add(line.key, line.index)
            if not (line.answered or line.error or line.meta):
                return
            state = state_of(line)
            if state is not State.NEW:
                self.ledger.grow(line.index + 1)
                start = source.start(line.index)
                self.ledger.put(line.index, state, start, len(line.raw), in_input=True)

        source.scan(see)
        self.ledger.grow(len(source))
        if source.is_log:
            self._take_log(source, see)
        if not fix:
            self.ledger = Ledger()
        self.ledger.grow(len(source))

    def _take_log(self, source: Source, see: Callable[[Line], None]) -> None:
        """Read an input that is the log of a run that was killed."""
        if self._keys is None:
            self._keys = KeyIndex()
            for index in range(len(source)):
                if source.bad_reason(index) is None:
                    self._keys.add(source.line(index).key, index)
        for start, number, raw in source.log_records():
            self._take_log_record(source, start, number, raw, see)

    def _take_log_record(
        self, source: Source, start: int, number: int, raw: bytes, see: Callable[[Line], None]
    ) -> None:
        """Take in a record of a log; a line of its own where it belongs to none so far."""
        try:
            line = parse_line(raw)
        except BadLine:
            line = None
        if line is None or not self._assign(line, start, in_input=True, grown=True):
            source.add(start, number, raw, see)
            self.ledger.grow(len(source))

    def _index_output(self) -> None:
        """Note the results that the output holds already."""
        with self.out.open("rb", buffering=BUFFER) as file:
            self._fd = os.dup(file.fileno())
            self._in_order, start, logged = True, 0, False
            for raw in file:
                logged = logged or raw.endswith(LOG_MARK)
                self._take_record(start, raw, logged=logged)
                start += len(raw)
        os.close(self._fd)
        self._fd = -1
        self._in_order = self._in_order and self._next == len(self.ledger)
        if self._orphans:
            log.warning(
                "%s: %d results are of no line of this input; they are kept aside at the end",
                self.out,
                len(self._orphans),
            )

    def _take_record(self, start: int, raw: bytes, *, logged: bool) -> None:
        """Note one line of the output, or that it is an answer to no line of the input."""
        if not raw.strip():
            self._in_order = False
            return
        seen = None if logged else glance(raw)
        if seen is not None and seen.done and self._is_next(seen.key):
            self._note_next(State.DONE, start, len(raw))
            return
        try:
            line = parse_line(raw)
        except BadLine:
            self._in_order = False
            if not is_bad_record(raw):
                self._orphans.append((start, len(raw)))
            return
        if not logged and self._is_next(line.key):
            self._note_next(state_of(line), start, len(raw))
            return
        self._in_order = False
        if not self._assign(line, start, in_input=False) and line.answered:
            self._orphans.append((start, len(raw)))

    def _is_next(self, key: bytes) -> bool:
        """Tell whether a record is that of the next line, as it is in an ordered output."""
        assert self._keys is not None
        return self._keys.key_at(self._next) == key

    def _note_next(self, state: State, start: int, size: int) -> None:
        assert self._keys is not None
        index = self._keys.line_at(self._next)
        self._next += 1
        self._put(index, state, start, size, in_input=False)

    def _put(self, index: int, state: State, start: int, size: int, *, in_input: bool) -> None:
        """Note a record of a line; what is done is never undone."""
        if state is State.DONE or self.ledger.states[index] != State.DONE:
            self.ledger.put(index, state, start, size, in_input=in_input)

    def _assign(self, line: Line, start: int, *, in_input: bool, grown: bool = False) -> bool:
        """Give a record to the line it belongs to, wherever that stands.

        Args:
            line: The record.
            start: Its offset.
            in_input: Whether it stands in the input.
            grown: The line may have been made from a record itself; then a further one that is
                done is an equal line.
        """
        assert self._keys is not None
        state = state_of(line)
        index = self._keys.find(line.key)
        if index < 0:
            return False
        equals = self._keys.equals.get(index)
        if equals is not None:
            index = self._claim(equals, line, state)
        elif grown and self.ledger.states[index] == State.DONE:
            return False
        if index >= 0:
            self._next = self._keys.after(index)
            self._put(index, state, start, len(line.raw), in_input=in_input)
        return True

    def _claim(self, equals: Equals, line: Line, state: State) -> int:
        answers = [_bare(answer) for answer in line.answers()]

        def done(index: int) -> bool:
            return self.ledger.states[index] == State.DONE

        def continues(index: int) -> bool:
            earlier = [_bare(answer) for answer in parse_line(self._record(index)).answers()]
            return answers[: len(earlier)] == earlier

        if state is State.DONE:
            return equals.claim_done(done=done, continues=continues)
        return equals.claim(begun=line.answered > 0, done=done, continues=continues)

    def _record(self, index: int, ledger: Ledger | None = None) -> bytes:
        """Return the latest record of a line, or the line itself, without its newline."""
        assert self._source is not None
        place = (ledger or self.ledger).place(index)
        if place is None:
            return self._source.raw(index)
        offset, size, in_input = place
        descriptor = self._source.descriptor if in_input else self._fd
        return os.pread(descriptor, size, offset).rstrip()

    # -- while the run is on -----------------------------------------------------------------

    def state(self, index: int) -> State:
        """Return how far a line is."""
        return State(self.ledger.states[index])

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before."""
        assert self._source is not None
        line = parse_line(self._record(index), index, self._source.number(index))
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
        text = self._shown(record) if self.streaming else record + LOG_MARK
        try:
            self._begin_log()
            self._write_unsaved()
            start = self._end
            self._write(text)
        except OSError as error:
            self._unsaved.append((index, state, text))
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from error
        self.ledger.put(index, state, start, len(text), in_input=False)

    def _shown(self, record: bytes) -> bytes:
        """Return a record as a line of a stream, which may be a terminal."""
        return (jsonl.escaped_controls(record) if os.isatty(self._fd) else record) + b"\n"

    def unsaved(self) -> Iterator[bytes]:
        """Yield every record of this run that is not safe on the disk, one line each."""
        lost = self._disk_failed
        if not self.streaming and self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            lost, self._synced = True, self._run_start
        if lost:
            with os.fdopen(os.dup(self._fd), "rb") as file:
                file.seek(self._synced)
                yield from (line.rstrip() + b"\n" for line in file)
        for _, _, text in self._unsaved:
            yield text.rstrip() + b"\n"

    def _write(self, text: bytes) -> None:
        view = memoryview(text)
        try:
            if not self.streaming and os.fstat(self._fd).st_nlink == 0:
                raise FileNotFoundError(None, "the file or its folder was removed")
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            if len(view) < len(text) and not self.streaming:
                with contextlib.suppress(OSError):  # a torn record would spoil the next one
                    os.ftruncate(self._fd, self._end)
            raise
        self._end += len(text)

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
                    await anyio.to_thread.run_sync(os.fdatasync, self._fd)
                except OSError as error:
                    self._disk_failed = True
                    raise OutputError(f"cannot write {self.out}: {error.strerror}") from error
                self._synced = end

    # -- in input order ----------------------------------------------------------------------

    async def snapshot(self, path: Path) -> None:
        """Write every line in input order to a file, atomically, in a thread of its own."""
        moment = self.ledger.copy()
        await anyio.to_thread.run_sync(self._write_ordered, path, moment, SNAPSHOT)

    def finish(self) -> None:
        """Replace the log by one line per input line, in input order.

        Raises:
            OutputError: There was no room; the log stays as it is and `-f` goes on from it.
        """
        if self.streaming:
            self._finish_stream()
            return
        try:
            self._write_unsaved()
            if self._in_order and self._end == self._run_start:
                return  # nothing was added to an output that is in order already
            self._keep_orphans()
            self._write_ordered(self.out, self.ledger)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.out}: {error.strerror}; the answers so far are in it, "
                "in the order they came: make room and run again with -f"
            ) from error

    def _finish_stream(self) -> None:
        try:
            self._write_unsaved()
        except OSError as error:
            raise OutputError(f"cannot write {self.out}: {error.strerror}") from error

    def _write_unsaved(self) -> None:
        while self._unsaved:
            index, state, text = self._unsaved[0]
            self._write(text)
            self.ledger.put(index, state, self._end - len(text), len(text), in_input=False)
            del self._unsaved[0]

    def _keep_orphans(self) -> None:
        if not self._orphans:
            return
        path = self._free_name()
        with path.open("wb") as file:
            for start, size in self._orphans:
                file.write(os.pread(self._fd, size, start).rstrip() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        log.warning(
            "%d results of lines that are no longer in the input: %s", len(self._orphans), path
        )

    def _temporary(self, kind: str) -> Path:
        """Return where an ordered file is written at first; the lock makes it this run's own."""
        return self.out.with_name(f".{self.out.name}{kind}.tmp")

    def _write_ordered(self, path: Path, ledger: Ledger, kind: str = ORDERED) -> None:
        temporary = self._temporary(kind)
        try:
            with temporary.open("wb", buffering=BUFFER) as file:
                for index in range(len(ledger)):
                    file.write(self._ordered_line(index, ledger))
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o7777)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _ordered_line(self, index: int, ledger: Ledger) -> bytes:
        assert self._source is not None
        state = ledger.states[index]
        record = self._record(index, ledger)
        if state == State.FAILED or (state == State.DONE and b'"iErr"' not in record):
            return record + b"\n"
        if reason := self._source.bad_reason(index):
            return render_bad(record, reason) + b"\n"
        line = parse_line(record)
        if ledger.place(index) is None:
            line.forget()
        error = None if state == State.DONE else line.error or NOT_RUN
        return render(record, line.answers(), error, line.meta) + b"\n"


def state_of(line: Line) -> State:
    """Return how far a line says it is."""
    if line.done:
        return State.DONE
    if line.error and not line.waiting:
        return State.FAILED
    return State.PARTIAL if line.answered or line.meta.get("uploads") else State.NEW


def _bare(answer: bytes) -> Any:
    reply = jsonl.loads(answer)
    reply.pop("spec_downloads", None)
    return reply


def _last_line(file: IO[bytes], size: int) -> bytes:
    """Return what follows the last newline before the end, the newline at the end included."""
    found = b""
    while size and found.count(b"\n", 0, len(found) - 1) == 0:
        step = min(size, max(BUFFER, len(found)))
        size -= step
        file.seek(size)
        found = file.read(step) + found
    return found[found.rfind(b"\n", 0, len(found) - 1) + 1 :] if found else b""
