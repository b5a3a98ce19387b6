"""What the calls of a run may take: tokens a minute, tokens and money in all.

What a call takes is known when it is over. Before it, as much is reserved as calls of this run
took; after it, the reservation is settled. Nothing here counts tokens itself.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import BudgetError
from gpt4batch.price import Price
from gpt4batch.usage import NO_USAGE, Usage
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gpt4batch.control import Control

log = logging.getLogger(__name__)

MINUTE = 60.0
CREDIT = 1.0
"""Seconds of the rate that calls which took less than expected give back at most."""
MARGIN = 0.99
"""The share of a minute's tokens that is used."""
SPEED = 1.05
"""How much faster than evenly calls may leave, where the last minute has room for them."""
DOUBT = 3.5
"""Standard deviations by which what is in flight may take more than was expected."""
LATEST = 0.05
"""The weight of the newest call in what is known of such errors."""
UNKNOWN = 1 / 60
"""The share of a minute's tokens that a call is taken for while nothing is known."""
BYTES_A_TOKEN = 3.0
ASSUMED_OUTPUT = 1000

UNTOLD = tr(
    "{flag} cannot be kept: the service does not say how many tokens its answers "
    "take. Leave it out and use --max-calls, or ask the service for usage; run "
    "again with -f to go on"
)
ESTIMATED = tr(
    "the service does not say how many tokens its answers take: --tpm is kept by an estimate"
)
USED_UP = tr("{flag}: {used} of it are used; run again with -f to go on")


@dataclass(slots=True)
class Taken:
    """A call that counts within the minute after it leaves, with what it takes or is to take."""

    moment: float
    tokens: float


class TokenPace:
    """When calls may leave so that no minute has more than so many tokens; pure.

    A call leaves when those of the last minute leave room for it. What calls in flight take is only
    expected: the more are out, and the more such guesses were wrong, the more room is kept for
    them. Calls leave little faster than evenly, so that a minute is not used up at its beginning.

    Args:
        most: Tokens a minute.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._due = float("-inf")
        self._minute: deque[Taken] = deque()
        self._within = 0.0
        self._open = 0
        self._error = 0.0
        """The mean square of the tokens by which guesses were wrong."""

    def wait(self, now: float, tokens: float) -> float:
        """Return the seconds until a call may leave, as far as is known now; 0 if it may."""
        while self._minute and self._minute[0].moment <= now - MINUTE:
            self._within -= self._minute.popleft().tokens
        self._due = min(self._due, now + MINUTE)  # whatever a call took, its minute passes
        doubt = DOUBT * math.sqrt(self._error * (self._open + 1))
        over = self._within + tokens + doubt - self._most * MARGIN
        at = self._due
        for taken in self._minute:
            if over <= 0:
                break
            over -= taken.tokens
            at = max(at, taken.moment + MINUTE)
        return max(0.0, at - now)

    def take(self, now: float, tokens: float) -> Taken:
        """Reserve tokens for a call that leaves now."""
        self._due = max(self._due, now - CREDIT) + self._seconds(tokens)
        taken = Taken(now, tokens)
        self._minute.append(taken)
        self._within += tokens
        self._open += 1
        return taken

    def settle(self, taken: Taken, tokens: float) -> None:
        """Replace what was reserved for a call by what it took."""
        wrong = tokens - taken.tokens
        if self._minute and taken.moment >= self._minute[0].moment:
            self._within += wrong
        self._due += self._seconds(wrong)
        self._open -= 1
        self._error += LATEST * (wrong * wrong - self._error)
        taken.tokens = tokens

    def _seconds(self, tokens: float) -> float:
        return tokens * MINUTE / (self._most * SPEED)


@dataclass(slots=True)
class Held:
    """What is reserved for a chat, and what came of it.

    Args:
        size: Bytes of its request.
        taken: What the pace has reserved.
        worst: The tokens that the budget has reserved.
        answered: Whether an answer came.
        usage: What it took, where the answer tells.
        lost: Calls whose reply never came: they may be paid for.
    """

    size: int
    taken: Taken | None = None
    worst: Usage = NO_USAGE
    answered: bool = False
    usage: Usage | None = None
    lost: int = 0


class Learned:
    """What calls of this run took: tokens a byte that is sent, tokens of an answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.usage = NO_USAGE
        self._bytes = 0
        self._largest = 0

    def add(self, size: int, usage: Usage) -> None:
        """Learn from a call."""
        self.calls += 1
        self.usage = self.usage.plus(usage)
        self._bytes += size
        self._largest = max(self._largest, usage.output)

    def expected(self, size: int, guess: float) -> float:
        """Return the tokens that a call is expected to take.

        Before the first that is a guess; what a few calls took says little more.
        """
        known = self._input(size) + self.usage.output / max(self.calls, 1)
        return known + max(0.0, guess - known) / (1 + self.calls)

    def worst(self, size: int) -> Usage:
        """Return the most tokens that a call is taken to need."""
        return Usage(round(self._input(size)), 0, self._largest or ASSUMED_OUTPUT)

    def _input(self, size: int) -> float:
        return size * self.usage.input / self._bytes if self._bytes else size / BYTES_A_TOKEN


class Allowance:
    """Reserves and settles what chats take.

    Args:
        control: Ends the waiting when the run is halted.
        per_minute: Tokens a minute; 0 is no limit.
        most_tokens: Tokens in all; 0 is no limit.
        most_cost: Money in all; 0 is no limit.
        price: What tokens cost.
        clock: Tells the time.
    """

    def __init__(
        self,
        control: Control,
        *,
        per_minute: int = 0,
        most_tokens: int = 0,
        most_cost: float = 0.0,
        price: Price | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._control = control
        self._clock = clock
        self._pace = TokenPace(per_minute) if per_minute else None
        self._per_minute = per_minute
        self._most_tokens = most_tokens
        self._most_cost = most_cost
        self._price = price or Price(0.0, 0.0, 0.0)
        self._learned = Learned()
        self._lost = NO_USAGE
        self._untold = ""
        self._warned = False
        self._out: list[Usage] = []
        self._settled = anyio.Event()
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def call(self, size: int) -> AsyncIterator[Held]:
        """Hold a reservation for a chat; whoever makes it says what came of it.

        Raises:
            BudgetError: Nothing is left.
            Stopped: The run was halted meanwhile.
        """
        while not self._fits(size):
            with self._control.waiting():
                await self._settled.wait()
        held = self._reserved(size)
        try:
            if self._pace is not None:
                async with self._turn:
                    while (wait := self._wait(size)) > 0:
                        with self._control.waiting(), anyio.move_on_after(wait):
                            await self._settled.wait()
                    self._take_turn(held)
            yield held
        finally:
            self.settle(held)

    def allows(self, size: int) -> bool:
        """Tell whether a chat may leave now, for whoever waits elsewhere.

        Raises:
            BudgetError: Nothing is left.
        """
        return self._fits(size) and self._wait(size) <= 0

    def take(self, size: int) -> Held:
        """Reserve for a chat that leaves now; `settle` has to follow."""
        held = self._reserved(size)
        self._take_turn(held)
        return held

    def _wait(self, size: int) -> float:
        """Return the seconds until the minute has room for a chat, as far as is known now."""
        if self._pace is None:
            return 0.0
        return self._pace.wait(self._clock.monotonic(), self._expected(size))

    def _take_turn(self, held: Held) -> None:
        if self._pace is not None:
            held.taken = self._pace.take(self._clock.monotonic(), self._expected(held.size))

    def _reserved(self, size: int) -> Held:
        held = Held(size)
        if self._most_tokens or self._most_cost:
            held.worst = self._learned.worst(size)
            self._out.append(held.worst)
        return held

    def _expected(self, size: int) -> float:
        return self._learned.expected(size, self._per_minute * UNKNOWN)

    def _fits(self, size: int) -> bool:
        """Return whether a call may leave; a last one may take more than is left.

        What calls take is not known before the first is answered, so that one goes alone.

        Raises:
            BudgetError: Nothing is left.
        """
        if not (self._most_tokens or self._most_cost):
            return True
        if self._untold:  # its own answer is kept
            raise BudgetError(UNTOLD.filled(flag=self._untold))
        if self._out and not self._learned.calls:
            return False
        worst = self._learned.worst(size)
        used, out = self._learned.usage.plus(self._lost), NO_USAGE
        for usage in self._out:
            out = out.plus(usage)
        fits = True
        for flag, most, cost in (
            ("--max-tokens", self._most_tokens, lambda usage: usage.total),
            ("--max-cost", self._most_cost, self._price.of),
        ):
            if not most:
                continue
            if cost(used) >= most:
                raise BudgetError(USED_UP.filled(flag=f"{flag} {most:g}", used=f"{cost(used):g}"))
            fits = fits and (not self._out or cost(used.plus(out).plus(worst)) <= most)
        return fits

    def settle(self, held: Held) -> None:
        """Replace what was reserved for a chat by what it took."""
        if held.worst in self._out:
            self._out.remove(held.worst)
        for _ in range(held.lost):  # nobody will say what these took
            self._lost = self._lost.plus(held.worst)
        if self._pace is not None and held.taken is not None:
            reserved = held.taken.tokens
            took = held.usage.total if held.usage is not None else reserved * held.answered
            self._pace.settle(held.taken, took + held.lost * reserved)
        if held.usage is not None:
            self._learned.add(held.size, held.usage)
        elif held.answered and (self._most_tokens or self._most_cost):  # nobody says what it took
            self._untold = "--max-tokens" if self._most_tokens else "--max-cost"
        elif held.answered and not self._warned:
            self._warned = True
            log.warning(ESTIMATED)
        self._settled.set()
        self._settled = anyio.Event()
