"""Every cell of the matrix: its fault, and the function that works it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos import kills

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.lab import Lab


@dataclass(frozen=True)
class Cell:
    """One fault, and the promises it is aimed at."""

    name: str
    fault: str
    run: Callable[[Lab], None]


CELLS = (
    Cell("sigkill", "SIGKILL at random moments", kills.sigkill),
    Cell("write-points", "SIGKILL at every write", kills.write_points),
    Cell("signals", "SIGINT, SIGTERM, once and twice", kills.signals),
    Cell("overlapping", "two runs on one output", kills.overlapping),
)
