"""The pace of a run on the clock: when each call may leave, and what came of it."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import anyio

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.control import Stopped
from gpt4batch.service.pace import Rule

if TYPE_CHECKING:
    from gpt4batch.control import Control
    from gpt4batch.dialects.limits import Limits

WINDOW = 1.01
"""In so many seconds no more calls leave than the rate + 1. That is less than the promised
rate x 1.02 + 1 in a second: calls that are held up on their way arrive nearer to the next ones."""

CATCHING_UP = 1.25
"""How much faster than the pace calls leave while the schedule is behind."""

BURST = 0.02
"""Seconds whose calls may leave at once while the schedule is behind: timers are no finer."""

LONGEST_LAG = 0.2
"""Seconds by which the schedule may be behind; what a longer pause missed is not made up for."""

GRAIN = 0.001
"""Seconds by which a call may leave early: timers are no finer."""

LONGEST_SLEEP = 0.25
"""Seconds after which a call that waits looks again: the pace may be another one by then."""


class Pace(Protocol):
    """What a client asks before each call, and tells what came of it."""

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call, `new` if a line's first; return when it may leave."""

    def slow_down(self, sent: float, after: float | None) -> None:
        """Note a 429 to a call sent at a moment, with its Retry-After in seconds."""

    def crowded(self, sent: float) -> None:
        """Note a refusal that may come of too many calls at a time, and holds nobody."""

    def speed_up(self) -> None:
        """Note a success."""

    def done(self) -> None:
        """Note that a call that left has ended, whatever came of it."""

    def unused(self, at: float) -> None:
        """Note that the call that was let go at a moment did not leave."""

    def limits(self, limits: Limits) -> None:
        """Note the limits that the headers of a reply name."""


class Schedule:
    """When calls may leave at a pace that may change: evenly, on an absolute schedule; pure.

    Args:
        most: Calls a second; no more than these and one leave in a `WINDOW`.
    """

    def __init__(self, most: float) -> None:
        self._due = self._guard = 0.0
        self._sent: deque[float] = deque()
        self.set_most(most)

    def set_most(self, most: float) -> None:
        """Change the calls a second that are never exceeded."""
        self._most = 0 if math.isinf(most) else int(most) + 1
        self._sent = deque(self._sent, maxlen=self._most)

    def turn(self, pace: float) -> float:
        """Return when the next call may leave."""
        burst = max(0.0, BURST * pace - 1) / (CATCHING_UP * pace)
        at = max(self._due, self._guard - burst)
        if self._most and len(self._sent) == self._most:
            return max(at, self._sent[0] + WINDOW)
        return at

    def leave(self, now: float, pace: float) -> None:
        """Note that a call leaves; a late call delays no later one."""
        self._sent.append(now)
        due = self._due if now - self._due < LONGEST_LAG else now
        self._due = due + 1 / pace
        self._guard = max(self._guard, now) + 1 / (CATCHING_UP * pace)

    def unused(self, at: float, pace: float) -> None:
        """Note that a call that was to leave at a moment did not: another one has its turn."""
        with suppress(ValueError):  # it is longer ago than a window
            self._sent.remove(at)
            self._due -= 1 / pace


class Pacer:
    """Let calls go at the pace that the rule finds: no more than rate x 1.02 + 1 in any second.

    Args:
        rate: Calls a second; 0 is no limit.
        control: Ends the waiting when the run is halted.
        ramp: Seconds in which the pace rises from a tenth of the rate at the beginning.
        clock: Tells the time.
    """

    def __init__(
        self, rate: float, control: Control, ramp: float = 0.0, *, clock: Clock = SYSTEM
    ) -> None:
        self._clock = clock
        self._control = control
        self._turn = anyio.Lock(fast_acquire=True)
        self._rule = Rule(rate or math.inf, ramp=ramp)
        self._schedule = Schedule(rate or math.inf)

    def set_rate(self, rate: float) -> None:
        """Change the full rate, in calls a second; 0 is no limit.

        What was learned of the service stays, and so does the wait that a refusal asked for.
        """
        self._rule.retune(rate or math.inf)
        self._schedule.set_most(rate or math.inf)

    @property
    def pace(self) -> float:
        """Return the calls a second that leave at present; 0 is no limit."""
        pace = self._rule.rate(self._clock.monotonic())
        return 0.0 if math.isinf(pace) else pace

    @property
    def room(self) -> int:
        """Return how many calls may be in flight at a time; 0 is no limit."""
        return 0 if math.isinf(self._rule.room) else int(self._rule.room)

    @property
    def cooling(self) -> float:
        """Return the seconds for which everyone is still held by a refusal."""
        return max(0.0, self._rule.held - self._clock.monotonic())

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call and return the moment at which it may leave.

        Args:
            new: It is the first call of a line.

        Raises:
            Stopped: The run was halted meanwhile.
        """
        rule, now = self._rule, self._clock.monotonic()
        if math.isinf(rule.pace) and rule.free(now) <= now:
            if self._control.halted:
                raise Stopped
            rule.leave(now)
            return now
        with self._control.waiting(new=new):
            async with self._turn:
                return await self._pass()

    async def _pass(self) -> float:
        rule, schedule = self._rule, self._schedule
        while True:
            now = self._clock.monotonic()
            pace = rule.rate(now)
            at = rule.free(now)
            if math.isfinite(pace):
                at = max(at, schedule.turn(pace))
            if at - now <= GRAIN:
                break
            await anyio.sleep(min(LONGEST_SLEEP, at - now))
        if math.isfinite(pace):
            schedule.leave(now, pace)
        rule.leave(now)
        return now

    def slow_down(self, sent: float, after: float | None) -> None:
        """Note a 429 to a call sent at a moment, with its Retry-After in seconds."""
        self._rule.refused(sent, self._clock.monotonic(), after)

    def crowded(self, sent: float) -> None:
        """Note a refusal that may come of too many calls at a time, and holds nobody."""
        self._rule.refused(sent, self._clock.monotonic())

    def speed_up(self) -> None:
        """Note a success."""
        self._rule.answered()

    def done(self) -> None:
        """Note that a call that left has ended, whatever came of it."""
        self._rule.done()

    def unused(self, at: float) -> None:
        """Note that the call that was let go at a moment did not leave."""
        pace = self._rule.rate(self._clock.monotonic())
        if math.isfinite(pace):
            self._schedule.unused(at, pace)
        self._rule.done()

    def limits(self, limits: Limits) -> None:
        """Note the limits that the headers of a reply name."""
        self._rule.heed(limits, self._clock.monotonic())
