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
from typing import TYPE_CHECKING

from gpt4batch.service.pace_parts import (
    ENOUGH,
    PATIENCE,
    SAME,
    STREAK,
    Call,
    Calls,
    Ceiling,
    Cycle,
    Hold,
    Room,
    Start,
    Stretch,
    Trial,
)

if TYPE_CHECKING:
    from gpt4batch.dialects.limits import Limits

SPAN = 1.1
"""Seconds that are judged together, at least: services count by the second."""
LONGEST_SPAN = 10.0
"""Seconds after which a few calls have to do."""
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
STEPS_DOWN = 3
WORST_WEATHER = 0.3
"""The largest share of refusals that is believed to come whatever the pace."""
SLOWEST = 0.1
"""Calls a second below which refusals do not bring the pace."""
SHORT_WAIT = 2.0
"""Seconds of a Retry-After up to which the service seems to count by the second."""
SHORTEST_WAIT = 0.5
"""Seconds of a Retry-After below which it says nothing of the time that the service counts by."""
LEAST_SHARE = 0.2
"""What a single refusal is taken for, that asks to wait or ends a row of them."""
FULL = 0.02
"""Seconds after which it is looked again whether there is room."""


class Rule:
    """The pace of a run: `pace` calls a second, none before `held`, at most `room` in flight.

    Args:
        most: Calls a second that are never exceeded; infinite where there is no limit.
        ramp: Seconds in which the pace rises from a tenth of it at the beginning.
        lag: Seconds after which a change of the pace comes into force.
    """

    def __init__(self, most: float = math.inf, *, ramp: float = 0.0, lag: float = 0.0) -> None:
        self.most = self.pace = most
        self.held = 0.0
        self.weather = 0.0
        self.live = 0
        self._ramp, self._lag = ramp, lag
        self._began: float | None = None
        self._calls = Calls()
        self._start = Start(math.isinf(most), ramp)
        self._ceiling = Ceiling()
        self._trial: Trial | None = None
        self._hold = Hold()
        self._cycle = Cycle()
        self._room = Room()
        self._step, self._clean = PROBING, 0.0
        self._stretch = Stretch(SPAN)

    @property
    def room(self) -> float:
        """Return how many calls may be in flight."""
        return self._room.most

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
        if self._start.on:
            return self._start.free(now, self._calls.last)
        if self.live >= self.room and not self._room.may_try(now, self._calls.delay):
            return now + FULL
        return now

    def leave(self, now: float) -> None:
        """Note that a call leaves."""
        if self._began is None:
            self._began = self._cycle.began = now
            self._judge_anew(now)
        call = Call(now, self.live)
        self._room.leave(call)
        self._calls.add(call)
        self._cycle.leave()
        self._start.left += 1
        self.live += 1
        if self._hold.seconds:
            if now >= self.held:
                self._probe_left(call)
        elif now >= self._stretch.look:
            self._judge(now)

    # -- what comes of it --------------------------------------------------------------------

    def answered(self) -> None:
        """Note that a call was answered."""
        self._start.answered += 1

    def done(self) -> None:
        """Note that a call has ended, whatever came of it."""
        self.live = max(0, self.live - 1)

    def refused(self, sent: float, now: float, after: float | None = None) -> None:
        """Note that the call that left at `sent` was refused and, perhaps, is to wait."""
        place = self._calls.refuse(sent, now)
        if after:
            self.held = now + after
        self._cycle.refuse(sent)
        # A wait of less than it takes to know what came of the last change says nothing new.
        hasty = after and after < SHORTEST_WAIT and sent < self._stretch.since + SPAN
        if place is None or sent < self._stretch.since or hasty:
            return

        if after:
            self._hold.seconds = 0.0
            self._meet_named(place, sent, now, after)
        elif self._hold.seconds:
            if self._hold.lengthen(sent, now):
                self._hold_calls(now)
        elif self._in_a_row(place):
            self._begin_hold(now)
        elif now >= self._stretch.look:
            self._judge(now)

    def heed(self, limits: Limits, now: float) -> None:
        """Slow down to what the headers of a reply promise, where little is left to be used."""
        for window in limits.requests:
            if window.scarce and window.refill < self.pace:
                self.pace = max(SLOWEST, window.refill)
                self._ceiling.meet(self.pace, now)
                self._start.on = False

    # -- limits that name a wait -------------------------------------------------------------

    def _meet_named(self, place: int, sent: float, now: float, after: float) -> None:
        """Slow down to what is let through where a refusal names a wait."""
        cycle, trial = self._cycle, self._trial
        spent = sent - cycle.began
        through = (cycle.through - self._calls.not_refused(place)) / (spent + after)
        told = after <= SHORT_WAIT and (trial is None or spent > 1 + 2 * after)
        if told:
            known = sent - 0.6 * (now - sent)  # of later ones the refusals may be on their way
            counted = (self._calls.accepted(known, span) for span in (1.0, 3.0))
            through = max(through, *counted)
            through = through if trial is None else min(through, 0.95 * self.pace)
        elif after <= SHORT_WAIT:
            through = min(0.85 * self.pace, max(0.25 * self.pace, through))
        few = ENOUGH if math.isinf(self.pace) else STREAK
        measured = cycle.gap - self._calls.since(place)
        if measured < few and (trial is None or trial.steps < STEPS_DOWN):  # they are no measure
            through = max(through, (ENOUGH if math.isinf(self.pace) else self.pace) / 2)

        self._stretch.span = min(LONGEST_SPAN, max(SPAN, after / 6))
        share = cycle.named_share(anew=trial is None and not cycle.named)
        if share > 2 * cycle.named:
            self._meet(now, self.weather + LEAST_SHARE, through, named=share)
            if after <= SHORT_WAIT and not told:
                # An estimate on the safe side: up soon.
                self._ceiling.found = now - self._ceiling.patience
        self._begin_cycle(self.held)

    def _begin_cycle(self, moment: float) -> None:
        self._cycle.begin(moment)
        self._judge_anew(moment)

    # -- refusals one after the other --------------------------------------------------------

    def _in_a_row(self, place: int) -> bool:
        """Return whether a refused call and those before it, all of this pace, were refused."""
        count = math.ceil(STREAK * math.log(0.06) / math.log(max(0.06, self.weather)))
        return self._calls.are_refused(place, count, self._stretch.since)

    def _begin_hold(self, now: float) -> None:
        if not self._is_crowded(now):
            self._hold.begin(now, self.pace)
            self._hold_calls(now)

    def _hold_calls(self, now: float) -> None:
        self.held = max(self.held, now + self._lag + self._hold.seconds)

    def _probe_left(self, call: Call) -> None:
        """Let one call through; where an earlier one was not refused the hold is over."""
        hold, cycle = self._hold, self._cycle
        if hold.probe is None:
            hold.probe = call
            self.held = max(self.held, call.sent + self._lag + self._calls.delay)
            return

        end = (hold.last_refused + hold.probe.sent) / 2
        through = (cycle.through - 2) / max(SPAN, end - cycle.began)
        self._stretch.span = min(LONGEST_SPAN, max(SPAN, hold.seconds / 2))
        share = self.weather + max(LEAST_SHARE, min(1.0, STREAK / max(1, cycle.gap)))
        hold.seconds = 0.0
        self._meet(call.sent, share, through)
        self._begin_cycle(call.sent)

    # -- judging -----------------------------------------------------------------------------

    def _judge_anew(self, now: float) -> None:
        """Judge only the calls that leave from now on, when a new pace has come into force."""
        self._stretch.since = self._stretch.look = now + self._lag

    def _judge(self, now: float) -> None:
        """Judge the calls since the last change, where they are enough to tell."""
        known = now - self._calls.delay
        span = known - self._stretch.since
        self._stretch.look = max(
            now + 0.1, self._stretch.since + self._stretch.span + self._calls.delay
        )
        if span < self._stretch.span:
            return
        calls, refused = self._calls.counted(self._stretch.since, known)
        if calls < 5 or (calls < ENOUGH and span < LONGEST_SPAN):
            return

        share, through = refused / calls, (calls - refused) / span
        spread = max(self.weather * (1 - self.weather), TOLERATED, 1 / calls)
        excess, error = share - self.weather, math.sqrt(spread / calls)
        # Where the pace feels its way up refusals are expected: fewer of them are enough.
        sure = 2.0 if self.pace > 0.98 * self._ceiling.height else 3.5
        good = max(TOLERATED, error) if self.weather else TOLERATED
        if self._trial is not None:
            self._judge_trial(self._trial, now, calls, share, through)
        elif excess > max(TOLERATED, sure * error):
            if not self._is_crowded(now):
                least = self._clean if self._stretch.span == SPAN else 0.9 * self.pace
                self._meet(now, share, max(through, least))
        elif excess <= good or calls >= PLENTY:
            self._learn_weather(calls, excess)
            self._clean = through
            self._go_up(now, calls / span)

    def _learn_weather(self, calls: int, excess: float) -> None:
        """Follow a weather that changes."""
        if self.weather:
            self.weather += min(0.3, calls / 500) * excess
        if self._cycle.gap * self._cycle.named > 6:
            self._cycle.named = 0.0

    # -- trials ------------------------------------------------------------------------------

    def _meet(self, now: float, share: float, through: float, named: float = 0.0) -> None:
        """Slow down to what was let through."""
        self._start.on = False
        ceiling, height = self._ceiling, max(SLOWEST, through / (1 - self.weather))
        if self._trial is not None:
            self._trial.steps += 1
            self._trial.left += self._cycle.gap
        elif self.pace <= 0.98 * ceiling.height:
            before = min(self.pace, max(ENOUGH, 2 * through))
            excess = max(share - self.weather, TOLERATED)
            self._trial = Trial(before, excess, ceiling.height, named)
        elif ceiling.is_same(height):
            ceiling.patience = min(PATIENCE[1], 1.6 * ceiling.patience)
        else:
            ceiling.patience = PATIENCE[0]

        if self._trial is None or not self._ended_as_weather(self._trial, share, named):
            ceiling.meet(height, now)
            self._clean, self._step = 0.0, PROBING
            self.pace = min(self.most, max(SLOWEST, MARGIN * height))
        self._judge_anew(now)

    def _ended_as_weather(self, trial: Trial, share: float, named: float) -> bool:
        """Give a trial up that cured nothing, and return whether it was so."""
        if trial.steps <= STEPS_DOWN or (not named and share > WORST_WEATHER):
            return False
        if named:
            self._cycle.named = named
        else:
            self.weather = share
        self.pace, self._trial = min(self.most, trial.pace), None
        self._ceiling.height = math.inf
        return True

    def _judge_trial(
        self, trial: Trial, now: float, calls: int, share: float, through: float
    ) -> None:
        refused = (share - self.weather) * calls
        if refused >= 3:
            self._meet(now, share, through)
            return
        if calls < (trial.enough() if trial.named else 8 / trial.share):
            return
        if abs(self._ceiling.height / trial.ceiling - 1) > SAME:
            self._ceiling.patience = PATIENCE[0]
        self._trial = None
        self._judge_anew(now)

    # -- going up ----------------------------------------------------------------------------

    def _go_up(self, now: float, used: float) -> None:
        """Let the pace grow, unless it is not what holds the run back."""
        self._stretch.since = now - self._calls.delay
        if self.pace >= self.most or used < 0.7 * self.pace:
            return
        height = self._ceiling.height
        near = 0.9 * height <= self.pace
        if self.pace > 1.5 * height:
            self._stretch.span = SPAN
        if near and self._ceiling.is_believed(now):
            self.pace = min(self.most, max(self.pace, MARGIN * height))
            self._step = PROBING
        else:
            most = GROWTH if self._stretch.span == SPAN else SLOW_GROWTH
            self._step = min(most, 2 * self._step - 1) if near else most
            self.pace = min(self.most, self.pace * self._step)
        self._judge_anew(now)

    def _is_crowded(self, now: float) -> bool:
        """Return whether there are too many calls in flight, and make less room if so."""
        recent = self._calls.after(now - LONGEST_SPAN)
        if not self._room.shrink(recent, now - self._calls.delay, now):
            return False
        self._start.on = False
        self._judge_anew(now)
        return True
