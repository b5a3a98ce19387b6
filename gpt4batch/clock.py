"""The time: one object that is passed to whatever asks for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Clock:
    """What tells the time; another one than the system's lets time pass in its own way.

    Args:
        monotonic: Returns seconds that only grow, by which everything is measured.
        ns: Returns nanoseconds since 1970, by which things are dated and named.
    """

    monotonic: Callable[[], float] = time.monotonic
    ns: Callable[[], int] = time.time_ns

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.fromtimestamp(self.ns() / 1e9, UTC)


SYSTEM = Clock()
