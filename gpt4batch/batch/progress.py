"""What happens in a run, counted: the display, the summary and the metrics all read from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.errors import NetworkError
from gpt4batch.histogram import Histogram
from gpt4batch.lines.causes import cause_of
from gpt4batch.usage import NO_USAGE, Usage
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.errors import CallError

GROUPS = 50
EXAMPLES = 5
LONGEST = 300
"""Characters of a cause that are kept."""

OTHER = tr("other causes")


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest error, when it was, and whether it failed its line or only a call of it."""

    text: str
    at: float
    fails: bool


@dataclass(slots=True)
class Failures:
    """Lines that failed for one cause, with the message of the first and the ids of a few."""

    stage: str
    code: int
    message: str
    count: int = 0
    examples: list[Any] = field(default_factory=list)


class Progress:
    """The counters of one run; every method is a few additions, none can fail or wait."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self.began = clock.monotonic()
        self.started = clock.now()
        self.total = 0
        self.done_before = 0
        self.to_run = 0
        self.done = 0
        self.failed = 0
        self.running = 0
        self.chats = 0
        self.retries = 0
        self.finishing = False
        self.last: LastError | None = None
        self.in_a_row = 0
        self.failures: dict[tuple[str, int, str], Failures] = {}
        self.seconds = Histogram()
        self.usage = NO_USAGE
        self.timeouts = 0
        """Calls to which nothing came within --timeout."""

    def chat_sent(self) -> None:
        """Count an attempt of a chat: a call that may cost money."""
        self.chats += 1

    def retrying(self, error: CallError) -> None:
        """Count a failed attempt that will be tried again."""
        self.retries += 1
        self._remember(error, fails=False)

    def answered(self, seconds: float, tokens: list[int] | None = None) -> None:
        """Count an answer, with its tokens where it tells."""
        self.seconds.add(seconds)
        if tokens:
            self.usage = self.usage.plus(Usage(*tokens))

    def line_done(self) -> None:
        """Count a line that is done."""
        self.done += 1
        self.in_a_row = 0

    def line_failed(self, line_id: Any, error: CallError) -> int:
        """Count a line that failed, by its cause, and return how many that one has failed."""
        self.failed += 1
        self._remember(error, fails=True)
        if error.stage not in (
            "attachment",
            "download",
            "input",
        ):  # those say nothing of the service
            self.in_a_row += 1
        message = str(error)
        if len(message) > LONGEST:
            message = message[:LONGEST]
        key = (error.stage, error.code, cause_of(message))
        if key not in self.failures and len(self.failures) >= GROUPS:
            key, message = (error.stage, error.code, OTHER), OTHER
        group = self.failures.get(key)
        if group is None:
            group = self.failures[key] = Failures(error.stage, error.code, message)
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(line_id)
        return group.count

    @property
    def left(self) -> int:
        """Return the lines of this run that are not finished."""
        return self.to_run - self.done - self.failed

    @property
    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return self._clock.monotonic() - self.began

    def percentiles(self) -> dict[str, float]:
        """Return how long the answers took: 50, 90 and 99 of 100 were faster, in seconds."""
        if not self.seconds.count:
            return {}
        return {f"p{share}": round(self.seconds.percentile(share), 3) for share in (50, 90, 99)}

    def _remember(self, error: CallError, *, fails: bool) -> None:
        self.timeouts += isinstance(error, NetworkError) and error.timed_out
        self.last = LastError(str(error), self._clock.monotonic(), fails)
