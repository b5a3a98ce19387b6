"""The snapshots of a run: their names, which other runs may want as well, and their removal."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from gpt4batch.clock import SYSTEM, Clock

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one run, of which the newest is kept.

    Args:
        out: The output, beside which they lie.
        clock: Tells the time.
    """

    def __init__(self, out: Path, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._out = out
        self._status: os.stat_result | None = None
        self._told = False
        self.newest: Path | None = None

    def name(self, stem: str) -> Path:
        """Return the path of the next one: of the input's stem, or the output's where it is taken.

        The runs of one input with two outputs in a folder would overwrite each other's.
        """
        moment = self._clock.now().astimezone()
        own = self._out.stem
        stems = (own, f"{stem}-{own}") if self._told else (stem, own, f"{stem}-{own}")
        names = [f".{moment:%Y%m%d-%H%M}-{name}.jsonl" for name in stems]
        paths = [self._out.with_name(name) for name in names]
        free = (
            path
            for path in paths
            if not os.path.lexists(path) or (path == self.newest and self._is_ours())
        )
        path = next(free, paths[-1])
        if path != paths[0] and not self._told:
            self._told = True
            log.warning("the snapshot %s is another run's: this one's is %s", paths[0], path.name)
        return path

    def _is_ours(self) -> bool:
        """Return whether the newest snapshot is still the file that this run wrote."""
        if self.newest is None or self._status is None:
            return False
        try:
            return os.path.samestat(self.newest.stat(), self._status)
        except OSError:
            return False

    def written(self, path: Path) -> None:
        """Remember the newest, and remove the one before it."""
        if self.newest != path:
            self.remove()
        self.newest = path
        with suppress(OSError):
            self._status = path.stat()

    def make_room(self) -> None:
        """Drop the newest where the disk has no room for one more copy of the log."""
        if self.newest is None:
            return
        with suppress(OSError):
            if shutil.disk_usage(self._out.parent).free < self._out.stat().st_size:
                self.remove()

    def remove(self) -> None:
        """Remove the newest, if it is this run's."""
        if self.newest is not None and self._is_ours():
            with suppress(OSError):
                self.newest.unlink()
