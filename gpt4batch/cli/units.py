"""Times, sizes and rates as people read them."""

from __future__ import annotations

from gpt4batch.words import say, spoken, tr

UNITS = (
    (86400, 3600, tr("{whole} d"), tr("{whole} d {rest} h")),
    (3600, 60, tr("{whole} h"), tr("{whole} h {rest} min")),
    (60, 1, tr("{whole} min"), tr("{whole} min {rest} s")),
)


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 0.9995:
        return say("{number:.0f} ms", number=seconds * 1000)
    if seconds < 9.95 and seconds != round(seconds):
        return say("{number:.1f} s", number=seconds)
    left = round(seconds)
    for size, part, alone, both in UNITS:
        if left >= size:
            whole, rest = divmod(left, size)
            form = both if rest // part else alone
            return spoken(form.filled(whole=whole, rest=rest // part))
    return say("{number} s", number=left)


def rough(seconds: float) -> str:
    """Return a time that is only estimated, to the second, or to the minute where it is long."""
    step = 1 if seconds < 120 else 60
    return duration(max(1, step * round(seconds / step)))


def size(count: float) -> str:
    """Return a number of bytes in its largest unit."""
    value, units = float(count), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def rate(value: float) -> str:
    """Return calls a second, or a minute or an hour where they are few."""
    if value >= 0.95 or value == 0:
        return say("{number:,.1f} calls/s", number=value)
    if value * 60 >= 0.95:
        return say("{number:.1f} calls/min", number=value * 60)
    return say("{number:.1f} calls/h", number=value * 3600)


def per_second(value: float) -> str:
    """Return a rate of calls with no more digits than it needs."""
    return say("{number} calls/s", number=f"{value:.3g}" if value < 1000 else f"{value:,.0f}")
