"""What the coordinators of a batch must not forget: its name, its epoch, which calls are out.

The file lies beside the output. Its first line is rewritten by each coordinator; the lines after it
are appended as things happen, each in one write, and synced each second.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from gpt4batch import disk
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.lines import rawjson
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from pathlib import Path

SYNC = 1.0
"""Seconds after which what was noted survives a power cut."""
MOST_ENTRIES = 100_000
"""Entries after which the file is written anew: it does not grow with the batch."""


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
        self.out: dict[int, tuple[str, int]] = {}
        """The go of each line that has a call out, and which: what may be paid for."""
        self.counts: Counter[str] = Counter()
        """What was counted by all coordinators, by name."""
        self.heard: dict[str, int] = {}
        """Chats without a reply of which each worker has told."""
        self.again: set[int] = set()
        """Lines of which an ask was counted as asked again."""
        self._path = path
        self._fd = -1
        self._entries = self._synced = 0
        try:
            if path is not None and fix and path.exists():
                self._read(path.read_bytes())
            self.epoch += 1
        except OSError as error:
            raise OutputError(
                tr("cannot read {path}: {reason}", path=path, reason=because(error))
            ) from error

    def open(self) -> None:
        """Begin an epoch.

        Raises:
            OutputError: The file cannot be written.
        """
        try:
            if self._path is not None:
                self._rewrite(self._path)
        except OSError as error:
            raise OutputError(
                tr("cannot write {path}: {reason}", path=self._path, reason=because(error))
            ) from error

    def _read(self, raw: bytes) -> None:
        whole, _, _ = raw.rpartition(b"\n")  # a torn last line was about to be written
        try:
            first, *rest = [rawjson.loads(line) for line in whole.split(b"\n")]
            self.batch, self.epoch = str(first["batch"]), int(first["epoch"])
            for entry in (first, *rest):
                for index, run, *call in entry.get("out", ()):  # an older version noted no call
                    self.out[int(index)] = str(run), int(*call)
                self.counts.update(entry.get("counts", {}))
                self.again.update(map(int, entry.get("again", ())))
                self.heard.update(entry.get("heard", {}))
                for index in entry.get("over", ()):
                    self.out.pop(index, None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                tr(
                    "{path} is not what a fleet's run left there; move it away to begin anew",
                    path=self._path,
                )
            ) from error

    def _rewrite(self, path: Path) -> None:
        doc: dict[str, Any] = {"batch": self.batch, "epoch": self.epoch}
        doc |= {"out": [[line, *call] for line, call in self.out.items()]}
        doc |= {"counts": dict(self.counts)}
        doc |= {"again": list(self.again), "heard": self.heard}
        beside = path.with_name(path.name + ".new")
        with disk.replacing(path, beside) as file:
            file.write(rawjson.dumps(doc) + b"\n")
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._entries = self._synced = 0

    async def keep_synced(self) -> None:
        """Bring what was noted to the disk each second, as the log is, until cancelled."""
        while True:
            await anyio.sleep(SYNC)
            await anyio.to_thread.run_sync(self._sync)

    def _sync(self) -> None:
        with suppress(OSError):  # it is written anew meanwhile; a broken disk is the log's to tell
            if self._synced != self._entries:
                self._synced = self._entries
                disk.sync(self._fd)

    def call_out(self, line: int, run: str, call: int, *, again: bool = False) -> None:
        """Note that a call of a line leaves, before it does, and that it is asked again if so."""
        self.out[line] = run, call
        self._append({"out": [[line, run, call]]} | (self._asked_again(line) if again else {}))

    def asked_again(self, line: int) -> None:
        """Count a line that turns out to have been asked again, if it is not counted."""
        if line not in self.again:
            self._append(self._asked_again(line))

    def _asked_again(self, line: int) -> dict[str, Any]:
        self.again.add(line)
        self.counts["asked_again"] += 1
        return {"counts": {"asked_again": 1}, "again": [line]}

    def call_over(self, line: int) -> None:
        """Note that the end of a line's call is known."""
        if self.out.pop(line, None) is not None:
            self._append({"over": [line]})

    def unanswered(self, number: int, worker: str = "", total: int = 0) -> None:
        """Count chats without a reply until a summary has told of them; a worker told its total."""
        self.counts["unanswered"] += number
        heard = {worker: total} if worker else {}
        self.heard.update(heard)
        self._append({"counts": {"unanswered": number}, "heard": heard})

    def count(self, name: str, number: int = 1) -> None:
        """Add to what is counted."""
        if number:
            self.counts[name] += number
            self._append({"counts": {name: number}})

    def _append(self, entry: dict[str, Any]) -> None:
        if self._fd < 0:
            return
        os.write(self._fd, rawjson.dumps(entry) + b"\n")
        self._entries += 1
        if self._entries >= MOST_ENTRIES and self._path is not None:
            self._rewrite(self._path)

    def close(self, *, done: bool) -> None:
        """Close the file, and remove it if the batch is done: a summary has told of it all."""
        if self._fd < 0 or self._path is None:
            return
        if not done:
            self.count("unanswered", -self.counts["unanswered"])
        os.close(self._fd)
        self._fd = -1
        if done:
            self._path.unlink(missing_ok=True)
