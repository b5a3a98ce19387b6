"""What the coordinators of a batch must not forget: its name, its epoch, which lines were begun.

The file lies beside the output. Its first line is rewritten by each coordinator; the lines after it
are appended as things happen, each in one write, and are worth little enough to go without fsync.
"""

from __future__ import annotations

import os
from collections import Counter
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Book:
    """The file of one batch, taken over from the last coordinator.

    Args:
        path: The file; None keeps it all in memory.
        fix: Go on with the batch that is in it; else it is a new one.

    Raises:
        UsageError: The file holds something else.
        OutputError: It cannot be read.
    """

    def __init__(self, path: Path | None, *, fix: bool) -> None:
        self.batch = token_hex(6)
        self.epoch = 0
        self.begun: set[int] = set()
        """Lines that an earlier coordinator saw in the hands of a worker."""
        self.counts: Counter[str] = Counter()
        """What was counted by all coordinators, by name."""
        self._path = path
        self._fd = -1
        try:
            if path is not None and fix and path.exists():
                self._read(path.read_bytes())
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}") from error

    def open(self) -> None:
        """Begin an epoch.

        Raises:
            OutputError: The file cannot be written.
        """
        self.epoch += 1
        try:
            if self._path is not None:
                self._rewrite(self._path)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _read(self, raw: bytes) -> None:
        whole, _, _ = raw.rpartition(b"\n")  # a torn last line was about to be written
        try:
            first, *rest = [rawjson.loads(line) for line in whole.split(b"\n")]
            self.batch, self.epoch = str(first["batch"]), int(first["epoch"])
            self.begun.update(int(index) for index in first["begun"])
            self.counts.update(first["counts"])
            for entry in rest:
                self.begun.update(entry.get("begun", ()))
                self.counts.update(entry.get("counts", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self._path} is not what a fleet's run left there; move it away to begin anew"
            ) from error

    def _rewrite(self, path: Path) -> None:
        doc: dict[str, Any] = {"batch": self.batch, "epoch": self.epoch}
        doc |= {"begun": sorted(self.begun), "counts": dict(self.counts)}
        beside = path.with_name(path.name + ".new")
        with disk.replacing(path, beside) as file:
            file.write(rawjson.dumps(doc) + b"\n")
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def begin(self, lines: Iterable[int]) -> None:
        """Note lines that a worker has begun."""
        if found := list(lines):
            self._append({"begun": found})

    def count(self, name: str, number: int = 1) -> None:
        """Add to what is counted."""
        if number:
            self.counts[name] += number
            self._append({"counts": {name: number}})

    def _append(self, entry: dict[str, Any]) -> None:
        if self._fd >= 0:
            os.write(self._fd, rawjson.dumps(entry) + b"\n")

    def close(self, *, done: bool) -> None:
        """Close the file, and remove it if the batch is done."""
        if self._fd < 0 or self._path is None:
            return
        os.close(self._fd)
        self._fd = -1
        if done:
            self._path.unlink(missing_ok=True)
