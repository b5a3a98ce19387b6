"""Times, sizes, rates and counts as people read them."""

from __future__ import annotations

from gpt4batch.cli.flags import say

UNITS = (
    ("d", "天", 86400, "h", "小时", 3600),
    ("h", "小时", 3600, "min", "分钟", 60),
    ("min", "分钟", 60, "s", "秒", 1),
)


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}" + say(" ms", "毫秒")
    if seconds < 9.95 and seconds != round(seconds):
        return f"{seconds:.1f}" + say(" s", "秒")
    whole = round(seconds)
    for unit, unit_zh, size, lesser, lesser_zh, part in UNITS:
        if whole >= size:
            rest = whole % size // part
            more = say(f" {rest} {lesser}", f"{rest}{lesser_zh}") if rest else ""
            return say(f"{whole // size} {unit}", f"{whole // size}{unit_zh}") + more
    return f"{whole}" + say(" s", "秒")


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
        return f"{value:,.1f}" + say(" calls/s", "次/秒")
    if value * 60 >= 0.95:
        return f"{value * 60:.1f}" + say(" calls/min", "次/分")
    return f"{value * 3600:.1f}" + say(" calls/h", "次/小时")


def per_second(value: float) -> str:
    """Return a rate of calls with no more digits than it needs."""
    return f"{value:.3g}" + say(" calls/s", "次/秒") if value < 1000 else f"{value:,.0f} calls/s"


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"
