"""The rule by which a run finds the pace that a service allows; pure: no clock, no I/O.

**What it hears.** When each call leaves, which calls are refused (429, 503 that name a wait), and
which are answered. A refusal is known after a round trip, an answer perhaps after minutes, so the
rule does not wait for answers: a call that was not refused soon after it left was accepted.

**A limit, or weather?** The calls of the last seconds are judged together, as soon as they are
enough to tell. Refusals are a surprise when chance alone would hardly bring so many. The pace then
goes down to what was let through, and that is the *ceiling*. Where it was a limit, calls below the
ceiling are not refused. Where they still are, again and again, it is *weather*: a service that
refuses a share of the calls whatever the pace. That share is measured below the ceiling, it is no
surprise from then on, and the pace goes back to where it was.

**Going up.** Well below the ceiling, or without one, the pace grows by two fifths each time the
calls were judged good. Just below the ceiling it stays for a while, then feels its way up in steps
that double; the same ceiling met again makes the next wait longer, and a ceiling that is no more is
forgotten.

**Waits.** A Retry-After holds all calls, so that few calls tell little, and each refusal counts by
itself: what matters is how many calls went through between two of them. As many each time is a
limit, whatever was taken for weather. Where one call after the other is refused, the rule holds all
calls itself and lets one through now and then, ever later. What was let through between two such
holds is what a service allows that counts by the minute. The first of them may be an outage, and a
time in which nothing was let through tells of no pace: then the pace stays as it was.

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
    GROWTH,
    OUTAGES,
    Call,
    Calls,
    Ceiling,
    Cycle,
    Hold,
    Room,
    Start,
    Stretch,
)
from gpt4batch.service.weather import Gaps, Weather

if TYPE_CHECKING:
    from gpt4batch.dialects.limits import Limits

SPAN = 1.1
"""Seconds that are judged together, at least: services count by the second."""
LONGEST_SPAN = 10.0
"""Seconds after which a few calls have to do."""
PLENTY = 400
"""Calls after which what is still doubtful is taken as good."""
SURE, UNSURE = 6.0, 2.0
"""How surprising refusals have to be to slow down, and where they are expected: feeling the way up.

As the exponent of their odds: e^-6 is 1 in 400."""
UNLIKELY = math.log(1e-5)
"""The exponent of the odds of refusals in a row that are not believed to be weather."""
STEEPEST = (2.0, 8.0)
"""By how much one refusal that names a wait lowers the pace at most: after few calls, and more."""
FEW = 5
"""Calls that are too few to measure anything by."""
RARE = 300
"""Calls without a refusal after which the limit may well have changed."""
SLOW_GROWTH = 1.04
"""How the pace grows where a service counts over many seconds: what it takes now says little."""
SLOWEST = 0.1
"""Calls a second below which refusals do not bring the pace."""
SHORTEST_WAIT = 0.5
"""Seconds of a Retry-After below which it says nothing of the time that the service counts by."""
LONG_HOLD = 3.0
"""Seconds of a hold after which the service does not count by the second."""
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
        self.weather = Weather()
        self.live = 0
        self._ramp, self._lag = ramp, lag
        self._began: float | None = None
        self._calls = Calls()
        self._start = Start(math.isinf(most), ramp)
        self._stretch = Stretch(SPAN)
        self._ceiling = Ceiling()
        self._before = 0.0
        self._gaps = Gaps()
        self._hold = Hold()
        self._cycle = Cycle()
        self._room = Room()

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
        if place is None or sent < self._stretch.since:
            return

        after = after if after and after >= SHORTEST_WAIT else None
        if self._hold.seconds:
            if self._hold.lengthen(sent, now, after):
                self._hold_calls(now)
        elif self._in_a_row(place, now, named=bool(after)):
            self._begin_hold(now, after)
        elif after:
            self._meet_named(place, sent, now, after)
        elif now >= self._stretch.look:
            self._judge(now)

    def heed(self, limits: Limits, now: float) -> None:
        """Slow down to what the headers of a reply promise, where little is left to be used."""
        for window in limits.requests:
            if window.scarce and window.refill < self.pace:
                self.pace = max(SLOWEST, window.refill)
                self._ceiling.meet(self.pace, now, below=False)
                self._start.on = False

    # -- limits that name a wait -------------------------------------------------------------

    def _meet_named(self, place: int, sent: float, now: float, after: float) -> None:
        """Slow down to what is let through where a refusal names a wait, unless it is weather."""
        cycle, ceiling = self._cycle, self._ceiling
        through = cycle.through - self._calls.not_refused(place)
        if through <= 0:
            self._begin_cycle(self.held)
            return

        known = sent - 0.6 * (now - sent)  # of later ones the refusals may be on their way
        counted = max(self._calls.accepted(known, span) for span in (after, 3 * after))
        spread = ceiling.spread(self.weather.share)
        alarm = self._below and through < RARE and counted < ceiling.height - 2 * spread
        regular = self._gaps.note(through + 1, alarm=alarm, met=math.isfinite(ceiling.height))
        self._stretch.lengthen(min(LONGEST_SPAN, after / 6))
        if self._gaps.surprise() < SURE / 2 and not regular:
            self._go_back(now)
        else:
            below = alarm or regular or math.isinf(ceiling.height)
            rate = through / (sent - cycle.began + max(after, SPAN))
            if not regular:
                pace = ENOUGH if math.isinf(self.pace) else self.pace
                rate = max(rate, pace / STEEPEST[through >= FEW])
                # Below a ceiling it is not the last seconds alone that count.
                rate = max(rate, min(counted, 0.7 * pace) if alarm else counted)
            ceiling.named = True
            self._meet(now, rate, below=below)
            if below:  # an estimate on the safe side
                self._ceiling.go_up_soon(now)
        self._begin_cycle(self.held, through)

    def _begin_cycle(self, moment: float, through: int = 0) -> None:
        self._cycle.begin(moment, through)
        self._judge_anew(moment)

    # -- refusals one after the other --------------------------------------------------------

    def _in_a_row(self, place: int, now: float, *, named: bool) -> bool:
        """Return whether so many calls up to this one were refused that weather cannot be it."""
        cycle = self._cycle
        if named:
            if cycle.through > self._calls.not_refused(place):
                return False
            row, share = cycle.empty + 1, max(0.3, self._gaps.share)
        else:
            row = self._calls.refused_in_a_row(place, max(cycle.began, now - LONGEST_SPAN))
            before = max(0, cycle.gap - row)
            share = max(0.02, self.weather.share, (before - cycle.through + 1) / (before + 2))
        return row * math.log(min(share, 0.9)) <= UNLIKELY

    def _begin_hold(self, now: float, after: float | None) -> None:
        if after:
            self._cycle.take_up()
        if after or not self._is_crowded(now):
            self._hold.begin(now, self.pace, after)
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
        through = cycle.through - 2
        outage = hold.seconds > LONG_HOLD and call.sent - hold.ended > OUTAGES
        if outage and through > 0 and math.isinf(self.pace):
            self._start.on = False
            self.pace = max(ENOUGH, self._calls.accepted(hold.began, LONGEST_SPAN))
        counts = through > 0 and not outage
        if counts and hold.seconds > LONG_HOLD:
            self._stretch.lengthen(min(LONGEST_SPAN, hold.seconds / 2))
        hold.seconds, hold.ended = 0.0, call.sent
        if counts:
            self._meet(call.sent, through / max(SPAN, end - cycle.began), below=self._below)
            if self._stretch.span == SPAN:
                self._ceiling.go_up_soon(call.sent)
        self._begin_cycle(call.sent, 1)

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

        below = self._below
        surprise = self.weather.surprise(calls, refused, doubtful=not below)
        expected = not below and math.isfinite(self._ceiling.height)
        if surprise > (UNSURE if expected else SURE):
            self._try_slower(now, known, calls, refused)
        elif surprise < 1 or calls >= PLENTY:
            if below or (self.weather.share and self.pace >= self.most):
                self.weather.note(calls, refused)
            self._stretch.let_through = self._calls.passing(self._stretch.since, known)
            self._go_up(now, calls / span)

    # -- going down --------------------------------------------------------------------------

    def _try_slower(self, now: float, known: float, calls: int, refused: int) -> None:
        """Slow down to what was let through, unless the refusals are weather, or are over."""
        if refused == calls:  # which tells of no pace
            self._begin_hold(now, None)
            return
        if self._calls.lifted(self._stretch.since, known) or self._is_crowded(now):
            self._judge_anew(now)
            return
        below, through = self._below, self._calls.passing(self._stretch.since, known)
        if below:
            # At first it may be a limit that fell meanwhile.
            again = self.weather.alarms >= 1
            self.weather.note(calls * again, refused * again, alarm=True)
            if self.weather.surprise(calls, refused) < SURE:
                self._go_back(now)
                return
        elif self._stretch.span == SPAN:
            through = max(through, self._stretch.let_through)
        else:
            through = max(through, 0.9 * self.pace)
        self._ceiling.named = False
        self._meet(now, through, below=below)

    def _meet(self, now: float, through: float, *, below: bool) -> None:
        """Slow down to what was let through; `below` the ceiling that was known it is another."""
        self._start.on = False
        if below or math.isinf(self._ceiling.height):
            self._before = self._before or min(self.pace, max(ENOUGH, 2 * through))
        self._ceiling.meet(max(SLOWEST, through), now, below=below)
        self._stretch.let_through = 0.0
        self.pace = min(self.most, self._ceiling.calm(self.weather.share))
        self._judge_anew(now)

    def _go_back(self, now: float) -> None:
        """Go back to the pace before the slowing down that cured nothing."""
        if self._before:
            self.pace, self._before = min(self.most, self._before), 0.0
            self._ceiling = Ceiling()
        self._judge_anew(now)

    @property
    def _below(self) -> bool:
        """Return whether the pace keeps below a ceiling."""
        return self.pace <= 0.99 * self._ceiling.top(self.weather.share) < math.inf

    # -- going up ----------------------------------------------------------------------------

    def _go_up(self, now: float, used: float) -> None:
        """Let the pace grow, unless it is not what holds the run back."""
        self._stretch.since = now - self._calls.delay
        if self.pace >= self.most or used < 0.7 * self.pace:
            return
        ceiling, share = self._ceiling, self.weather.share
        calm = ceiling.calm(share)
        near = 0.9 * calm <= self.pace
        if self.pace > 1.5 * ceiling.top(share):
            self._stretch.span = SPAN
        if near and ceiling.is_believed(now, self._stretch.span):
            self.pace = min(self.most, max(self.pace, calm))
        else:
            most = GROWTH if self._stretch.span == SPAN else SLOW_GROWTH
            self.pace = min(self.most, self.pace * (min(most, ceiling.step) if near else most))
            ceiling.step = 2 * ceiling.step - 1
        self._judge_anew(now)

    def _is_crowded(self, now: float) -> bool:
        """Return whether there are too many calls in flight, and make less room if so."""
        recent = self._calls.after(now - LONGEST_SPAN)
        if not self._room.shrink(recent, now - self._calls.delay, now):
            return False
        self._start.on = False
        self._judge_anew(now)
        return True
