"""The pace: how many calls a second leave, and how it gives way to 429s."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import anyio
from aiolimiter import AsyncLimiter

from gpt4batch.control import Stopped

if TYPE_CHECKING:
    from gpt4batch.control import Control

STEPS = 50
"""Successes that would bring the pace from nothing to where it was."""

WINDOW = 1.01
"""In so many seconds no more calls leave than the rate + 1. That is less than the promised
rate x 1.02 + 1 in a second: calls that are held up on their way arrive nearer to the next ones."""

CATCHING_UP = 1.25
"""How much faster than the full rate calls leave while the schedule is behind."""

LONGEST_LAG = 0.2
"""Seconds by which the schedule may be behind; what a longer pause missed is not made up for."""

GRAIN = 0.001
"""Seconds by which a call may leave early: timers are no finer."""

REMEMBERED = 256
"""Calls by which the rate of what is sent and answered is measured."""

FIRST_GUESS = 10.0
"""Calls a second, at least, that a run without a limit is slowed down from by its first 429."""

SLOWEST = 1 / 16
"""The share of the full rate below which 429s do not bring the pace, nor below 1 a second."""

ROOM = 8
"""How many times what the service answers the pace is taken to be able to reach."""


class Pace(Protocol):
    """What a client asks before each call, and tells what came of it."""

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call, `new` if a line's first; return when it may leave."""

    def slow_down(self, sent: float, after: float | None) -> None:
        """Take note of a 429 to a call sent at a moment, with its Retry-After in seconds."""

    def speed_up(self) -> None:
        """Take note of a success."""


class Pacer:
    """Let calls go at a rate, evenly: no more than rate x 1.02 + 1 in any second.

    A 429 halves the pace for everyone, once for all the calls that were sent at the old pace, and
    each success brings a fiftieth of it back. A service that lets through far less than the rate
    is approached in smaller steps: of eight times what it answers. A Retry-After holds everyone.

    Args:
        rate: Calls a second; 0 is no limit until a 429 asks for one.
        control: Ends the waiting when the run is halted.
    """

    def __init__(self, rate: float, control: Control) -> None:
        self._control = control
        self._turn = anyio.Lock(fast_acquire=True)
        self._unlimited = rate == 0
        self._paced = rate > 0
        self._held_until = 0.0
        self._slowed_at = 0.0
        self._sent: deque[float] = deque(maxlen=REMEMBERED)
        self._answered: deque[float] = deque(maxlen=REMEMBERED)
        self.set_rate(rate or 1.0)

    def set_rate(self, rate: float) -> None:
        """Change the full rate, in calls a second."""
        self._most = int(rate) + 1
        burst = max(1.0, rate / 50)
        self._limiter = AsyncLimiter(burst, burst / (rate * CATCHING_UP))
        self._sent = deque(self._sent, maxlen=max(REMEMBERED, self._most))
        self._due = 0.0
        self._rate = self._ceiling = self._pace = rate

    @property
    def pace(self) -> float:
        """Return the calls a second that leave at present; 0 is no limit."""
        return self._pace if self._paced else 0.0

    @property
    def cooling(self) -> float:
        """Return the seconds for which everyone is still held by a Retry-After."""
        return max(0.0, self._held_until - time.monotonic())

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call and return the moment at which it may leave.

        Args:
            new: It is the first call of a line.

        Raises:
            Stopped: The run was halted meanwhile.
        """
        if self._paced or self.cooling:
            with self._control.waiting(new=new):
                async with self._turn:
                    return await self._pass()
        if self._control.halted:
            raise Stopped
        return self._leave()

    async def _pass(self) -> float:
        while (held := self.cooling) > 0:  # noqa: ASYNC110 - a later 429 may prolong it
            await anyio.sleep(held)
        if self._paced:
            await self._limiter.acquire()
        while self._paced and (early := self._turn_at() - time.monotonic()) > GRAIN:  # noqa: ASYNC110
            await anyio.sleep(early)
        return self._leave()

    def _turn_at(self) -> float:
        """Return when the next call may leave."""
        if len(self._sent) < self._most:
            return self._due
        return max(self._due, self._sent[-self._most] + WINDOW)

    def _leave(self) -> float:
        """Note that a call leaves; the schedule is absolute: a late call makes none later."""
        now = time.monotonic()
        self._sent.append(now)
        due = self._due if now - self._due < LONGEST_LAG else now
        self._due = due + 1 / self._pace
        return now

    def slow_down(self, sent: float, after: float | None) -> None:
        """Take note of a 429 to a call sent at a moment, with its Retry-After in seconds."""
        now = time.monotonic()
        if after:
            self._held_until = now + after  # the newest one counts, be it the shorter
        if sent <= self._slowed_at:
            return
        self._slowed_at = now
        if not self._paced:
            self._paced = True
            self.set_rate(max(FIRST_GUESS, _per_second(self._sent, now, 1.0)))
        if answered := _per_second(self._answered, now, 5.0):
            # Few answers may also mean few lines left, which says nothing of the service.
            least = max(1.0, self._rate * SLOWEST)
            self._ceiling = min(self._rate, max(least, ROOM * answered))
        slowest = min(1.0, self._rate * SLOWEST)
        self._pace = max(slowest, min(self._pace, self._ceiling) / 2)

    def speed_up(self) -> None:
        """Take note of a success."""
        self._answered.append(time.monotonic())
        if self._pace < self._rate:
            self._pace = min(self._rate, self._pace + self._ceiling / STEPS)
            self._ceiling = max(self._ceiling, self._pace)
            if self._pace == self._rate and self._unlimited:
                self._paced = False


def _per_second(moments: deque[float], now: float, span: float) -> float:
    """Return how many of the moments lie in each of the last seconds."""
    recent = [moment for moment in moments if moment > now - span]
    if len(recent) == moments.maxlen:
        span = max(now - recent[0], 0.001)
    return len(recent) / span
