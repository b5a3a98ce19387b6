"""An event loop whose clock jumps: nothing waits, and one seed gives one order of events."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GRAIN = 1e-6
"""Seconds that a round of the loop takes: a clock that stands still would let some code spin."""


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is scheduled: the program would wait for ever."""


class JumpingSelector(selectors.BaseSelector):
    """A selector that never waits: it moves the clock on by as long as it was asked to wait.

    Args:
        step: Called before each round of the loop, with the time in seconds; may end the process.
    """

    def __init__(self, step: Callable[[float], None]) -> None:
        self.now = 0.0
        self._step = step
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return nothing at once; a wait without an end is a deadlock."""
        if timeout is None:
            raise DeadlockError("nothing is ready and nothing is scheduled")
        self.now += max(timeout, GRAIN)
        self._step(self.now)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Note a file; the loop's own wake-up pipe is the only one."""
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a file."""
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is registered."""
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop over a jumping clock."""

    def __init__(self, step: Callable[[float], None]) -> None:
        self._jumping = JumpingSelector(step)
        self._jumped = 0.0
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now

    def wall(self) -> float:
        """Return the seconds of the time of day, which somebody may set."""
        return self._jumping.now + self._jumped

    def set_wall(self, seconds: float) -> None:
        """Set the time of day forward or back."""
        self._jumped += seconds

    def pause(self, seconds: float) -> None:
        """Let time pass as it does for a process that is stopped: nothing of it runs meanwhile."""
        self._jumping.now += seconds
