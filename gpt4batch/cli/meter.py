"""The recent speed of a run, and the time left where there is a basis for one."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SPAN = 30.0
"""Seconds over which the speed is measured at least."""

STEP = 1.0
LONGEST = 1200
"""Samples that are kept, one a second."""

BASIS = 20
"""Lines that have to be finished before a time left is given; fewer where fewer run at once."""


class Sample(NamedTuple):
    """What was counted at a moment of the run."""

    elapsed: float
    lines: int
    calls: int


class Meter:
    """Measure over half a minute, or over as many lines as run at once twice where that is longer.

    Calls take minutes and end in bursts: a shorter window would see nothing, then too much.

    Args:
        at_once: Lines that run at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._samples = deque([Sample(0.0, 0, 0)], maxlen=LONGEST)
        self._now = self._samples[0]

    def take(self, sample: Sample) -> None:
        """Take a sample."""
        self._now = sample
        if sample.elapsed - self._samples[-1].elapsed >= STEP:
            self._samples.append(sample)
        while len(self._samples) > 2:
            first = self._samples[1]
            lines = sample.lines - first.lines
            if sample.elapsed - first.elapsed < SPAN or lines < 2 * self._at_once:
                break  # it tells too little by itself
            self._samples.popleft()

    @property
    def calls(self) -> float:
        """Return the calls a second of the last half minute."""
        recent = (item for item in self._samples if self._now.elapsed - item.elapsed <= SPAN)
        first = next(recent, self._now)
        span = self._now.elapsed - first.elapsed
        return (self._now.calls - first.calls) / span if span >= STEP / 2 else 0.0

    def left(self, lines: int) -> float | None:
        """Return the seconds that so many lines will take; None while nothing tells."""
        if self._now.lines < min(BASIS, self._at_once, lines + self._now.lines):
            return None
        first = self._samples[0]
        span, finished = self._now.elapsed - first.elapsed, self._now.lines - first.lines
        return lines * span / finished if finished and span >= STEP / 2 else None
