"""Times in a fixed number of classes: percentiles of any number of calls in 3 KB."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORTEST = 0.001
GROWTH = 1.05
CLASSES = 360
"""From a millisecond to half a day; what is beyond counts in the last class."""

_SCALE = 1 / math.log(GROWTH)


class Histogram:
    """How long things took, in classes that each are 5 % wider than the one before.

    A percentile is off by 2.5 % at most; the least and the greatest are exact. In seconds.
    """

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * CLASSES))
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = 0.0

    def add(self, seconds: float, amount: int = 1) -> None:
        """Count one, or several that took equally long; fewer than none take some out again."""
        self.count += amount
        self.total += seconds * amount
        if seconds < self.least:
            self.least = seconds
        if seconds > self.greatest:
            self.greatest = seconds
        place = int(math.log(seconds / SHORTEST) * _SCALE) if seconds > SHORTEST else 0
        self._counts[place if place < CLASSES else CLASSES - 1] += amount

    def percentile(self, share: float) -> float:
        """Return the time that `share` of 100 did not exceed; 0 where there is none."""
        if not self.count:
            return 0.0
        wanted = max(1, math.ceil(self.count * share / 100))
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                middle: float = SHORTEST * GROWTH ** (place + 0.5)
                return min(max(middle, self.least), self.greatest)
        return self.greatest

    def classes(self) -> Iterator[tuple[float, int]]:
        """Yield the middle of each class that holds anything, in rising order, and its number."""
        for place, count in enumerate(self._counts):
            if count:
                yield SHORTEST * GROWTH ** (place + 0.5), count

    def up_to(self, edges: tuple[float, ...]) -> Iterator[tuple[float, int]]:
        """Yield each edge, in rising order, with the number of times that lie below it."""
        place = seen = 0
        for edge in edges:
            while place < CLASSES and SHORTEST * GROWTH ** (place + 0.5) <= edge:
                seen += self._counts[place]
                place += 1
            yield edge, seen
