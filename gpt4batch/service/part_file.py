"""A file on its way: what is there of it so far, and which version of it that is."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING

from gpt4batch import disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OURS = re.compile(r"(.*_)?\d{19}_file\.part", re.DOTALL)
"""The names of parts: those of others in the folder, a browser's say, are left alone."""

OLD = 3600.0
"""Seconds after which a part is abandoned where no lock can tell."""

VERSION = ("etag", "last-modified", "content-encoding")
"""The headers that are the same for every part of one version of an asset."""

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(?:\d*/(\d{1,18})$)?")


@dataclass(slots=True)
class PartFile:
    """What has come of one asset; it is made on disk when its first reply comes.

    `total` is the size of the whole where it is known, `told` the headers of the version.
    """

    path: Path
    size: int = 0
    total: int | None = None
    told: dict[str, str] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _validator: str = ""

    def start_over(self) -> None:
        """Forget what has come."""
        if self._file is None:
            self._file = _made(self.path)
        elif self.size:  # ext4 writes a file that was truncated to the disk when it is closed
            self._file.seek(0)
            self._file.truncate()
        self.size, self.total, self.told, self._validator = 0, None, {}, ""

    def begin(self, headers: Mapping[str, str], total: int | None) -> None:
        """Take up a version of the asset from its first byte."""
        self.start_over()
        self.total = total
        self.told = {name: headers.get(name, "") for name in VERSION}
        self._validator = _strong(headers)

    def write(self, chunk: bytes) -> None:
        """Add what came."""
        assert self._file is not None
        self._file.write(chunk)
        self.size += len(chunk)

    def flush(self) -> None:
        """Hand everything to the system."""
        if self._file is not None:
            self._file.flush()

    def sync(self) -> None:
        """Bring what has come to the disk."""
        if self._file is not None:
            disk.sync(self._file.fileno())

    def renew(self) -> None:
        """Leave what has come to who has it open, and put an empty file in its place."""
        self.flush()
        self.discard()
        self._file, self.size = _made(self.path), 0

    def discard(self) -> None:
        """Close the file and remove the name of it that is left."""
        if self._file is not None:
            with suppress(OSError):  # a later run removes what is left
                self.path.unlink(missing_ok=True)
            with suppress(OSError):  # what a full disk did not take is written once more by this
                self._file.close()
            self._file = None

    @property
    def to_go_on(self) -> dict[str, str]:
        """Return the headers that ask for the rest; empty where all has to come again."""
        if not self.size or not self._validator:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": self._validator}

    @property
    def codings(self) -> list[str]:
        """Return how the asset is compressed, the outermost first: some servers do so unasked."""
        names = self.told.get("content-encoding", "").lower().split(",")
        found = [name.strip().removeprefix("x-") for name in reversed(names)]
        return [name for name in found if name and name != "identity"]

    def is_continued_by(self, headers: Mapping[str, str]) -> bool:
        """Return whether a 206 goes on where this ends, with the same version of the asset.

        Some servers know Range and not If-Range: they send the rest of whatever is there now, so
        the version has to be named in it. A size that was not known before is known from here on.
        """
        found = CONTENT_RANGE.match(headers.get("content-range", ""))
        if found is None or not self._validator or int(found[1]) != self.size:
            return False
        if self._validator not in (headers.get("etag"), headers.get("last-modified")):
            return False
        known, self.total = self.total, int(found[2]) if found[2] else self.total
        same = all(headers.get(name, told) == told for name, told in self.told.items())
        return same and known in (None, self.total)


def _strong(headers: Mapping[str, str]) -> str:
    """Return what names one version of an asset, byte for byte, or an empty text.

    RFC 9110, section 8.8: a weak ETag does not, and a date does not that is no older than the
    reply, as the asset may change again within the same second.
    """
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    try:
        changed = parsedate_to_datetime(headers.get("last-modified", ""))
        told = parsedate_to_datetime(headers.get("date", ""))
        return headers["last-modified"] if (told - changed).total_seconds() > 1 else ""
    except (TypeError, ValueError, OverflowError):
        return ""


def _made(path: Path) -> IO[bytes]:
    """Make a part and hold its lock, by which other runs see that it is not abandoned.

    Where the file system has no locks, its age has to tell.
    """
    file = path.open("xb")
    with suppress(OSError):  # a lock that cannot be had must not cost an answer
        disk.lock(file.fileno())
    return file


def remove_abandoned(folder: Path) -> None:
    """Remove the parts in a folder that no living run holds."""
    for path in folder.glob("*.part"):
        if not OURS.fullmatch(path.name) or not path.is_file() or path.is_symlink():
            continue
        with path.open("r+b") as file:
            try:
                locked = disk.lock(file.fileno())
            except OSError:
                locked = None
            old = time.time() - path.stat().st_mtime > OLD
            if locked or (locked is None and old):
                path.unlink(missing_ok=True)
