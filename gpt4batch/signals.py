"""The signals that end a run: Ctrl-C, SIGTERM and a terminal that is closed."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ENDING = tr("%s: no new lines; those under way have %g s (again to stop at once)")
"""What a signal does where it costs nothing."""


def name_of(number: int) -> str:
    """Return a signal as people know it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def obeyed() -> tuple[signal.Signals, ...]:
    """Return the signals that end a run; a SIGHUP that `nohup` ignores stays ignored."""
    hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hung_up else []))


@contextmanager
def listening(obey: Callable[[int], None]) -> Iterator[None]:
    """Tell the running loop of each signal that ends a run.

    Not by the loop's own means: between those and what was there before, a signal would kill.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    def take(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(obey, number, context=context)

    before = {number: signal.signal(number, take) for number in obeyed()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
