"""Which call leaves now: the one pace and the one budget of a fleet, and what is out."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from gpt4batch.control import Stopped
from gpt4batch.errors import BudgetError
from gpt4batch.fleet.messages import (
    CROWDED,
    CUT,
    LIMITED,
    LOST,
    OK,
    OVERDUE,
    SENT,
    UNUSED,
    Permit,
)
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gpt4batch.clock import Clock
    from gpt4batch.control import Control
    from gpt4batch.fleet.epoch import Book
    from gpt4batch.fleet.intake import Intake
    from gpt4batch.fleet.purse import Purse
    from gpt4batch.fleet.table import Call, Row, Table
    from gpt4batch.fleet.topics import Posts
    from gpt4batch.journal.in_flight import InFlight
    from gpt4batch.service.pacing import Pacer

log = logging.getLogger(__name__)

BUFFER, LONGEST_BUFFER = 0.05, 0.5
"""Seconds for which a permit waits at its worker, less what it was late: so calls leave evenly."""
GROWTH = 1.25
"""What the buffer grows by when a permit came too late even so."""
SPENT = tr("--max-calls {most}: that many chat calls were made; run again with -f to go on")
SHRINKING = 0.005
"""Seconds by which the buffer shrinks in each second: calls come nearer to each other by that."""


class Permits:
    """Grant call after call.

    Args:
        table: Says whose call is next.
        intake: Knows the calls that were made.
        book: Notes each call that is out.
        in_flight: Counts them.
        pacer: Lets calls go.
        control: Is told when the budget is spent.
        most: Calls in all; 0 is no limit.
        paced: Calls have to leave evenly.
        clock: Tells the time.
        posts: The way to the workers.
        purse: Holds calls to tokens and money.
    """

    def __init__(  # noqa: PLR0913 - one argument a collaborator
        self,
        table: Table,
        intake: Intake,
        book: Book,
        in_flight: InFlight,
        pacer: Pacer,
        control: Control,
        *,
        most: int,
        paced: bool,
        clock: Clock,
        posts: Posts,
        purse: Purse,
    ) -> None:
        self._clock = clock
        self._posts = posts
        self._purse = purse
        self.steady = 0.0
        """The clock of the table."""
        self._table = table
        self._intake = intake
        self._book = book
        self._in_flight = in_flight
        self._pacer = pacer
        self._control = control
        self._most = most
        self._buffer = BUFFER if paced else 0.0
        self._before = set(book.out)
        self._left: dict[int, float] = {}
        self._granted = 0.0

    def tell_left(self) -> None:
        """Correct the note of a killed run: calls whose results came in are not lost."""
        left = len(self._before & self._book.out.keys())
        self._in_flight.left = min(self._in_flight.left, left)

    async def serve(self, news: Callable[[], Awaitable[None]]) -> None:
        """Let call after call leave, at the pace and within the budget, until the run is halted.

        Args:
            news: Waits until something has changed, or for a moment.
        """
        with suppress(Stopped):
            while True:
                while self._next() is None:
                    await news()
                at = await self._pacer.wait()
                self.settle()
                if (row := self._next()) is None:
                    self._pacer.unused(at)
                    continue
                self._purse.take(row.index)
                self._left[row.index] = at
                if self._buffer:  # shorter again, so slowly that the pace does not show it
                    shorter = self._buffer - SHRINKING * (at - self._granted)
                    self._buffer = max(BUFFER, shorter)
                self._granted = at
                again = self._table.grant(row, self.steady)
                self._book.call_out(row.index, row.run, row.out, again=again)
                self._in_flight.sent()
                self._say(row)

    def _next(self) -> Row | None:
        """Return the line whose call is to leave next, if there is one and it is paid for."""
        row = self._table.next_ask(self.steady) if self._posts.hears else None
        if row is None:
            return None
        try:
            return row if self._fits(row) else None
        except BudgetError as error:
            self._control.halt(error)
            return None

    def _fits(self, row: Row) -> bool:
        """Tell whether a call may leave by the budgets.

        Raises:
            BudgetError: One of them is spent.
        """
        most, made = self._most, self._intake.chats
        if most and made >= most:
            raise BudgetError(SPENT.filled(most=most))
        return self._purse.allows(row.index) and not (most and made + self._table.out >= most)

    def _say(self, row: Row) -> None:
        member, now = self._table.members[row.worker], self._clock.monotonic()
        permit = Permit(
            batch=self._book.batch,
            worker=row.worker,
            line=row.index,
            run=row.run,
            call=row.out,
            buffer=self._buffer,
            said=member.news.said,
            since=now - member.came,
            now=now,
        )
        self._posts.say(permit, member.news.topic)

    def _not_used(self, call: Call, at: float) -> None:
        """Let another call have the turn of one that did not leave."""
        if call.how == OVERDUE and self._buffer:
            self._buffer = min(LONGEST_BUFFER, GROWTH * self._buffer)
        self._pacer.unused(at)
        self._book.call_over(call.line)
        log.debug("not used: %s, now %.3f s", call.how, self._buffer)

    def settle(self) -> None:
        """Tell the pace, and the note of what is out, of the calls that came to their end."""
        for call in self._table.over:
            sent = self._left.pop(call.line, self._clock.monotonic())
            self._in_flight.settled()
            self._purse.ended(call)
            if call.how in (UNUSED, OVERDUE):
                self._not_used(call, sent)
                continue
            self._pacer.done()
            if call.how == LIMITED:
                self._pacer.slow_down(sent, call.after if call.after >= 0 else None)
            elif call.how == CROWDED:
                self._pacer.crowded(sent)
            elif call.how in (OK, SENT):
                self._pacer.speed_up()
            if call.how == LOST:
                self._intake.lost(call.worker)
            elif call.how not in (CUT, OK):  # an answer is noted until its result is here
                self._book.call_over(call.line)
        self._table.over.clear()
