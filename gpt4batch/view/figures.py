"""The figures of the overview, kept up to date line by line: states, causes, latency, pace."""

from __future__ import annotations

from typing import Any

from gpt4batch.histogram import Histogram
from gpt4batch.price import Price
from gpt4batch.usage import Usage
from gpt4batch.view.record import Call, Cause, Facts, State

MOST_BUCKETS = 2048
MOST_CAUSES = 500
MOST_FINISHES = 255
NO_CAUSE = 0
NO_USAGE = Usage()


class Timeline:
    """How many calls ended when; its step in seconds doubles when the run gets long."""

    def __init__(self) -> None:
        self.step = 1
        self.counts: dict[int, int] = {}

    def add(self, moment: float, amount: int) -> None:
        """Count calls that ended at a Unix time."""
        bucket = int(moment) // self.step
        self.counts[bucket] = self.counts.get(bucket, 0) + amount
        while len(self.counts) > MOST_BUCKETS:
            self.widen()

    def widen(self) -> None:
        """Double the step."""
        self.step *= 2
        wider: dict[int, int] = {}
        for bucket, count in self.counts.items():
            wider[bucket // 2] = wider.get(bucket // 2, 0) + count
        self.counts = wider

    def public(self) -> dict[str, Any]:
        """Return the points as they are shown: start of each step and its count."""
        points = sorted((bucket, count) for bucket, count in self.counts.items() if count > 0)
        return {
            "step": self.step,
            "at": [bucket * self.step for bucket, _ in points],
            "calls": [count for _, count in points],
        }


def shown(times: Histogram) -> dict[str, Any] | None:
    """Return a histogram and its percentiles as the page wants them; None where it is empty."""
    if not times.count:
        return None
    classes = list(times.classes())
    return {
        "calls": times.count,
        "mean": times.total / times.count,
        **{f"p{share}": times.percentile(share) for share in (50, 90, 99)},
        "at": [seconds for seconds, _ in classes],
        "count": [count for _, count in classes],
    }


class Figures:
    """All figures of one output."""

    def __init__(self, price: Price | None = None) -> None:
        self.price = price
        self.states = [0] * len(State)
        self.causes: list[Cause] = [Cause(0, "", "")]
        self.cause_counts = [0]
        self.cause_rows = [0]
        self.cause_numbers: dict[tuple[int, str, str], int] = {}
        self.finishes = [""]
        self.finish_counts = [0]
        self.tokens = Usage()
        self.timeline = Timeline()
        self.latency = Histogram()
        self.calls = 0
        self.pictures = 0
        self.first = self.last = 0.0

    def cause_number(self, cause: Cause | None, row: int) -> int:
        """Return the number of a cause; the first line that has it becomes its example."""
        if cause is None:
            return NO_CAUSE
        name = cause.name
        if name not in self.cause_numbers and len(self.causes) >= MOST_CAUSES:
            cause = Cause(0, "other", "")
            name = cause.name
        if name not in self.cause_numbers:
            self.cause_numbers[name] = len(self.causes)
            self.causes.append(cause)
            self.cause_counts.append(0)
            self.cause_rows.append(row)
        return self.cause_numbers[name]

    def finish_number(self, finish: str) -> int:
        """Return the number of a reason why an answer ends; 0 is none."""
        if finish in self.finishes:
            return self.finishes.index(finish)
        if len(self.finishes) > MOST_FINISHES:
            return 0
        self.finishes.append(finish)
        self.finish_counts.append(0)
        return len(self.finishes) - 1

    def count(self, facts: Facts, cause: int, finish: int, amount: int) -> None:
        """Count a line in (1) or out again (-1)."""
        self.states[facts.state] += amount
        self.pictures += facts.pictures * amount
        self.calls += facts.made * amount
        self.finish_counts[finish] += amount
        if facts.usage != NO_USAGE:
            pairs = zip(self.tokens, facts.usage, strict=True)
            self.tokens = Usage(*(had + amount * more for had, more in pairs))
        if cause != NO_CAUSE:
            self.cause_counts[cause] += amount
        for call in facts.calls:
            self.count_call(call, amount)

    def count_call(self, call: Call, amount: int) -> None:
        """Count one call in or out again."""
        self.latency.add(call.seconds, amount)
        if call.ended:
            self.timeline.add(call.ended, amount)
            self.first = min(self.first or call.ended, call.ended - call.seconds)
            self.last = max(self.last, call.ended)

    def public(self) -> dict[str, Any]:
        """Return everything as the page wants it, the most frequent cause first."""
        order = sorted(range(1, len(self.causes)), key=lambda n: -self.cause_counts[n])
        return {
            "states": {state.name.lower(): self.states[state] for state in State},
            "causes": [
                {
                    "number": n,
                    **self.causes[n]._asdict(),
                    "count": self.cause_counts[n],
                    "row": self.cause_rows[n],
                }
                for n in order
                if self.cause_counts[n] > 0
            ],
            "finishes": [
                {"number": n, "name": self.finishes[n], "count": self.finish_counts[n]}
                for n in range(1, len(self.finishes))
                if self.finish_counts[n] > 0
            ],
            "tokens": self.tokens._asdict() if self.tokens != NO_USAGE else None,
            "cost": self.price.of(self.tokens) if self.price else None,
            "timeline": self.timeline.public(),
            "latency": shown(self.latency),
            "calls": self.calls,
            "pictures": self.pictures,
            "first": self.first,
            "last": self.last,
        }
