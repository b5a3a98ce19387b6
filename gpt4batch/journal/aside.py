"""What is kept beside an output: earlier outputs, and texts that the ordered one will not hold."""

from __future__ import annotations

import logging
import os
from filecmp import cmp
from glob import escape
from typing import TYPE_CHECKING

from gpt4batch import disk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gpt4batch.clock import Clock

log = logging.getLogger(__name__)

MOST_FILES = 20


def move_aside(out: Path, clock: Clock) -> Path | None:
    """Keep the output of an earlier run, if there is one, under a name of its own."""
    if not out.exists() or not out.stat().st_size:
        return None
    path = _free_name(out, clock)
    disk.move_aside(out, path)
    log.info("%s was there: moved to %s", out, path)
    return path


def keep_aside(out: Path, descriptor: int, places: Iterable[tuple[int, int]], clock: Clock) -> Path:
    """Copy parts of an open output, by offset and size, to a file of their own, and name that.

    A run that was killed has kept the same texts already: they are not kept twice.
    """
    path, size = _free_name(out, clock), 0
    with path.open("wb") as file:
        for start, length in places:
            size += file.write(os.pread(descriptor, length, start).strip() + b"\n")
        file.flush()
        disk.sync(file.fileno())
    for other in moved_aside(out):
        if other != path and other.stat().st_size == size and cmp(other, path, shallow=False):
            path.unlink()
            return other
    return path


def moved_aside(out: Path) -> list[Path]:
    """Return the files that runs of an output kept beside it, the newest first."""
    pattern = f"{escape(out.stem)}.[0-9]*-[0-9]*{escape(out.suffix)}"
    return sorted(out.parent.glob(pattern), reverse=True)[:MOST_FILES]


def _free_name(out: Path, clock: Clock) -> Path:
    stamp = clock.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names = (stamp, *(f"{stamp}-{count}" for count in range(1, 1000)))
    paths = (out.with_name(f"{out.stem}.{name}{out.suffix}") for name in names)
    return next(path for path in paths if not path.exists())
