"""What the rule of the pace consists of: the calls it remembers, and what it knows of limits."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from operator import attrgetter

SOON = 0.5
"""Seconds after which a call that is not refused is accepted, until refusals show their own."""
ENOUGH = 20
"""Calls that are judged together, at least."""
REMEMBERED = 4096
"""Calls that are remembered, at most."""
PATIENCE = (10.0, 20.0)
"""Seconds for which a ceiling is believed: a new one, and one that was met again and again."""
SAME = 0.15
"""The share by which two ceilings may differ and be the same limit."""
GROWTH, PROBING = 1.4, 1.02
"""How the pace grows where nothing is known to be in the way, and first beyond the ceiling."""
MARGIN = 0.98
"""The share of the ceiling at which the pace is set."""
FEWEST = 3
"""Refusals that tell how many calls may be in flight."""
FIRST_HOLD = (0.25, 2.0)
LONGEST_HOLD = 15.0
OUTAGES = 150.0
"""Seconds between two holds from which on they are taken for outages, not for a limit."""
"""Seconds for which the rule itself holds all calls: at first, by the pace, and at most."""
FIRST_CALLS = 20
"""Calls with which a run without a rate begins."""


@dataclass(slots=True)
class Call:
    """A call that left: when, with how many others in flight, and whether it was refused."""

    sent: float
    live: int
    refused: bool = False


class Calls:
    """The calls that left last, in their order.

    A call is known to be accepted when it was not refused `delay` seconds after it left.
    """

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=REMEMBERED)
        self.delay = SOON

    def add(self, call: Call) -> None:
        """Remember a call that leaves."""
        self._calls.append(call)

    @property
    def last(self) -> float | None:
        """Return when the last call left."""
        return self._calls[-1].sent if self._calls else None

    def refuse(self, sent: float, now: float) -> int | None:
        """Mark the call that left at a moment as refused and return where it stands."""
        self.delay = min(1.0, max(0.05, 0.9 * self.delay, 1.5 * (now - sent)))
        place = bisect_right(self._calls, sent, key=attrgetter("sent")) - 1
        while place >= 0 and self._calls[place].sent == sent:
            if not self._calls[place].refused:
                self._calls[place].refused = True
                for later in range(place + 1, len(self._calls)):
                    self._calls[later].live -= 1  # it never was in flight at the service
                return place
            place -= 1
        return None

    def not_refused(self, place: int) -> int:
        """Return how many calls from a place on were not refused so far."""
        return sum(not self._calls[k].refused for k in range(place, len(self._calls)))

    def refused_in_a_row(self, place: int, since: float) -> int:
        """Return how many calls in a row, up to a place and since a moment, were refused."""
        first = place
        while first >= 0 and self._calls[first].refused and self._calls[first].sent >= since:
            first -= 1
        return place - first

    def accepted(self, until: float, span: float) -> float:
        """Return how many calls a second were accepted in the seconds up to a moment."""
        calls = 0
        for call in reversed(self._calls):
            if call.sent <= until - span:
                break
            calls += call.sent <= until and not call.refused
        return calls / span

    def counted(self, since: float, until: float) -> tuple[int, int]:
        """Return how many calls left between two moments, and how many of them were refused."""
        calls = refused = 0
        for call in reversed(self._calls):
            if call.sent < since:
                break
            if call.sent <= until:
                calls += 1
                refused += call.refused
        return calls, refused

    def lifted(self, since: float, until: float) -> bool:
        """Tell whether those that were refused all left before those that were not."""
        refused = [c.refused for c in self._calls if since <= c.sent <= until]
        return refused == sorted(refused, reverse=True)

    def passing(self, since: float, until: float) -> float:
        """Return how many calls a second are let through, from the first refusal on if it was soon.

        What a service saved up for a burst is spent by then.
        """
        calls = [call for call in self.after(since) if call.sent <= until]
        first = next((k for k, call in enumerate(calls) if call.refused), 0)
        if first and until - calls[first].sent >= (until - since) / 2:
            calls, since = calls[first:], calls[first].sent
        return sum(not call.refused for call in calls) / (until - since)

    def after(self, moment: float) -> list[Call]:
        """Return the calls that left after a moment."""
        return [call for call in self._calls if call.sent > moment]


@dataclass(slots=True)
class Stretch:
    """The calls that are judged together.

    Args:
        span: Seconds that they left within, at least.
        since: When the first of them left: earlier ones are of another pace.
        look: When they are looked at next.
        let_through: The calls a second that were let through in the last one that was good.
    """

    span: float
    since: float = 0.0
    look: float = 0.0
    let_through: float = 0.0

    def lengthen(self, span: float) -> None:
        """Judge more seconds together where a service counts over many."""
        self.span = max(self.span, span)


@dataclass(slots=True)
class Ceiling:
    """The calls a second that the service seems to let through, and how long that is believed.

    Args:
        height: So many calls a second.
        found: When that was seen last.
        patience: Seconds for which it is believed.
        named: Calls too many are refused with a wait.
        step: How the pace is to grow next when it feels its way up.
    """

    height: float = math.inf
    found: float = 0.0
    patience: float = PATIENCE[0]
    named: bool = False
    step: float = PROBING

    def meet(self, height: float, now: float, *, below: bool) -> None:
        """Set the height; what was met `below` the ceiling that was known is felt again soon."""
        same = not below and abs(height / self.height - 1) < SAME
        self.patience = min(PATIENCE[1], 1.6 * self.patience) if same else PATIENCE[0]
        self.height, self.step = height, PROBING
        self.found = now - self.patience if below else now

    def spread(self, weather: float) -> float:
        """Return by how much weather varies the calls a second that come to it.

        It matters where each call too many holds all.
        """
        return math.sqrt(weather * self.height) if self.named else 0.0

    def top(self, weather: float) -> float:
        """Return the pace of which as much is let through, where a share is refused anyhow."""
        return self.height / (1 - weather)

    def calm(self, weather: float) -> float:
        """Return the pace at which it is not met."""
        return MARGIN * max(0.5, 1 - 1.5 * self.spread(weather) / self.height) * self.top(weather)

    def go_up_soon(self, now: float) -> None:
        """Let the pace grow soon and fast: the height is an estimate on the safe side."""
        self.found, self.step = now - self.patience, GROWTH

    def is_believed(self, now: float, span: float) -> bool:
        """Return whether the pace stays below it for now, judged by so many seconds together."""
        return now - self.found < self.patience * max(1.0, span / 2)


class Room:
    """How many calls may be in flight: without a limit until calls are refused for it."""

    def __init__(self) -> None:
        self.most = math.inf
        self._tried: Call | None = None
        self._left = 0

    def may_try(self, now: float, delay: float) -> bool:
        """Return whether one call more than there is room for may leave, as a try."""
        tried = self._tried
        if tried is None or (tried.refused and self._left < 3 * ENOUGH):
            return False
        return now >= tried.sent + (PATIENCE[1] if tried.refused else delay)

    def leave(self, call: Call) -> None:
        """Note a call that leaves; one more than there was room for is a try."""
        if call.live >= self.most:
            if self._tried is not None and not self._tried.refused:
                self.most = math.ceil(1.25 * self.most)
            self._tried, self._left = call, 0
        self._left += 1

    def shrink(self, calls: list[Call], known: float, now: float) -> bool:
        """Make less room if calls are refused only when many are in flight; return whether so."""
        full = sorted(call.live for call in calls if call.refused)
        if len(full) < FEWEST:
            return False
        room = full[len(full) // 10]
        over = sum(c.live >= room for c in calls if not c.refused and c.sent <= known)
        if room < 2 or over > 0.1 * len(full):
            self.most = math.inf
            return False
        self.most = room
        self._tried, self._left = Call(now, room, refused=True), 0
        return True


@dataclass(slots=True)
class Hold:
    """The rule's own hold of all calls; it holds nothing while its `seconds` are 0."""

    seconds: float = 0.0
    last_refused: float = 0.0
    probe: Call | None = None
    began: float = 0.0
    ended: float = -math.inf
    """When the last one began and ended."""

    def begin(self, now: float, pace: float, after: float | None) -> None:
        """Begin to hold calls."""
        self.seconds = after or min(FIRST_HOLD[1], max(FIRST_HOLD[0], 4 / pace))
        self.last_refused, self.probe, self.began = now, None, now

    def lengthen(self, sent: float, now: float, after: float | None) -> bool:
        """Hold longer and return True where it is the call that was let through that is refused."""
        if self.probe is None or self.probe.sent != sent:
            return False
        self.seconds = max(after or 0, min(LONGEST_HOLD, 3 * self.seconds))
        self.last_refused, self.probe = now, None
        return True


@dataclass(slots=True)
class Cycle:
    """What was let through since the last hold ended.

    Args:
        began: When it ended.
        through: The calls that left since then and were not refused.
        gap: The calls that left since then.
        empty: The holds before, one after the other, after which nothing was let through.
    """

    began: float = 0.0
    through: int = 0
    gap: int = 0
    empty: int = 0
    _before: tuple[float, int] = (0.0, 0)

    def leave(self) -> None:
        """Note that a call leaves."""
        self.through += 1
        self.gap += 1

    def refuse(self, sent: float) -> None:
        """Note that the call that left at a moment was refused."""
        if sent >= self.began:
            self.through -= 1

    def begin(self, moment: float, through: int) -> None:
        """Begin anew after so many calls were let through."""
        if through:
            self._before, self.empty = (self.began, through), 0
        else:
            self.empty += 1
        self.began = moment
        self.through = self.gap = 0

    def take_up(self) -> None:
        """Go back to the last cycle in which something was let through."""
        self.began, through = self._before
        self.through += through


@dataclass(slots=True)
class Start:
    """The first calls of a run without a rate: ever more of them a second.

    Args:
        on: The run is still at its beginning.
        ramp: Seconds in which the pace is to rise.
    """

    on: bool
    ramp: float
    left: int = 0
    answered: int = 0

    def free(self, now: float, last: float | None) -> float:
        """Return when the next call may leave, the last one having left at a moment."""
        if last is None or (self.left < FIRST_CALLS + 2 * self.answered and not self.ramp):
            return now
        return max(now, last + max(2 * SOON, self.ramp) / (1 + self.left))
