"""The waits that replies ask for in their words or in fields of their bodies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = {
    "ms": 0.001,
    "milliseconds": 0.001,
    "millisecond": 0.001,
    "毫秒": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "秒": 1.0,
    "秒钟": 1.0,
    "m": 60.0,
    "min": 60.0,
    "mins": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "分": 60.0,
    "分钟": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "小时": 3600.0,
}
AMOUNT = rf"\d+(?:\.\d+)?\s*(?:{'|'.join(sorted(UNITS, key=len, reverse=True))})(?![a-z])"
JOINED = r"\d+(?:\.\d+)?(?:h|ms|m|s)"
"""A part of a duration as Go writes it: `6m0s`, `1h2m3.5s`."""
DURATION = rf"(?:{JOINED}(?:{JOINED})+|{AMOUNT}(?:(?:,|\s|and)*{AMOUNT})*)"
IN_WORDS = (
    rf"(?:try(?:ing)?(?: your request)?(?: again)?|retry(?:ing)?|wait|available|resets?)\b"
    rf"[^.\d]{{0,24}}?({DURATION})"
    rf"|({DURATION})(?:钟)?(?:之?后|以后)?\s*(?:再|重试|后)|(?:等待|稍等)\s*({DURATION})"
)
PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+|[分秒毫小][钟秒时]?)", re.IGNORECASE)
FIELDS = {"retrydelay": 1.0, "retry_after": 1.0, "retryafter": 1.0, "retry_after_seconds": 1.0}
FIELDS |= {"retry_after_ms": 0.001, "retryafterms": 0.001}
DEEPEST = 10


def seconds_of(text: str) -> float | None:
    """Return the seconds of a duration such as `27s`, `6m0s` or `2 minutes`."""
    parts = PART.findall(text)
    if not parts or any(unit.lower() not in UNITS for _, unit in parts):
        return None
    return sum(float(number) * UNITS[unit.lower()] for number, unit in parts)


def told_in_words(text: str) -> tuple[float, str] | None:
    """Return the wait that a text asks for in seconds, and the words that ask for it."""
    found = re.search(IN_WORDS, text, re.IGNORECASE)
    if found is None:
        return None
    seconds = seconds_of(next(group for group in found.groups() if group))
    return None if seconds is None else (seconds, found.group())


def told_in_fields(doc: Any) -> float | None:
    """Return the longest wait that fields of an error ask for, in seconds."""
    return max(_waits(doc, DEEPEST), default=None)


def _waits(doc: Any, depth: int) -> Iterator[float]:
    if isinstance(doc, list) and depth > 0:
        for item in doc[:20]:
            yield from _waits(item, depth - 1)
    if not isinstance(doc, dict) or depth <= 0:
        return
    for name, value in doc.items():
        unit = FIELDS.get(name.lower())
        if unit is None:
            yield from _waits(value, depth - 1)
        elif (seconds := _seconds(value, unit)) is not None:
            yield seconds


def _seconds(value: Any, unit: float) -> float | None:
    if isinstance(value, str):
        found = seconds_of(value)
        if found is not None:
            return found
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        return None
    return float(value * unit)
