"""What an executor of lines has done so far, for the summary, the display and the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpt4batch.dialects.base import Answer
    from gpt4batch.usage import Usage

COMPLETE = frozenset({"", "stop", "tool_calls", "function_call", "completed"})
"""Why an answer ends that is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """The calls of a run and what they brought.

    Args:
        calls: Chats and uploads, tries again included.
        uploads: The uploads among them.
        unanswered: Chats whose reply never arrived: they may be paid for.
        in_flight: Calls without a reply at this moment.
        longest: Seconds that the oldest of these has been waiting.
        downloads: Files downloaded.
        download_bytes: Their size.
        usage: The tokens of the answers that tell, by the model that answered.
        finishes: How many answers ended for a reason other than that they were complete.
    """

    calls: int = 0
    uploads: int = 0
    unanswered: int = 0
    in_flight: int = 0
    longest: float = 0.0
    downloads: int = 0
    download_bytes: int = 0
    usage: Mapping[str, Usage] = field(default_factory=dict)
    finishes: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Made:
    """The calls that a client made.

    Args:
        calls: Chats and uploads, tries again included.
        uploads: The uploads among them.
        unanswered: Chats whose reply never arrived.
        out: When each call left that has no reply yet, by its number.
    """

    calls: int = 0
    uploads: int = 0
    unanswered: int = 0
    out: dict[int, float] = field(default_factory=dict)


class Tally:
    """What answers tell about themselves, added up."""

    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {}
        self.finishes: Counter[str] = Counter()

    def add(self, answer: Answer) -> dict[str, object]:
        """Add an answer, and return what is to be noted of it."""
        noted: dict[str, object] = {}
        if (usage := answer.usage) is not None:
            before = self.usage.get(answer.model)
            self.usage[answer.model] = usage if before is None else before.plus(usage)
            noted["tokens"] = list(usage)
        if answer.finish not in COMPLETE:
            self.finishes[answer.finish] += 1
            noted["finish"] = answer.finish
        return noted
