"""How a run is told to stop: no new lines, no new calls, or at once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.errors import FatalError

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between two looks at how much of the grace is left."""

STOPPED = 1.0
"""A look that comes so many seconds late tells of a process that was stopped meanwhile."""


class Stopped(Exception):
    """A line is left where it is, because the run makes no more calls."""


class Control:
    """The one place that knows whether the run goes on.

    `draining`: no new lines, those that still wait for their first turn included; lines in flight
    go on until the grace is over.
    `halted`: no new calls either; calls in flight are waited for, waits are given up.
    """

    def __init__(self) -> None:
        self.draining = False
        self.halted = False
        self.error: FatalError | None = None
        self.grace_left = float("inf")
        """Seconds that lines in flight still have; infinite where nobody stops them."""
        self._scope: anyio.CancelScope | None = None
        self._look: asyncio.TimerHandle | None = None
        self._waits: set[anyio.CancelScope] = set()
        self._starts: set[anyio.CancelScope] = set()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the work that `cancel` and the end of the grace cut short."""
        self.grace_left = float("inf")
        with anyio.CancelScope() as self._scope:
            try:
                yield
            finally:
                self._end_looks()

    def drain(self, grace: float) -> None:
        """Start no more lines and give those in flight `grace` seconds."""
        self.draining = True
        if self._scope is not None and grace < self.grace_left:
            self.grace_left = grace
            self._end_looks()
            self._count_down()
        for scope in list(self._starts):
            scope.cancel()

    def _count_down(self) -> None:
        """Cancel the work when its grace is over, in time in which the process was running.

        What came in while it was stopped is read before the next look, so there always is one.
        """
        if self.grace_left <= 0:
            if self._scope is not None:
                self._scope.cancel()
            return
        loop, step = asyncio.get_running_loop(), min(TICK, self.grace_left)
        began = loop.time()

        def look() -> None:
            passed = loop.time() - began
            if passed < step + STOPPED:
                self.grace_left -= max(passed, step)
            else:
                self.grace_left = max(TICK, self.grace_left - step)
            self._count_down()

        self._look = loop.call_later(step, look)

    def _end_looks(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def halt(self, error: FatalError | None = None, grace: float = float("inf")) -> None:
        """Make no more calls: waits are given up, calls in flight have `grace` seconds."""
        if error is not None and self.error is None:
            log.error("stopping: %s", error)
        self.error = self.error or error
        self.halted = True
        self.drain(grace)
        for scope in list(self._waits):
            scope.cancel()

    def cancel(self) -> None:
        """Give up what is in flight."""
        self.drain(0)
        if self._scope is not None:
            self._scope.cancel()

    @contextmanager
    def waiting(self, *, new: bool = False) -> Iterator[None]:
        """Wrap a wait, which is given up when the run is halted.

        Args:
            new: The wait is for the first call of a line: it is given up by `drain` as well.

        Raises:
            Stopped: The run was or is halted.
        """
        if self.halted or (new and self.draining):
            raise Stopped
        waits = self._starts if new else self._waits
        with anyio.CancelScope() as scope:
            waits.add(scope)
            try:
                yield
            finally:
                waits.discard(scope)
        if scope.cancelled_caught or self.halted:
            raise Stopped
