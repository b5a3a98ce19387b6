"""The pace: how many calls a second leave, and how it gives way to 429s."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import anyio
from aiolimiter import AsyncLimiter

from gpt4batch.control import Stopped

if TYPE_CHECKING:
    from gpt4batch.control import Control

STEPS = 50
"""Successes that bring the pace from nothing back to the full rate."""

CATCHING_UP = 1.01
"""How much faster than the full rate calls leave while the schedule is behind."""

LONGEST_LAG = 1.0
"""Seconds by which the schedule is ever behind: what a pause missed is not made up for."""

SLOWEST = 1 / 16
"""The least share of the full rate that 429s can bring the pace down to."""


class Pacer:
    """Let calls go at a rate, evenly: no more than rate x 1.02 + 1 in any second.

    A 429 halves the pace for everyone, once for all the calls that were sent at the old pace, and
    each success brings back a fiftieth of the full rate. A Retry-After holds everyone until then.

    Args:
        rate: Calls a second; 0 is no limit.
        control: Ends the waiting when the run is halted.
    """

    def __init__(self, rate: float, control: Control) -> None:
        self._control = control
        self._turn = anyio.Lock(fast_acquire=True)
        self._share = 1.0
        self._debt = 0.0
        self._held_until = 0.0
        self._slowed_at = 0.0
        self._recent: deque[float] = deque(maxlen=256)
        self._unlimited = rate == 0
        self._paced = rate > 0
        self.set_rate(rate or 1.0)

    def set_rate(self, rate: float) -> None:
        """Change the full rate, in calls a second."""
        # A bucket that holds a second's calls lets 2 q through in the first second; this one holds
        # 5 ms of them, about what a timer is late.
        burst = max(1.0, rate / 200)
        self._limiter = AsyncLimiter(burst, burst / (rate * CATCHING_UP))
        self._due = time.monotonic()
        self.rate = rate

    @property
    def pace(self) -> float:
        """Return the calls a second that leave at present; 0 is no limit."""
        return self.rate * self._share if self._paced else 0.0

    @property
    def cooling(self) -> float:
        """Return the seconds for which everyone is still held by a Retry-After."""
        return max(0.0, self._held_until - time.monotonic())

    async def wait(self) -> float:
        """Wait for the turn of one call and return the moment at which it may leave.

        Raises:
            Stopped: The run was halted meanwhile.
        """
        if self._paced or self.cooling:
            with self._control.waiting():
                async with self._turn:
                    await self._pass()
        elif self._control.halted:
            raise Stopped
        now = time.monotonic()
        if self._unlimited:
            self._recent.append(now)
        return now

    async def _pass(self) -> None:
        while (held := self.cooling) > 0:  # noqa: ASYNC110 - a later 429 may prolong it
            await anyio.sleep(held)
        self._debt += 1 / self._share
        while self._debt >= 1 and self._paced:
            await self._step()
            self._debt -= 1

    async def _step(self) -> None:
        """Wait for one place in the schedule, which is absolute: a late call makes none later."""
        now = time.monotonic()
        if self._due > now:
            await anyio.sleep(self._due - now)
        await self._limiter.acquire()
        self._due = max(self._due + 1 / self.rate, time.monotonic() - LONGEST_LAG)

    def slow_down(self, sent: float, after: float | None) -> None:
        """Take note of a 429 to a call sent at a moment, with its Retry-After in seconds."""
        now = time.monotonic()
        if after:
            self._held_until = max(self._held_until, now + after)
        if sent <= self._slowed_at:
            return
        self._slowed_at = now
        if not self._paced:
            self._paced = True
            self.set_rate(max(1.0, self._measured(now)))
        self._share = max(SLOWEST, self._share / 2)

    def speed_up(self) -> None:
        """Take note of a success."""
        if self._share < 1:
            self._share = min(1.0, self._share + 1 / STEPS)
            if self._share >= 1 and self._unlimited:
                self._paced = False

    def _measured(self, now: float) -> float:
        """Return the calls of the last second, for a run that has no limit of its own."""
        recent = [moment for moment in self._recent if moment > now - 1]
        span = now - recent[0] if len(recent) == self._recent.maxlen else 1.0
        return len(recent) / max(span, 0.001)
