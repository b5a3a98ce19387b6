"""What happens in a run, counted: the display, the summary and the metrics all read from here."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4batch.errors import CallError

GROUPS = 50
EXAMPLES = 5


@dataclass(slots=True)
class Failures:
    """Lines that failed for one cause."""

    stage: str
    code: int
    message: str
    count: int = 0
    examples: list[Any] = field(default_factory=list)


class Progress:
    """The counters of one run; every method is a few additions, none can fail or wait."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.total = 0
        self.done_before = 0
        self.to_run = 0
        self.done = 0
        self.failed = 0
        self.running = 0
        self.chats = 0
        self.retries = 0
        self.last_error = ""
        self.in_a_row = 0
        self.failures: dict[tuple[str, int, str], Failures] = {}
        self.seconds = array("f")

    def chat_sent(self) -> None:
        """Count an attempt of a chat: a call that may cost money."""
        self.chats += 1

    def retrying(self, error: CallError) -> None:
        """Count a failed attempt that will be tried again."""
        self.retries += 1
        self.last_error = str(error)

    def answered(self, seconds: float) -> None:
        """Count an answer."""
        self.seconds.append(seconds)

    def line_done(self) -> None:
        """Count a line that is done."""
        self.done += 1
        self.in_a_row = 0

    def line_failed(self, line_id: Any, error: CallError) -> None:
        """Count a line that failed, by its cause."""
        self.failed += 1
        self.last_error = str(error)
        if error.stage != "attachment":  # that is no failure of the service
            self.in_a_row += 1
        key = (error.stage, error.code, str(error)[:100])
        if key not in self.failures and len(self.failures) >= GROUPS:
            key = (error.stage, error.code, "other causes")
        group = self.failures.setdefault(key, Failures(*key))
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(line_id)

    @property
    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.began

    def percentiles(self) -> dict[str, float]:
        """Return how long the answers took: 50, 90 and 99 of 100 were faster, in seconds."""
        if not self.seconds:
            return {}
        ordered = sorted(self.seconds)
        last = len(ordered) - 1
        return {f"p{share}": round(ordered[last * share // 100], 3) for share in (50, 90, 99)}
