"""What a service says of its limits in the headers of its replies; pure.

Headers count requests or tokens: the limit, what remains of it, and the time until all of it is
there again, which is not a time to wait. Each is written differently from service to service.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = (
    "x-ratelimit-{part}-{kind}",
    "anthropic-ratelimit-{kind}-{part}",
    "x-rate-limit-{part}-{kind}",
)
"""How headers are named that say what they count."""
PLAIN = ("x-ratelimit-{part}", "ratelimit-{part}")
"""How headers are named that count requests."""
KINDS = ("requests", "tokens")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "us": 1e-6, "µs": 1e-6}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|s|m|h|d)")
SCARCE = 0.1
"""The share of a limit below which the rest of it has to be shared out."""
SECONDS, EPOCH_SECONDS = 1e9, 1e11
"""Numbers below are seconds from now; then seconds since 1970; above, milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Window:
    """One limit: so many in all, so many left, and the seconds until all are there again."""

    limit: float
    remaining: float
    reset: float

    @property
    def scarce(self) -> bool:
        """Return whether little is left."""
        return self.remaining <= SCARCE * self.limit

    @property
    def refill(self) -> float:
        """Return how many come back each second."""
        return (self.limit - self.remaining) / self.reset


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a reply names."""

    requests: tuple[Window, ...] = ()
    tokens: tuple[Window, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens)


NOTHING = Limits()


def limits_of(headers: Mapping[str, str], now: datetime) -> Limits:
    """Return the limits that the headers of a reply name; what cannot be read is left out."""
    # Names compare without case, also where the mapping does not; most replies name no limit.
    if not any("limit-" in name.lower() for name in headers):
        return NOTHING
    named = {name.lower(): value for name, value in headers.items() if "limit-" in name.lower()}
    found = {}
    for kind in KINDS:
        names = [name.replace("{kind}", kind) for name in NAMES]
        if kind == "requests":
            names += PLAIN
        windows = [_window(named, name, now) for name in names]
        found[kind] = tuple(window for window in windows if window is not None)
    return Limits(**found)


def _window(headers: Mapping[str, str], name: str, now: datetime) -> Window | None:
    """Return the limit that headers of a name make up, where all of its parts can be read."""
    limit = _count(headers.get(name.format(part="limit")))
    remaining = _count(headers.get(name.format(part="remaining")))
    text = headers.get(name.format(part="reset")) or headers.get(
        name.format(part="reset").replace("ratelimit", "rate-limit")
    )
    reset = seconds(text, now) if text else None
    if not limit or remaining is None or not reset or remaining > limit:
        return None
    return Window(limit, remaining, reset)


def _count(text: str | None) -> float | None:
    """Return a count; -1 stands for one that the service does not know."""
    try:
        value = float(text) if text else -1.0
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def seconds(text: str, now: datetime) -> float | None:
    """Return the seconds from now of a time in any of the forms in use, or None.

    Durations of Go (`6m0s`, `12ms`), seconds, RFC 3339, and seconds or milliseconds since 1970.
    """
    text = text.strip()
    value = _count(text)
    if value is not None:
        if value < SECONDS:
            return value
        since = value if value < EPOCH_SECONDS else value / 1000
        return max(0.0, since - now.timestamp())
    if text and not DURATION.sub("", text):
        return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
