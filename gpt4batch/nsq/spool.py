"""A queue of messages in one file: appended to, read in order, acknowledged from the front."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import zlib
from collections import deque
from typing import TYPE_CHECKING, Self

from gpt4batch import disk
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"G4BSPOOL"
HEADER = struct.Struct(">8sQ")
"""The magic, and where the first message lies that was not acknowledged."""
HEAD = struct.Struct(">II")
"""The length and the CRC-32 of the message that follows."""

MIB = 1024 * 1024
ROOM = 1024 * MIB
"""Bytes of messages that may wait in a file, unless told otherwise."""
SHRINK = MIB
COMPACT = 16 * MIB


class Letter(bytes):
    """A message that says itself to which topic it goes; only a queue in memory keeps that."""

    topic: str

    def __new__(cls, body: bytes, topic: str) -> Self:
        """Return a message for a topic."""
        letter = super().__new__(cls, body)
        letter.topic = topic
        return letter


class Backlog:
    """A queue in memory with the ways of a spool, for what nobody needs after this process.

    Args:
        newest: Keep only so many messages that were not read yet, the newest; 0 keeps all.
    """

    def __init__(self, newest: int = 0) -> None:
        self.path = "memory"
        self.cut = 0
        self._newest = newest
        self._unread: deque[bytes] = deque()
        self._read: deque[bytes] = deque()

    @property
    def waiting(self) -> int:
        """Return the messages that were not acknowledged yet."""
        return len(self._unread) + len(self._read)

    def append(self, body: bytes) -> bool:
        """Add a message."""
        self._unread.append(body)
        while self._newest and len(self._unread) > self._newest:
            self._unread.popleft()
        return True

    def next(self) -> bytes | None:
        """Return the first message that was not read yet, if there is one."""
        if not self._unread:
            return None
        self._read.append(self._unread.popleft())
        return self._read[-1]

    def acknowledge(self, count: int) -> None:
        """Forget the first `count` messages that were read."""
        for _ in range(count):
            self._read.popleft()

    def rewind(self) -> None:
        """Go back to the first message that was not acknowledged."""
        self._unread.extendleft(reversed(self._read))
        self._read.clear()
        while self._newest and len(self._unread) > self._newest:
            self._unread.popleft()


class Spool:
    """A queue that outlives its process.

    A message is in the file, by one write, when `append` returns; what waits is brought to the disk
    by `sync`, which a power cut leaves. What a crash cut short is dropped when the file is opened.

    Args:
        path: The file; made here, and removed by `close` when nothing waits in it.
        limit: Bytes that may wait; `append` refuses what would exceed them.

    Raises:
        UsageError: The file cannot be opened, or is not a spool.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, limit: int = ROOM) -> None:
        self.path = path
        self.waiting = 0
        """Messages that were not acknowledged yet."""
        self.cut = 0
        """Bytes at the end of the file that were an incomplete message."""
        self._limit = limit
        self.held: deque[bytes] = deque()
        """Messages for which the file had no room."""
        self._held_read = 0
        self._sent: deque[int] = deque()
        """Where the messages that were read end in the file; 0 is one that is held."""
        self._first = self._read = self._end = HEADER.size
        self._seen = self._synced = 0
        self._is_named = False
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                tr("{path}: cannot be opened: {reason}", path=path, reason=because(error))
            ) from None
        try:
            self._recover()
        except OSError as error:
            os.close(self._file)
            raise OutputError(
                tr("cannot write {path}: {reason}", path=path, reason=because(error))
            ) from None
        except BaseException:
            os.close(self._file)
            raise

    def append(self, body: bytes) -> bool:
        """Add a message; tell whether there was room for it, in the limit and on the disk."""
        record = HEAD.pack(len(body), zlib.crc32(body)) + body
        if self._end - self._first + len(record) > self._limit:
            return False
        try:
            whole = os.pwrite(self._file, record, self._end) == len(record)
        except OSError:
            whole = False
        if not whole:
            os.ftruncate(self._file, self._end)
            if self.waiting or self._end == HEADER.size:
                return False
            self._empty()  # what was sent takes the room
            return self.append(body)
        self._end += len(record)
        self.waiting += 1
        return True

    def hold(self, body: bytes) -> None:
        """Keep a message in memory for which there is no room."""
        self.held.append(body)
        self.waiting += 1

    def next(self) -> bytes | None:
        """Return the first message that was not read yet, if there is one."""
        if self._read == self._end:
            if self._held_read == len(self.held):
                return None
            self._held_read += 1
            self._sent.append(0)
            return self.held[self._held_read - 1]
        length, _ = HEAD.unpack(os.pread(self._file, HEAD.size, self._read))
        body = os.pread(self._file, length, self._read + HEAD.size)
        self._read += HEAD.size + length
        self._sent.append(self._read)
        return body

    def acknowledge(self, count: int) -> None:
        """Forget the first `count` messages that were read."""
        if count == 0:
            return
        for _ in range(count):
            if end := self._sent.popleft():
                self._first = end
            else:
                self.held.popleft()
                self._held_read -= 1
        self.waiting -= count
        if self.waiting == 0 and self._end > SHRINK:
            self._empty()
        elif self._first >= max(COMPACT, self._end - self._first):
            self._compact()
        else:
            self._mark()

    def is_late(self) -> bool:
        """Tell whether what waited at the last call still does and is not on the disk."""
        waits, self._seen = self._first < self._seen, self._end
        return waits and self._synced != self._end

    def sync(self) -> None:
        """Bring to the disk what waits: it may be paid for, and nowhere else.

        May run in a thread: where the file is being written anew, the next call does it.
        """
        end = self._end
        with contextlib.suppress(OSError):
            disk.sync(self._file)
            if not self._is_named:
                disk.sync_folder(self.path.parent)
            self._is_named, self._synced = True, end

    def rewind(self) -> None:
        """Go back to the first message that was not acknowledged."""
        self._sent.clear()
        self._read, self._held_read = self._first, 0

    def close(self) -> None:
        """Close the file, and remove it when nothing waits in it."""
        os.close(self._file)
        if self.waiting == 0:
            self.path.unlink(missing_ok=True)

    def _recover(self) -> None:
        size = os.fstat(self._file).st_size
        header = os.pread(self._file, HEADER.size, 0)
        cut = MAGIC.startswith(header.rstrip(b"\0"))  # NULs are what a power cut leaves
        if not cut and not header.startswith(MAGIC):
            raise UsageError(
                tr("{path}: is in the way: it is not a queue of messages", path=self.path)
            )
        first = size + 1  # of a file that was just being made
        if len(header) == HEADER.size and header.startswith(MAGIC):
            first = HEADER.unpack(header)[1]
        self._first = self._read = self._end = first if first <= size else HEADER.size
        while self._whole(size):
            self._end = self._read
            self.waiting += 1
        self.cut = max(0, size - self._end)
        os.ftruncate(self._file, self._end)
        self._mark()
        self.rewind()

    def _whole(self, size: int) -> bool:
        if self._read + HEAD.size > size:
            return False
        length, check = HEAD.unpack(os.pread(self._file, HEAD.size, self._read))
        start = self._read + HEAD.size
        if length == 0 or start + length > size:
            return False
        self._read = start + length
        computed = zlib.crc32(os.pread(self._file, length, start))
        return bool(computed == check)

    def _empty(self) -> None:
        # The file first: after a crash in between a mark beyond its end counts as empty.
        os.ftruncate(self._file, HEADER.size)
        self._first = self._read = self._end = HEADER.size
        self._seen = self._synced = 0
        self._mark()

    def _compact(self) -> None:
        gone = self._first - HEADER.size
        beside = self.path.with_name(self.path.name + ".new")
        with self.path.open("rb") as old, disk.replacing(self.path, beside) as new:
            new.write(HEADER.pack(MAGIC, HEADER.size))
            old.seek(self._first)
            shutil.copyfileobj(old, new, MIB)
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self._first -= gone
        self._read -= gone
        self._end -= gone
        self._seen, self._synced = max(0, self._seen - gone), self._end
        self._sent = deque(place and place - gone for place in self._sent)

    def _mark(self) -> None:
        os.pwrite(self._file, HEADER.pack(MAGIC, self._first), 0)
