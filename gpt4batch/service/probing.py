"""Probing: find out by one call at a time whether an account is empty or a limit passes."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import QuotaError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gpt4batch.control import Control
    from gpt4batch.errors import UnclearQuota

log = logging.getLogger(__name__)

FIRST = 5.0
"""Seconds from the refusal to the first probe; each later one waits twice as long."""
LONGEST = 60.0

BEGUN = tr(
    "the service refuses calls without saying whether the account is empty or a "
    "temporary limit was reached: %s. All calls are held; one is tried in %.0f s "
    "and then at longer intervals. The run goes on when one succeeds, and stops "
    "if none does within %.0f s (--patience)"
)
GIVEN_UP = tr(
    "no call was let through for {waited:.0f} s (--patience), so either the "
    "account is empty or its limit lasts for hours ({words}); check the balance, "
    "then run again with -f"
)


class Probing:
    """Let calls through: all of them, or one at a time while the account's state is unclear.

    It begins with a refusal, for all lines at once, and ends with the first probe that succeeds.

    Args:
        control: Ends the waiting when the run is stopped.
        patience: Seconds without a success after which the run stops.
        clock: Tells the time.
    """

    def __init__(self, control: Control, patience: float = 900.0, *, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._control = control
        self._patience = patience
        self._turn = anyio.Lock()
        self._since: float | None = None
        self._stage = ""
        self._delay = FIRST
        self._next = 0.0
        self._ended: QuotaError | None = None
        self._opened_by = 0.0
        self.words = ""

    @property
    def on(self) -> bool:
        """Return whether calls are held."""
        return self._since is not None

    @property
    def next_in(self) -> float:
        """Return the seconds until the next probe leaves; 0 while one is under way."""
        return max(0.0, self._next - self._clock.monotonic())

    @property
    def left(self) -> float:
        """Return the seconds after which the run stops unless a call succeeds."""
        began = self._clock.monotonic() if self._since is None else self._since
        return max(0.0, began + self._patience - self._clock.monotonic())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Hold a call until it may leave, and return whether it is a probe.

        Raises:
            QuotaError: No call succeeded within the patience.
            Stopped: The run is being stopped.
        """
        if not self.on or not await self._wait():
            yield False
            return
        try:
            yield True
        finally:
            if self.on:  # this one did not succeed
                now = self._clock.monotonic()
                self._delay = min(LONGEST, self._delay * 2)
                self._schedule(now, max(0.0, self._next - now))
            self._turn.release()

    async def _wait(self) -> bool:
        """Wait for the turn of a probe; False where calls are held no longer."""
        held = False
        try:
            with self._control.waiting(new=True):
                await self._turn.acquire()
                held = True
                if self.on and self._ended is None:
                    await anyio.sleep(self.next_in)
        except BaseException:
            if held:
                self._turn.release()
            raise
        if self.on and self._ended is None:
            return True
        self._turn.release()
        if self._ended is not None:
            raise self._ended
        return False

    def refused(self, error: UnclearQuota, sent: float) -> None:
        """Begin, unless it has begun already or the call left before one that succeeded."""
        if sent < self._opened_by:
            return
        self.words = str(error)
        now = self._clock.monotonic()
        if not self.on:
            self._since, self._stage, self._delay = now, error.stage, FIRST
            if self._patience:
                log.warning(BEGUN, error, min(FIRST, self._patience), self._patience)
            self._schedule(now, error.after or 0.0)
        elif error.after:
            self._schedule(now, error.after)

    def succeeded(self, stage: str, sent: float) -> None:
        """End it: a probe went through. An upload costs nothing and proves little."""
        if self.on and stage in ("chat", self._stage):
            log.info("the service lets calls through again")
            self._since, self._opened_by = None, sent

    def _schedule(self, now: float, after: float) -> None:
        assert self._since is not None
        end = self._since + self._patience
        if now >= end:
            text = GIVEN_UP.filled(waited=now - self._since, words=self.words)
            self._ended = self._ended or QuotaError(text)
        self._next = min(now + max(self._delay, after), end)
