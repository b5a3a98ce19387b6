"""How many chats may be paid for without an answer, noted in a file that a kill leaves behind."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from gpt4batch.words import because

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

SIZE = 10
"""Digits of the number in the file, so that a new one covers the old one whole."""


class InFlight:
    """The chats that were sent and have no answer, as long as no summary has told of them.

    That is those on their way, those whose reply was lost, and those that killed runs left. The
    file is there while the run is on: one that is found tells what a killed run left.

    Args:
        path: The file; None keeps none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd = -1
        self._count = self._written = 0
        self.left = 0
        """Chats without a reply, at most, of killed runs; no summary has told of them yet."""

    def open(self) -> None:
        """Read what killed runs left; it stays noted until `forget`."""
        if self._path is None:
            return
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            found = os.pread(self._fd, SIZE, 0).strip()
        except OSError as error:
            log.warning("chats in flight cannot be recorded: %s: %s", self._path, because(error))
            return
        self.left = self._count = int(found) if found.isdigit() else 0
        if self.left:
            log.warning(
                "chats without a reply when an earlier run was killed: %d at most; "
                "they may be paid for",
                self.left,
            )
        self.write()

    def sent(self) -> None:
        """Note that a chat leaves, before it does."""
        self._count += 1
        if self._count > self._written:
            self.write()

    def settled(self) -> None:
        """Take note that a chat has come to an end that leaves nothing to tell.

        The file says so later, when the answer is in the log and somebody calls `write`, each
        second perhaps: two writes a chat would be a twentieth of its cost.
        """
        self._count -= 1

    def write(self) -> None:
        """Bring the number into the file."""
        self._written = self._count
        if self._fd >= 0:
            with suppress(OSError):  # a note that is lost must not lose a line
                os.pwrite(self._fd, b"%*d" % (SIZE, self._count), 0)

    def forget(self) -> None:
        """Forget the chats that were given up: the summary has told of them."""
        self._count = 0

    def close(self) -> None:
        """Remove the file, unless somebody has still to be told of chats in flight."""
        if self._fd >= 0 and self._path is not None:
            self.write()
            os.close(self._fd)
            self._fd = -1
            if not self._count:
                with suppress(OSError):
                    self._path.unlink()
