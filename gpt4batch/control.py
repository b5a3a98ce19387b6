"""How a run is told to stop: no new lines, no new calls, or at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.errors import FatalError


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
        self._scope: anyio.CancelScope | None = None
        self._waits: set[anyio.CancelScope] = set()
        self._starts: set[anyio.CancelScope] = set()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the work that `cancel` and the end of the grace cut short."""
        with anyio.CancelScope() as self._scope:
            yield

    def drain(self, grace: float) -> None:
        """Start no more lines and give those in flight `grace` seconds."""
        self.draining = True
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, anyio.current_time() + grace)
        for scope in list(self._starts):
            scope.cancel()

    @property
    def grace_left(self) -> float:
        """Return the seconds that lines in flight still have; infinite where nobody stops them."""
        if self._scope is None:
            return float("inf")
        return max(0.0, self._scope.deadline - anyio.current_time())

    def halt(self, error: FatalError | None = None, grace: float = float("inf")) -> None:
        """Make no more calls: waits are given up, calls in flight have `grace` seconds."""
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
