"""The disk of a history: real files in memory, and what of them a power cut would leave.

Written is not yet on the disk: what was not synced may be lost from any byte on, and a new name
counts only once its folder was synced. Python's own calls are wrapped in the process of one run;
the program under test knows nothing of it.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

NOBODY = random.Random(0)
"""Draws for those that tear nothing."""


@dataclass(slots=True)
class Durable:
    """What of the files would be there after a power cut; handed on when the process ends."""

    synced: dict[int, int] = field(default_factory=dict)
    """For each file, by its number, the bytes that are on the disk."""
    linked: list[str] = field(default_factory=list)
    """New names of files whose folder was not synced yet."""
    renamed: list[tuple[str, str, str]] = field(default_factory=list)
    """Renames whose folder was not synced yet: from, to, and where the replaced file is kept."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong on the disk during one run, by the number of the write or sync."""

    write_fails_at: int = 0
    writes_failing: int = 0
    sync_fails_at: int = 0
    error: int = errno.ENOSPC


NO_TROUBLE = Trouble()


class Disk:
    """Stand between a run and its files.

    Args:
        root: The folder that counts.
        trouble: What fails.
        die_at: The write, sync or rename, counted together, at which the process ends; 0 is none.
        torn: Draws how much of that write gets through.
        end: Ends the process; it does not return.
    """

    def __init__(
        self,
        root: Path,
        trouble: Trouble = NO_TROUBLE,
        *,
        die_at: int = 0,
        torn: random.Random = NOBODY,
        end: Callable[[], Any] = bool,
    ) -> None:
        self.durable = Durable()
        self.operations = 0
        self._root = str(root)
        self._kept = root.parent / f"kept-{root.name}"
        self._trouble = trouble
        self._die_at = die_at
        self._torn = torn
        self._end = end
        self._writes = self._syncs = 0
        self._note_all(root)

    def _note_all(self, root: Path) -> None:
        """Take what is there for what is on the disk."""
        for path in root.rglob("*"):
            if path.is_file():
                status = path.stat()
                self.durable.synced[status.st_ino] = status.st_size

    def cut_power(self, draw: random.Random) -> None:
        """Leave what a power cut would have left, for processes that go on with it."""
        root = Path(self._root)
        cut_power(root, self.durable, draw)
        self.durable = Durable()
        self._note_all(root)

    def install(self) -> None:
        """Wrap the calls of this process that change files."""
        self._write = os.write
        os.write = self.write
        for name in ("fsync", "fdatasync"):
            setattr(os, name, partial(self.sync, getattr(os, name)))
        for name in ("replace", "rename"):
            setattr(os, name, self._renaming(getattr(os, name)))
        self._link = os.link
        setattr(os, "link", self.link)  # noqa: B010 - mypy knows its exact type
        for name in ("pwrite", "ftruncate"):
            setattr(os, name, self._counted(getattr(os, name)))

    def _counts(self, descriptor: int) -> bool:
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return False
        return path.startswith(self._root)

    def _due(self) -> bool:
        self.operations += 1
        return self.operations == self._die_at

    def write(self, descriptor: int, data: Any) -> int:
        """Stand in for os.write: it may fail, or be the last one and torn."""
        if not self._counts(descriptor):
            return self._write(descriptor, data)
        self._writes += 1
        first, count = self._trouble.write_fails_at, self._trouble.writes_failing
        if first and first <= self._writes < first + count:
            if len(data) > 1 and self._torn.random() < 0.5:  # as much as there was room for
                return self._write(descriptor, bytes(data)[: len(data) // 2])
            raise OSError(self._trouble.error, os.strerror(self._trouble.error))
        if self._due():
            self._write(descriptor, bytes(data)[: self._torn.randrange(len(data) + 1)])
            self._end()
        return self._write(descriptor, data)

    def sync(self, original: Callable[[int], None], descriptor: int) -> None:
        """Stand in for os.fsync and os.fdatasync."""
        if not self._counts(descriptor):
            original(descriptor)
            return
        self._syncs += 1
        if self._syncs == self._trouble.sync_fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._due():
            self._end()
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.durable.renamed.clear()
            self.durable.linked.clear()
        else:
            self.durable.synced[status.st_ino] = status.st_size

    def link(self, source: Any, target: Any, **named: Any) -> None:
        """Stand in for os.link."""
        self._link(source, target, **named)
        if os.path.abspath(target).startswith(self._root):
            self.durable.linked.append(os.path.abspath(target))

    def _renaming(self, original: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **named: Any) -> None:
            if not os.path.abspath(target).startswith(self._root):
                original(source, target, **named)
                return
            if self._due() and self._torn.random() < 0.5:
                self._end()
            kept = ""
            if os.path.lexists(target):
                self._kept.mkdir(exist_ok=True)
                kept = str(self._kept / f"{len(self.durable.renamed)}")
                Path(kept).unlink(missing_ok=True)
                self._link(target, kept)
            original(source, target, **named)
            record = (os.path.abspath(source), os.path.abspath(target), kept)
            self.durable.renamed.append(record)
            if self.operations == self._die_at:
                self._end()

        return call

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *rest: Any) -> Any:
            if self._counts(descriptor) and self._due():
                self._end()
            return original(descriptor, *rest)

        return call


def cut_power(root: Path, durable: Durable, draw: random.Random) -> None:
    """Leave of the files in a folder what a power cut would have left."""
    _lose_names(durable, draw)
    _lose_bytes(root, durable, draw)


def _lose_names(durable: Durable, draw: random.Random) -> None:
    for source, target, kept in reversed(durable.renamed):
        if draw.random() < 0.5 and os.path.exists(target):
            os.replace(target, source)
            if kept:
                os.replace(kept, target)
    for target in durable.linked:
        if draw.random() < 0.5:
            Path(target).unlink(missing_ok=True)


def _lose_bytes(root: Path, durable: Durable, draw: random.Random) -> None:
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.name.endswith(".lock"):
            continue
        status = path.stat()
        synced = min(durable.synced.get(status.st_ino, 0), status.st_size)
        if status.st_size == synced or draw.random() < 0.2:
            continue
        end = draw.randrange(synced, status.st_size + 1)
        with path.open("r+b") as file:
            file.truncate(end)
            if draw.random() < 0.2:  # the size reached the disk, the bytes did not
                file.truncate(status.st_size)
