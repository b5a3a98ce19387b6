"""The rule by which a run finds the pace that a service allows; pure: no clock, no I/O.

**What it hears.** When each call leaves, which calls are refused (429, 503 that name a wait), and
which are answered. A refusal is known after a round trip, an answer perhaps after minutes, so the
rule does not wait for answers: a call that was not refused soon after it left was accepted.

**Judging.** The calls of the last seconds are judged together, as soon as they are enough to tell.
Too many refusals are either a limit or weather: a service that refuses a share of the calls
whatever the pace. A *trial* finds out. It slows down to what was let through. Where that cures the
refusals it was a limit, and its height is known (the *ceiling*). Where three steps down cure
nothing it was weather: the old pace comes back, and that share of refusals is expected from now on.

**Going up.** Well below the ceiling, or without one, the pace grows by two fifths each time the
calls were judged good. Just below the ceiling it stays for a while, then feels its way up in small
steps; the same ceiling met again makes the next wait longer, and a ceiling that has gone is
forgotten.

**Holding.** A Retry-After holds all calls. Where a service that names no wait refuses one call
after the other, the rule holds all calls itself and lets one through now and then, ever later.
What was let through between two holds, over the whole time with the second hold in it, is what a
service allows that counts by the minute.

**So many at a time.** Where calls are refused when so many are in flight, and accepted when fewer
are, the pace stays and the *room* shrinks: how many calls may be in flight.

**A first burst.** Without a rate to keep to, a run begins with a few calls and doubles them as they
prove to be accepted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt4batch.dialects.limits import Limits

SPAN = 1.1
"""Seconds that are judged together, at least: services count by the second."""
LONGEST_SPAN = 10.0
"""Seconds after which a few calls have to do."""
ENOUGH = 20
"""Calls that are judged together, at least."""
PLENTY = 400
"""Calls after which what is still doubtful is taken as good."""
TOLERATED = 0.02
"""The share of refusals, over what is expected, that is no reason to slow down."""
MARGIN = 0.98
"""The share of what was let through at which the pace is set."""
GROWTH = 1.4
PROBING = 1.015
"""How the pace grows where nothing is known to be in the way, and beyond the ceiling."""
SLOW_GROWTH = 1.06
"""The same where the service counts over many seconds: what it takes now says little."""
PATIENCE = (8.0, 18.0)
"""Seconds for which a ceiling is believed: a new one, and one that was met again and again."""
STEPS_DOWN = 3
WORST_WEATHER = 0.3
"""The largest share of refusals that is believed to come whatever the pace."""
SLOWEST = 0.1
"""Calls a second below which refusals do not bring the pace."""
STREAK = 5
"""Refusals one after the other after which all calls are held."""
FIRST_HOLD = (0.25, 2.0)
LONGEST_HOLD = 15.0
"""Seconds for which the rule itself holds all calls: at first, by the pace, and at most."""
SHORT_WAIT = 2.0
"""Seconds of a Retry-After up to which the service seems to count by the second."""
LEAST_SHARE = 0.2
"""What a single refusal is taken for, that asks to wait or ends a row of them."""
SOON = 0.5
"""Seconds after which a call that is not refused is accepted, until refusals show their own."""
FIRST_CALLS = 20
"""Calls with which a run without a rate begins."""
REMEMBERED = 4096
"""Calls that are remembered, at most."""


@dataclass(slots=True)
class Call:
    """A call that left: when, with how many others in flight, and whether it was refused."""

    sent: float
    live: int
    refused: bool = False


@dataclass(slots=True)
class Trial:
    """A slowing down that shows whether refusals depend on the pace."""

    pace: float
    share: float
    ceiling: float
    steps: int = 1


class Rule:
    """The pace of a run: `pace` calls a second, none before `held`, at most `room` in flight.

    Args:
        most: Calls a second that are never exceeded; infinite where there is no limit.
        ramp: Seconds in which the pace rises from a tenth of it at the beginning.
        lag: Seconds after which a change of the pace comes into force.
    """

    def __init__(self, most: float = math.inf, *, ramp: float = 0.0, lag: float = 0.0) -> None:
        self.most = most
        self._ramp, self._lag = ramp, lag
        self._began: float | None = None
        self.pace = most
        self.room = math.inf
        self.held = 0.0
        self.weather = 0.0
        self._named = 0.0
        self.live = 0
        self._ceiling = math.inf
        self._found = 0.0
        self._patience = PATIENCE[0]
        self._step, self._span, self._clean = PROBING, SPAN, 0.0
        self._trial: Trial | None = None
        self._calls: deque[Call] = deque(maxlen=REMEMBERED)
        self._since = 0.0  # calls that left earlier are of another pace
        self._look = 0.0
        self._delay = SOON
        self._cycle = 0.0  # when the last hold ended
        self._let_through = 0
        self._gap = 0
        self._gaps: deque[int] = deque(maxlen=5)
        self._hold = 0.0  # seconds of the rule's own hold, 0 where it holds nothing
        self._last_no = 0.0
        self._probe: Call | None = None
        self._starting = math.isinf(most)
        self._left = self._answered = 0
        self._tried: Call | None = None
        self._room_calls = 0

    def retune(self, most: float) -> None:
        """Set the rate anew; what was learned of the service, and a hold, stay."""
        untouched = self.pace == self.most
        self.most = most
        self.pace = most if untouched else min(self.pace, most)

    # -- when a call may leave ---------------------------------------------------------------

    def rate(self, now: float) -> float:
        """Return the calls a second that may leave at a moment: the pace, less in the ramp."""
        if not self._ramp or math.isinf(self.most):
            return self.pace
        since = 0.0 if self._began is None else now - self._began
        return min(self.pace, self.most * min(1.0, 0.1 + 0.9 * since / self._ramp))

    def free(self, now: float) -> float:
        """Return the moment before which no call may leave, whatever the pace."""
        if self.held > now:
            return self.held
        if self._starting:
            return self._first_calls(now)
        if self.live >= self.room and not self._try_room(now):
            return now + 0.02
        return now

    def _first_calls(self, now: float) -> float:
        """Return when the next of the first calls may leave: ever more of them a second."""
        if self._left < FIRST_CALLS + 2 * self._answered and not self._ramp:
            return now
        if not self._calls:
            return now
        return max(now, self._calls[-1].sent + max(2 * SOON, self._ramp) / (1 + self._left))

    def _try_room(self, now: float) -> bool:
        """Tell whether one call more than there is room for may leave, to see what comes of it."""
        tried = self._tried
        if tried is None or (tried.refused and self._room_calls < 3 * ENOUGH):
            return False
        return now >= tried.sent + (PATIENCE[1] if tried.refused else self._delay)

    def leave(self, now: float) -> None:
        """Take note that a call leaves."""
        if self._began is None:
            self._began = self._cycle = now
            self._judge_anew(now)
        call = Call(now, self.live)
        if self.live >= self.room:
            if self._tried is not None and not self._tried.refused:
                self.room = math.ceil(1.25 * self.room)
            self._tried, self._room_calls = call, 0
        self._room_calls += 1
        self._calls.append(call)
        self.live += 1
        self._left += 1
        self._let_through += 1
        self._gap += 1
        if self._hold:
            if now >= self.held:
                self._probe_left(call)
        elif now >= self._look:
            self._judge(now)

    # -- what comes of it --------------------------------------------------------------------

    def answered(self) -> None:
        """Take note that a call was answered."""
        self._answered += 1

    def done(self) -> None:
        """Take note that a call has come to its end, whatever it was."""
        self.live = max(0, self.live - 1)

    def refused(self, sent: float, now: float, after: float | None = None) -> None:
        """Take note that the call that left at `sent` was refused and, perhaps, is to wait."""
        place = self._place(sent)
        self._delay = min(1.0, max(0.05, 0.9 * self._delay, 1.5 * (now - sent)))
        if after:
            self.held = now + after
        if sent >= self._cycle:
            self._let_through -= 1
        if place is None or sent < self._since:
            return
        if after:
            self._hold = 0.0
            self._meet_named(place, now, after)
        elif self._hold:
            self._hold_on(sent, now)
        elif self._in_a_row(place):
            self._begin_hold(now)
        elif now >= self._look:
            self._judge(now)

    def _place(self, sent: float) -> int | None:
        """Mark the call that left at a moment as refused and return where it stands."""
        place = bisect_right(self._calls, sent, key=attrgetter("sent")) - 1
        while place >= 0 and self._calls[place].sent == sent:
            if not self._calls[place].refused:
                self._calls[place].refused = True
                for later in range(place + 1, len(self._calls)):
                    self._calls[later].live -= 1  # it never was in flight at the service
                return place
            place -= 1
        return None

    def _accepted(self, until: float, span: float) -> float:
        """Return how many calls a second were accepted in the seconds up to a moment."""
        calls = 0
        for call in reversed(self._calls):
            if call.sent <= until - span:
                break
            calls += call.sent <= until and not call.refused
        return calls / span

    def heed(self, limits: Limits, now: float) -> None:
        """Slow down to what the headers of a reply promise, where little is left to be used."""
        for window in limits.requests:
            if window.scarce and window.refill < self.pace:
                self.pace = self._ceiling = max(SLOWEST, window.refill)
                self._found = now
                self._starting = False

    # -- limits that name a wait -------------------------------------------------------------

    def _meet_named(self, place: int, now: float, after: float) -> None:
        """Slow down to what is let through where a refusal names a wait."""
        sent = self._calls[place].sent
        spent = sent - self._cycle
        unknown = sum(not self._calls[k].refused for k in range(place, len(self._calls)))
        through = (self._let_through - unknown) / (spent + after)
        told = after <= SHORT_WAIT and (self._trial is None or spent > 1 + 2 * after)
        if told:
            known = sent - 0.6 * (now - sent)  # of later ones the refusals may be on their way
            through = max(through, self._accepted(known, 1.0), self._accepted(known, 3.0))
            through = through if self._trial is None else min(through, 0.95 * self.pace)
        elif after <= SHORT_WAIT:
            through = min(0.85 * self.pace, max(0.25 * self.pace, through))
        if self._gap < STREAK:  # so few calls are no measure
            through = max(through, (ENOUGH if math.isinf(self.pace) else self.pace) / 2)
        self._span = min(LONGEST_SPAN, max(SPAN, after / 6))
        if self._trial is None and not self._named:
            self._gaps.clear()
        self._gaps.append(max(1, self._gap))
        share = len(self._gaps) / sum(self._gaps)
        if share > 2 * self._named:
            self._meet(now, self.weather + LEAST_SHARE, through, named=share)
            if after <= SHORT_WAIT and not told:
                self._found = now - self._patience  # an estimate on the safe side: up soon
        self._begin_cycle(self.held)

    def _begin_cycle(self, moment: float) -> None:
        self._cycle = moment
        self._judge_anew(moment)
        self._let_through = self._gap = 0

    # -- refusals one after the other --------------------------------------------------------

    def _in_a_row(self, place: int) -> bool:
        """Tell whether a refused call and those before it, all of this pace, were refused."""
        first = place + 1 - math.ceil(STREAK * math.log(0.06) / math.log(max(0.06, self.weather)))
        if first < 0 or self._calls[first].sent < self._since:
            return False
        return all(self._calls[k].refused for k in range(first, place))

    def _begin_hold(self, now: float) -> None:
        if self._crowded(now):
            return
        self._hold = min(FIRST_HOLD[1], max(FIRST_HOLD[0], 2 / self.pace))
        self._last_no = now
        self._probe = None
        self.held = max(self.held, now + self._lag + self._hold)

    def _hold_on(self, sent: float, now: float) -> None:
        """Hold longer: the call that was let through was refused as well."""
        if self._probe is None or sent != self._probe.sent:
            return
        self._probe = None
        self._last_no = now
        self._hold = min(LONGEST_HOLD, 2 * self._hold)
        self.held = max(self.held, now + self._lag + self._hold)

    def _probe_left(self, call: Call) -> None:
        """Let one call through; where an earlier one was not refused the hold is over."""
        if self._probe is None:
            self._probe = call
            self.held = max(self.held, call.sent + self._lag + self._delay)
            return
        end = (self._last_no + self._probe.sent) / 2
        through = (self._let_through - 2) / max(SPAN, end - self._cycle)
        self._span = min(LONGEST_SPAN, max(SPAN, self._hold / 2))
        share = self.weather + max(LEAST_SHARE, min(1.0, STREAK / max(1, self._gap)))
        self._hold = 0.0
        self._meet(call.sent, share, through)
        self._begin_cycle(call.sent)

    # -- judging -----------------------------------------------------------------------------

    def _judge_anew(self, now: float) -> None:
        """Judge only the calls that leave from now on, when a new pace has come into force."""
        self._since = self._look = now + self._lag

    def _judge(self, now: float) -> None:
        """Judge the calls since the last change, where they are enough to tell."""
        known = now - self._delay
        span = known - self._since
        self._look = max(now + 0.1, self._since + self._span + self._delay)
        if span < self._span:
            return
        calls, refused = self._counted(known)
        if calls < 5 or (calls < ENOUGH and span < LONGEST_SPAN):
            return
        share, through = refused / calls, (calls - refused) / span
        excess, error = share - self.weather, self._error(calls)
        # Where the pace feels its way up refusals are expected: fewer of them are enough.
        sure = 2.0 if self.pace > 0.98 * self._ceiling else 3.5
        good = max(TOLERATED, error) if self.weather else TOLERATED
        if self._trial is not None:
            self._judge_trial(now, calls, share, through)
        elif excess > max(TOLERATED, sure * error):
            if not self._crowded(now):
                least = self._clean if self._span == SPAN else 0.9 * self.pace
                self._meet(now, share, max(through, least))
        elif excess <= good or calls >= PLENTY:
            self._learn_weather(calls, excess)
            self._clean = through
            self._go_up(now, calls / span)

    def _counted(self, known: float) -> tuple[int, int]:
        """Return how many calls left at this pace, and how many of them were refused."""
        calls = refused = 0
        for call in reversed(self._calls):
            if call.sent < self._since:
                break
            if call.sent <= known:
                calls += 1
                refused += call.refused
        return calls, refused

    def _error(self, calls: int) -> float:
        """Return the standard error of the share of refusals among so many calls."""
        spread = max(self.weather * (1 - self.weather), TOLERATED, 1 / calls)
        return math.sqrt(spread / calls)

    def _learn_weather(self, calls: int, excess: float) -> None:
        """Follow a weather that changes."""
        if self.weather:
            self.weather += min(0.3, calls / 500) * excess
        if self._gap * self._named > 6:
            self._named = 0.0

    def _meet(self, now: float, share: float, through: float, named: float = 0.0) -> None:
        """Slow down to what was let through."""
        self._starting = False
        ceiling = max(SLOWEST, through / (1 - self.weather))
        if self._trial is not None:
            self._trial.steps += 1
        elif self.pace <= 0.98 * self._ceiling:
            before = min(self.pace, max(ENOUGH, 2 * through))
            self._trial = Trial(before, max(share - self.weather, TOLERATED), self._ceiling)
        elif abs(ceiling / self._ceiling - 1) < 0.15:
            self._patience = min(PATIENCE[1], 1.6 * self._patience)
        else:
            self._patience = PATIENCE[0]
        if self._trial is not None and self._ended_as_weather(share, named):
            self._judge_anew(now)
            return
        self._ceiling, self._found, self._clean, self._step = ceiling, now, 0.0, PROBING
        self.pace = min(self.most, max(SLOWEST, MARGIN * ceiling))
        self._judge_anew(now)

    def _ended_as_weather(self, share: float, named: float) -> bool:
        """Give a trial up that cured nothing, and tell whether it was so."""
        trial = self._trial
        if trial is None or trial.steps <= STEPS_DOWN:
            return False
        if share > WORST_WEATHER or named > WORST_WEATHER / 2:
            return False
        if named:
            self._named = named
        else:
            self.weather = share
        self.pace, self._ceiling, self._trial = min(self.most, trial.pace), math.inf, None
        return True

    def _judge_trial(self, now: float, calls: int, share: float, through: float) -> None:
        trial = self._trial
        if trial is None:
            return
        refused = (share - self.weather) * calls
        if refused >= 3:
            self._meet(now, share, through)
        if refused >= 3 or calls * trial.share < 8:
            return
        if abs(self._ceiling / trial.ceiling - 1) > 0.15:
            self._patience = PATIENCE[0]
        self._trial = None
        self._judge_anew(now)

    def _go_up(self, now: float, used: float) -> None:
        """Let the pace grow, unless it is not what holds the run back."""
        self._since = now - self._delay
        if self.pace >= self.most or used < 0.7 * self.pace:
            return
        near = 0.9 * self._ceiling <= self.pace
        if self.pace > 1.5 * self._ceiling:
            self._span = SPAN
        if near and now - self._found < self._patience:
            self.pace = min(self.most, max(self.pace, MARGIN * self._ceiling))
            self._step = PROBING
        else:
            most = GROWTH if self._span == SPAN else SLOW_GROWTH
            self._step = min(most, 2 * self._step - 1) if near else most
            self.pace = min(self.most, self.pace * self._step)
        self._judge_anew(now)

    # -- so many at a time -------------------------------------------------------------------

    def _crowded(self, now: float) -> bool:
        """Make less room where calls are refused only when many are in flight; tell whether so."""
        known = now - self._delay
        recent = [call for call in self._calls if call.sent > now - LONGEST_SPAN]
        full = sorted(call.live for call in recent if call.refused)
        if len(full) < STREAK:
            return False
        room = full[len(full) // 10]
        over = sum(c.live >= room for c in recent if not c.refused and c.sent <= known)
        if room < 2 or over > 0.1 * len(full):
            self.room = math.inf
            return False
        self.room = room
        self._starting = False
        self._tried, self._room_calls = Call(now, room, refused=True), 0
        self._judge_anew(now)
        return True
