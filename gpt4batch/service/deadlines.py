"""Time limits that leave out the time in which this process stood still.

A process that was stopped (Ctrl-Z, a paused container, a suspended machine) finds the answers in
its sockets when it goes on. A limit by the clock would end those calls before they are read.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TICK = 0.1
"""Seconds between two looks at the limits."""

LONGEST_TICK = 0.5
"""More seconds than this between two looks were not spent waiting for a service."""


class Deadlines:
    """The limits of all calls, looked at by one timer: a timer a call would cost more.

    Args:
        monotonic: Tells the time, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._limits: set[Limit] = set()
        self._now = 0.0
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> float:
        """Return the seconds that were spent running."""
        return self._now + min(self._monotonic() - self._looked, LONGEST_TICK)

    def limit(self, seconds: float) -> Limit:
        """Return a limit to enter with `async with`."""
        return Limit(self, seconds)

    def add(self, limit: Limit) -> None:
        """Look at a limit from now on."""
        self._limits.add(limit)
        if self._timer is None:
            self._looked = self._monotonic()
            self._timer = asyncio.get_running_loop().call_later(TICK, self._look)

    def remove(self, limit: Limit) -> None:
        """Look at a limit no longer."""
        self._limits.discard(limit)

    def _look(self) -> None:
        moment = self._monotonic()
        passed = moment - self._looked
        self._looked = moment
        self._now += min(passed, LONGEST_TICK)
        self._timer = asyncio.get_running_loop().call_later(TICK, self._look)

        if passed <= LONGEST_TICK:  # else what lies in the sockets is read before the next look
            for limit in list(self._limits):
                limit.look(self._now)

        if not self._limits:
            self._timer.cancel()
            self._timer = None


class Limit:
    """Raises TimeoutError in the block that it guards, some seconds after its last restart."""

    __slots__ = ("_deadlines", "_last", "_seconds", "_timeout", "deadline", "progress", "reply")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self.deadline = 0.0
        self._timeout = asyncio.timeout(None)
        self._last: object = None
        self.progress: Callable[[], object] | None = None
        """What changes while the bytes of a long body go out; each change restarts the limit."""
        self.reply: asyncio.Future[None] | None = None
        """What the block waits for; once it is there, the limit can no longer take it away."""

    async def __aenter__(self) -> Limit:
        await self._timeout.__aenter__()
        self.restart(self._seconds)
        self._deadlines.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._deadlines.remove(self)
        await self._timeout.__aexit__(kind, error, traceback)

    def restart(self, seconds: float) -> None:
        """Count from now."""
        self._seconds = seconds
        self.deadline = self._deadlines.now + seconds

    def look(self, now: float) -> None:
        """End the block if its time is over."""
        if self.progress is not None:
            found = self.progress()
            if found != self._last:
                self._last = found
                self.restart(self._seconds)
                return

        if now < self.deadline:
            return

        self._deadlines.remove(self)
        if self.reply is None:
            self._timeout.reschedule(asyncio.get_running_loop().time())
        elif not self.reply.done():
            self.reply.set_exception(TimeoutError())
