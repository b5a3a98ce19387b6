"""A file that is read twice, and may not be another one by the second time."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20


class Watched(io.FileIO):
    """An open file that knows whether what was read of it from its beginning is still there.

    The checksum is taken from the chunks as they are read: taken of each line, it would cost three
    times as much.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, "rb")
        self._mark = self._marked()
        self._left = self.length = self._mark[0]
        self._crc = 0
        self.changed = False

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read on, and add what was read to the checksum."""
        count = super().readinto(buffer)
        if count and self._left:
            seen = memoryview(buffer)[: min(count, self._left)]
            self._crc = crc32(seen, self._crc)
            self._left -= len(seen)
        return count

    def is_changed(self) -> bool:
        """Return whether the file is another one than when it was read.

        Whoever reads it asks this after each reading, not before. A file that was only touched, or
        to which something was added, is the same.
        """
        if not self.changed and (mark := self._marked()) != self._mark:
            crc = start = 0
            while start < self.length:
                chunk = os.pread(self.fileno(), min(CHUNK, self.length - start), start)
                if not chunk:
                    break
                crc, start = crc32(chunk, crc), start + len(chunk)
            self.changed = crc != self._crc
            self._mark = mark
        return self.changed

    def _marked(self) -> tuple[int, int]:
        status = os.fstat(self.fileno())
        return status.st_size, status.st_mtime_ns
