"""The pace of a fleet: slots in time, each of which belongs to one worker; pure, no clock.

Slot n lies n / rate seconds after the beginning of the coordinator's clock. Runs of slots are given
out ahead of their time and never changed, so that no two workers ever think one slot theirs,
however late or lost a message is: who has not heard of a slot does not use it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from gpt4batch.service.pace import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AHEAD = 2.0
"""Seconds for which slots are given out ahead: so long a change takes to come into force."""
NOBODY = -1


def tolerance(rate: float) -> float:
    """Return how many seconds late a slot may be used: no second sees 1.02 x rate + 1 for it."""
    return max(0.015, 0.5 / rate)


class Wheel:
    """Give out slots.

    Args:
        rate: Slots a second.
        now: Slots begin half a second after this moment.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.rule = Rule(rate, lag=AHEAD + 1)
        self.workers: list[str] = []
        self.runs: deque[list[int]] = deque()
        """The runs that are not over: the first slot's number, then an owner's place a slot."""
        self._next = math.ceil((now + 0.5) * rate)
        self._credit: dict[str, float] = {}
        self._used = 0.0

    def turn(self, now: float, weights: Mapping[str, float]) -> None:
        """Give out the slots up to `AHEAD` from now, by weight, and forget those that are over."""
        first, end = self._next, math.ceil((now + AHEAD) * self.rate)
        late = math.ceil(now * self.rate)
        if end > first:
            self.runs.append([first, *(self._owner(k, weights) for k in range(first, end))])
            self._next = end
        while self.runs and self.runs[0][0] + len(self.runs[0]) - 1 < late:
            self.runs.popleft()

    def _owner(self, slot: int, weights: Mapping[str, float]) -> int:
        """Return whose a slot is: of those who wait for their part the one furthest back."""
        if slot / self.rate < self.rule.held:
            return NOBODY
        self._used += self.share
        total = sum(weights.values())
        if self._used < 1 or not total:
            self._used = min(self._used, 1.0)
            return NOBODY
        self._used -= 1
        credit = {who: self._credit.get(who, 0.0) + w / total for who, w in weights.items()}
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= 1
        self._credit = credit
        if chosen not in self.workers:
            self.workers.append(chosen)
        return self.workers.index(chosen)

    @property
    def share(self) -> float:
        """Return the share of the slots that are given out."""
        return min(1.0, self.rule.pace / self.rate)

    def heard(self, now: float, calls: int, refused: int, after: float = 0.0) -> None:
        """Take in what a worker reports: calls that left since its last report, and refusals.

        Which of the calls were refused is not said: they are taken to lie evenly among them.
        """
        moments = [now + k * 1e-6 for k in range(max(calls, refused))]
        for moment in moments:
            self.rule.leave(moment)
            self.rule.done()
        for k in range(refused):
            moment = moments[k * len(moments) // refused]
            self.rule.refused(moment, moment, after)


class Slots:
    """The slots of one worker, on the coordinator's clock."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._mine: deque[int] = deque()
        self._known = -1

    def learn(self, rate: float, runs: Iterable[list[int]], me: int) -> None:
        """Take in runs of slots; what is known already is passed over."""
        self.rate = rate
        for first, *owners in runs:
            last = first + len(owners) - 1
            for slot in range(max(first, self._known + 1), last + 1):
                if owners[slot - first] == me:
                    self._mine.append(slot)
            self._known = max(self._known, last)

    def forget(self) -> None:
        """Drop all slots: there is another coordinator."""
        self._mine.clear()
        self._known = -1

    def take(self, now: float) -> float | None:
        """Take the next slot that can still be used and return its moment."""
        while self._mine:
            moment = self._mine.popleft() / self.rate
            if now <= moment + tolerance(self.rate):
                return moment
        return None


class Clock:
    """The difference between two clocks, from messages that went there and back."""

    def __init__(self, kept: int = 32) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=kept)

    def learn(self, sent: float, came: float, answered: float, heard: float) -> None:
        """Take in a round trip: sent and heard by our clock, came and answered by the other."""
        delay = (heard - sent) - (answered - came)
        self._seen.append((delay, ((came - sent) + (answered - heard)) / 2))

    @property
    def ahead(self) -> float | None:
        """Return by how much the other clock is ahead, from the fastest round trip."""
        return min(self._seen)[1] if self._seen else None
