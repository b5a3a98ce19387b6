"""When to try again, and the one loop that does; it sleeps by what it is given."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from gpt4batch.dialects import limits
from gpt4batch.dialects.waits import seconds_of
from gpt4batch.errors import CallError, RetryableError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

T = TypeVar("T")

BASE = 1.0
LONGEST = 60.0
LONGEST_AFTER = 300.0
"""A Retry-After of more seconds than this fails the line instead of holding it."""
EARLIEST, EARLIEST_MS = 1e9, 1e11
"""A Retry-After from the first number on is a moment in seconds since 1970, from the second on one
in milliseconds."""


def backoff(attempt: int, rand: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after a failed attempt, counted from 1.

    Exponential back-off with full jitter: a random share of `min(60, 2 ** (attempt - 1))`.
    """
    longest: float = min(LONGEST, BASE * 2.0 ** min(attempt - 1, 30))
    return rand() * longest


async def retrying(
    call: Callable[[int], Awaitable[T]],
    retries: int,
    pause: Callable[[RetryableError, float], Awaitable[None]],
) -> T:
    """Call, and call again while that may help.

    Args:
        call: Makes one attempt; it is given its number, from 1.
        retries: Attempts after the first.
        pause: Waits before the next attempt, given the error and the seconds.

    Raises:
        CallError: The last attempt failed; the error knows how many there were.
    """
    attempt = 1
    while True:
        try:
            return await call(attempt)
        except RetryableError as error:
            error.attempts = attempt
            delay = delay_after(error, attempt)
            if attempt > retries:
                raise
            await pause(error, delay)
        except CallError as error:
            error.attempts = error.attempts or attempt
            raise
        attempt += 1


def delay_after(
    error: RetryableError, attempt: int, rand: Callable[[], float] = random.random
) -> float:
    """Return the seconds to wait after a failed attempt: what is asked for, or the back-off.

    The longer of the two: a service that asks for no wait at all is not called in a rush.

    Raises:
        RetryableError: The service asks for a longer wait than a line is held for.
    """
    asked = error.after or 0.0
    if asked > LONGEST_AFTER:
        text = tr(
            "{error}; asked to wait {asked:.0f} s, more than {most:.0f} s",
            error=error,
            asked=asked,
            most=LONGEST_AFTER,
        )
        given_up = type(error)(text, code=error.code, stage=error.stage, after=error.after)
        given_up.attempts = error.attempts
        raise given_up from error
    return max(asked, backoff(attempt, rand))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a reply asks to wait, or None.

    Both forms of RFC 9110 section 10.2.3 are read, seconds and a date, and `retry-after-ms`. A
    number that can only be a time stamp is read as a moment. A moment counts from the reply's own
    date, so that it does not matter how the clocks of the two sides differ.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        stamp = milliseconds / 1000 if milliseconds >= EARLIEST_MS else None
        return milliseconds / 1000 if stamp is None else _until(stamp, headers, now)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None:
        if (moment := _date(value)) is not None:
            return _left(moment, headers, now)
        # In a form that no standard knows: `2s`, `1m30s`, ISO 8601, or several.
        now = _date(headers.get("date", "")) or now or datetime.now(UTC)
        waits = [seconds_of(part) or limits.seconds(part, now) for part in value.split(",")]
        return max((wait for wait in waits if wait is not None), default=None)
    if seconds < EARLIEST:
        return seconds
    return _until(seconds if seconds < EARLIEST_MS else seconds / 1000, headers, now)


def _until(stamp: float, headers: Mapping[str, str], now: datetime | None) -> float:
    """Return the seconds until a moment that is given in seconds since 1970."""
    try:
        return _left(datetime.fromtimestamp(stamp, UTC), headers, now)
    except (OverflowError, ValueError, OSError):
        return stamp


def _left(moment: datetime, headers: Mapping[str, str], now: datetime | None) -> float:
    now = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return max(0.0, (moment - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
