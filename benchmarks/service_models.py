# ruff: noqa: ARG002 - each model looks at what it needs
"""Services in virtual time, and batches run against them: hours pass in milliseconds.

A model answers `ask(now, live, chance)` with whether a call is accepted, and the seconds that a
refusal names, if it does.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gpt4batch.service.pace import Rule
from gpt4batch.service.pacing import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

Verdict = tuple[bool, float | None]


class Model(Protocol):
    """What stands for a service."""

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        """Accept or refuse a call, `live` others being in flight."""


class Sliding:
    """So many calls in any `span` seconds; a refusal names `after` seconds."""

    def __init__(
        self,
        limit: float | Callable[[float], float],
        after: float | None = 1.0,
        span: float = 1.0,
    ) -> None:
        self.limit, self.after, self.span = limit, after, span
        self.seen: deque[float] = deque()

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        while self.seen and now - self.seen[0] > self.span:
            self.seen.popleft()
        limit = self.limit(now) if callable(self.limit) else self.limit
        if len(self.seen) >= limit:
            return False, self.after
        self.seen.append(now)
        return True, None


class Bucket:
    """A token bucket."""

    def __init__(self, rate: float, burst: float, after: float | None = None) -> None:
        self.rate, self.burst, self.after = rate, burst, after
        self.left, self.at = burst, 0.0

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        self.left = min(self.burst, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return False, self.after
        self.left -= 1
        return True, None


class Minute:
    """A fixed window of a minute; a refusal names the seconds to its end, or nothing."""

    def __init__(self, most: int, *, named: bool = True) -> None:
        self.most, self.named = most, named
        self.window, self.count = -1, 0

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        if (window := int(now // 60)) != self.window:
            self.window, self.count = window, 0
        if self.count >= self.most:
            return False, 60 - now % 60 if self.named else None
        self.count += 1
        return True, None


class Weather:
    """A share of the calls is refused whatever the pace."""

    def __init__(self, share: float, after: float | None = None) -> None:
        self.share, self.after = share, after

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        accepted = chance.random() >= self.share
        return accepted, None if accepted else self.after


class Crowd:
    """So many calls at a time."""

    def __init__(self, most: int) -> None:
        self.most = most

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        return live < self.most, None


class Both:
    """Two services in one: the second one sees what the first one accepts."""

    def __init__(self, first: Model, second: Model) -> None:
        self.models = (first, second)

    def ask(self, now: float, live: int, chance: random.Random) -> Verdict:
        for model in self.models:
            verdict = model.ask(now, live, chance)
            if not verdict[0]:
                return verdict
        return True, None


@dataclass
class Seen:
    """What became of a batch: when calls were accepted and refused, and at which pace."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    fullest: int = 0

    def rate(self, begin: float = 0.0, end: float = math.inf) -> float:
        """Return the calls a second that were accepted in a time."""
        end = min(end, self.accepted[-1])
        return sum(begin <= at < end for at in self.accepted) / (end - begin)

    @property
    def busy(self) -> float:
        """Return when nearly all were accepted: the last ones wait for their turn to be tried."""
        return self.accepted[int(0.97 * len(self.accepted))]

    def share(self, begin: float = 0.0, end: float = math.inf) -> float:
        """Return the calls refused over those accepted in a time."""
        accepted = sum(begin <= at < end for at in self.accepted)
        return sum(begin <= at < end for at in self.refused) / max(1, accepted)


@dataclass
class Batch:
    """A batch of calls, `places` at a time: refusals take `trip` seconds, answers `latency`."""

    model: Model
    rule: Rule
    calls: int
    places: int = 200
    latency: tuple[float, float] = (0.2, 0.4)
    trip: float = 0.02
    seed: int = 1

    def run(self) -> Seen:
        """Run until every call was answered and return what was seen."""
        self._chance = random.Random(self.seed)
        self._schedule = Schedule(self.rule.most)
        self._events: list[tuple[float, int, float, bool, float | None, int]] = []
        self._again: list[tuple[float, int]] = []
        self._todo, self._free, self._live, self._number = self.calls, self.places, 0, 0
        seen, now = Seen(), 0.0
        while len(seen.accepted) < self.calls:
            ready = self._ready(now)
            turn = self._turn(now) if ready else math.inf
            if ready and turn <= now:
                self._leave(now, seen)
                continue
            moments = [turn, self._events[0][0] if self._events else math.inf]
            if self._again and self._free and not ready:
                moments.append(self._again[0][0])
            now = max(now, min(moments))
            if self._events and self._events[0][0] <= now:
                self._settle(now)
        return seen

    def _ready(self, now: float) -> bool:
        waiting = bool(self._again) and self._again[0][0] <= now
        return self._free > 0 and (self._todo > 0 or waiting)

    def _turn(self, now: float) -> float:
        pace = self.rule.rate(now)
        free = self.rule.free(now)
        return free if math.isinf(pace) else max(free, self._schedule.turn(pace))

    def _leave(self, now: float, seen: Seen) -> None:
        attempt = 1
        if self._again and self._again[0][0] <= now:
            attempt = heapq.heappop(self._again)[1]
        else:
            self._todo -= 1
        self._free -= 1
        pace = self.rule.rate(now)
        if math.isfinite(pace):
            self._schedule.leave(now, pace)
        self.rule.leave(now)
        accepted, after = self.model.ask(now, self._live, self._chance)
        self._live += accepted
        seen.fullest = max(seen.fullest, self._live)
        seen.paces.append(pace)
        (seen.accepted if accepted else seen.refused).append(now)
        trip = self.trip * self._chance.uniform(0.7, 1.3)
        end = now + (self._chance.uniform(*self.latency) if accepted else trip)
        self._number += 1
        heapq.heappush(self._events, (end, self._number, now, accepted, after, attempt))

    def _settle(self, now: float) -> None:
        _, _, sent, accepted, after, attempt = heapq.heappop(self._events)
        self._free += 1
        self._live -= accepted
        self.rule.done()
        if accepted:
            self.rule.answered()
            return
        self.rule.refused(sent, now, after)
        delay = after or self._chance.random() * min(60, 2 ** min(attempt - 1, 6))
        heapq.heappush(self._again, (now + delay, attempt + 1))
