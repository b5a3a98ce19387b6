"""When to try again: pure arithmetic, no clock and no sleep of its own."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BASE = 1.0
LONGEST = 60.0
LONGEST_AFTER = 300.0
"""A Retry-After of more seconds than this fails the line instead of holding it."""


def backoff(attempt: int, rand: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after a failed attempt, counted from 1.

    Exponential back-off with full jitter: a random share of `min(60, 2 ** (attempt - 1))`.
    """
    longest: float = min(LONGEST, BASE * 2.0 ** min(attempt - 1, 30))
    return rand() * longest


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that a reply asks to wait, or None.

    Both forms of RFC 9110 section 10.2.3 are read, seconds and a date, and `retry-after-ms`.
    """
    if milliseconds := _number(headers.get("retry-after-ms")):
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
