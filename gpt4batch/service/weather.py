"""Refusals that come whatever the pace, told from a limit by their odds; pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MOST_CALLS = 1000
"""Calls by which weather is known; of more the older ones count less."""
ALARMS, NAMED_ALARMS = 2.9, 1.9
"""Surprises below the ceiling beyond which it is weather and not a limit that falls; the same where
they name a wait. There are fewer of these, and they are counted in parts: older ones fade."""
TOLERATED = 0.005
"""The share of refusals, over what is expected, that is no surprise."""
WORST = 0.3
"""The largest share of refusals that is believed to be weather where they name no wait."""
LIKELY = 20
"""Calls after which a share of refusals is more than chance."""


def surprise(refused: int, calls: int, share: float) -> float:
    """Return how surprising it is that so many calls were refused where a share is expected.

    It is the exponent of the odds.
    """
    seen = refused / calls
    if seen <= share:
        return 0.0
    if not share:
        return math.inf
    rest = (1 - seen) * math.log((1 - seen) / (1 - share)) if seen < 1 else 0.0
    return calls * (seen * math.log(seen / share) + rest)


@dataclass(slots=True)
class Weather:
    """Refusals that come whatever the pace: those of calls below the ceiling.

    Args:
        calls: The calls below the ceiling; the older they are the less they count.
        refused: How many of them were refused.
        alarms: How often that was a surprise.
        quiet: The calls since then, and how many of these were refused.
    """

    calls: float = 0.0
    refused: float = 0.0
    alarms: float = 0.0
    quiet: tuple[int, int] = (0, 0)

    @property
    def share(self) -> float:
        """Return the share of calls that it refuses."""
        share = self._doubtful
        return share if self.alarms > ALARMS and share < WORST else 0.0

    @property
    def _doubtful(self) -> float:
        """Return the same, also where it may be a limit that fell."""
        return self.refused / self.calls if self.calls else 0.0

    def note(self, calls: int, refused: int, *, alarm: bool = False) -> None:
        """Note so many calls below the ceiling, and whether what came of them was a surprise."""
        quiet, few = self.quiet
        self.quiet = (0, 0) if alarm else (quiet + calls, few + refused)
        expected = self.quiet[0] * self._doubtful
        if expected > 6 and self.quiet[1] < expected / 3:
            self.alarms = 0.0  # it was cured
        self.calls += calls
        self.refused += refused
        self.alarms += alarm
        if self.calls > MOST_CALLS:
            fading = MOST_CALLS / self.calls
            self.alarms = max(fading * self.alarms, ALARMS + 1 if self.share else 0)
            self.calls, self.refused = MOST_CALLS, fading * self.refused

    def surprise(self, calls: int, refused: int, *, doubtful: bool = False) -> float:
        """Return how surprising so many refusals are, as the exponent of their odds."""
        share = self._doubtful if doubtful and self.calls > LIKELY else self.share
        # What is known of the weather was counted, too.
        counted = self.calls / (self.calls + calls) if self.share else 1.0
        return counted * surprise(refused, calls, share + TOLERATED)


class Gaps:
    """How many calls it took from one refusal that names a wait to the next.

    Such refusals below the ceiling are weather, too. They are counted one by one.
    """

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=8)
        self._calls = self._alarms = 0.0

    @property
    def share(self) -> float:
        """Return the share of calls that such weather refuses."""
        return self._alarms / self._calls if self._alarms > NAMED_ALARMS else 0.0

    def note(self, gap: int, *, alarm: bool, met: bool) -> bool:
        """Note a gap and return whether it is a limit that lets as many calls through each time.

        Args:
            gap: The calls, the refused one among them.
            alarm: It was below the ceiling.
            met: There is a ceiling.
        """
        last = self._last
        last.append(gap)
        regular = len(last) >= 5 and max(last) - min(last) <= 0.3 * sum(last) / len(last)
        if regular:
            self._calls = self._alarms = 0.0
            last.clear()
        elif met:
            self._calls += gap
            self._alarms += alarm
            fading = min(1.0, MOST_CALLS / self._calls)
            self._calls, self._alarms = fading * self._calls, fading * self._alarms
        return regular

    def surprise(self) -> float:
        """Return how surprising the last refusals are, or as few of them as surprise most."""
        most, calls = 0.0, 0
        for refused, gap in enumerate(reversed(self._last), 1):
            calls += gap
            most = max(most, surprise(refused, calls, self.share))
        return most
