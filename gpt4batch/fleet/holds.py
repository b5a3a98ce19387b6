"""A line that a worker holds, and the permits by which its calls leave."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from gpt4batch.fleet.messages import (
    CROWDED,
    LIMITED,
    OK,
    RESTS,
    SENT,
    Permit,
    Word,
)

if TYPE_CHECKING:
    from gpt4batch.clock import Clock
    from gpt4batch.dialects.limits import Limits
    from gpt4batch.errors import CallError
    from gpt4batch.fleet.desk import Desk
    from gpt4batch.service.pacing import Pacer

TOLERANCE = 0.02
"""Seconds after its moment up to which a call may leave: so q x 1.02 + 1 is kept."""
LATE = 0.5
"""The same where there is no pace to keep."""
DRIFT = 0.02
"""Seconds by which the soonest way is taken for longer each second: ways change."""
LONGEST = 3.0
"""Seconds from news of ours to a permit up to which it holds."""


@dataclass(slots=True)
class Hold:
    """A line that is held here, and what it is at."""

    line: int
    key: str
    run: str
    step: int = 0
    acked: int = 0
    call: int = 0
    state: str = RESTS
    how: str = ""
    after: float = -1.0
    begun: bool = False
    answers: int = 0
    chat: bool = False
    dropped: bool = False
    body: bytes = b""
    sent: float = 0.0
    leaves: float | None = 0.0
    permit: anyio.Event = field(default_factory=anyio.Event)

    def word(self) -> Word:
        """Return what the coordinator is told of it."""
        return Word(
            self.run,
            self.key,
            self.step,
            self.acked,
            self.call,
            self.state,
            self.how,
            self.after,
            self.begun,
            self.answers,
        )


HOLD: ContextVar[Hold] = ContextVar("HOLD")
"""The line that a call is made for."""


class Permits:
    """The pace of one batch at this worker: a permit a call, and this worker's own limit."""

    def __init__(self, desk: Desk, own: Pacer | None, clock: Clock) -> None:
        self._clock = clock
        self._desk = desk
        self._own = own
        self.named: list[list[list[float]]] = []
        """The limits that the service named last."""
        self.chats = self.retries = 0
        self.errors: Counter[str] = Counter()

    async def wait(self, *, new: bool = False) -> float:
        """Wait for the turn of one call, `new` if a line's first; return when it may leave."""
        with self._desk.control.waiting(new=new):
            if self._own is not None:
                await self._own.wait(new=new)
            await self._desk.ask(HOLD.get())
        return self._clock.monotonic()

    def slow_down(self, _sent: float, after: float | None) -> None:
        """Take note of a 429; the coordinator slows all workers down."""
        HOLD.get().how, HOLD.get().after = LIMITED, -1.0 if after is None else after

    def crowded(self, _sent: float) -> None:
        """Take note of a refusal that may come of too many calls at a time."""
        HOLD.get().how = CROWDED

    def speed_up(self) -> None:
        """Take note of a success."""
        HOLD.get().how = OK if HOLD.get().chat else SENT

    def unused(self, _at: float) -> None:
        """Take note that a call did not leave; the next one that asks for its line says so."""
        if self._own is not None:
            self._own.done()

    def done(self) -> None:
        """Take note that a call that left has come to its end."""
        if self._own is not None:
            self._own.done()
        self._desk.call_ended(HOLD.get())

    def spend(self) -> None:
        """Note that the call about to leave is a chat."""
        HOLD.get().chat = True

    def note_retry(self, error: CallError, _delay: float) -> None:
        """Count a failed attempt that is tried again."""
        self.retries += 1
        self.errors[str(error.code)] += 1

    def limits(self, limits: Limits) -> None:
        """Take note of the limits that the headers of a reply name."""
        kinds = (limits.requests, limits.tokens)
        self.named = [[[w.limit, w.remaining, w.reset] for w in kind] for kind in kinds]


class Way:
    """How long permits take, against the soonest of late; the clocks need not agree."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._soonest, self._at = float("inf"), 0.0

    def leaves(self, permit: Permit) -> float | None:
        """Return when the call of a permit leaves, 0 where no pace is kept, or None: too late."""
        now = self._clock.monotonic()
        took = now - permit.now  # and what the clocks differ by
        self._soonest = min(took, self._soonest + DRIFT * (now - self._at))
        self._at = now
        late, age = took - self._soonest, now - permit.said - permit.since
        if age > LONGEST or late > (permit.buffer + TOLERANCE if permit.buffer else LATE):
            return None
        return now + max(0.0, permit.buffer - late) if permit.buffer else 0.0
