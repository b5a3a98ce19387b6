"""Tokens, as services tell them in their replies."""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_DIGITS = 11
MOST = 10 ** (MOST_DIGITS - 1)
"""Tokens from which on a count is not believed: it would hold up or end the run."""


class Usage(NamedTuple):
    """The tokens that one call was charged for, or several.

    Args:
        input: Those of the question, `cached` among them.
        cached: Those of the question that the service had at hand, which cost less.
        output: Those of the answer, `reasoning` among them.
        reasoning: Those of the answer that nobody sees.
    """

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Return the tokens that count towards a limit."""
        return self.input + self.output

    def plus(self, other: Usage) -> Usage:
        """Return the tokens of both."""
        return Usage(*(one + more for one, more in zip(self, other, strict=True)))


NO_USAGE = Usage()


def usage_of(value: Any) -> Usage | None:
    """Return what a call took by the `usage` of its reply; None where that tells nothing.

    A total without its parts counts as output, which is what costs most.

    Source: OpenAI's openapi.yaml, for chat completions and for responses; DeepSeek and Moonshot
    name what was cached otherwise.
    """
    if not isinstance(value, dict):
        return None
    told = any(_count(value.get(name)) for name in ("input_tokens", "output_tokens"))
    names = ("input", "output") if told else ("prompt", "completion")  # some have both, one empty
    details = (value.get(f"{name}_tokens_details") for name in names)
    asked, answered = (one if isinstance(one, dict) else {} for one in details)
    cached = (
        asked.get("cached_tokens"),
        value.get("prompt_cache_hit_tokens"),
        value.get("cached_tokens"),
    )
    usage = Usage(
        _count(value.get(f"{names[0]}_tokens")),
        max(map(_count, cached)),
        _count(value.get(f"{names[1]}_tokens")),
        _count(answered.get("reasoning_tokens")),
    )
    if not usage.total:
        usage = Usage(output=_count(value.get("total_tokens")))
    return usage if usage.total else None


def _count(value: Any) -> int:
    """Return a number of tokens; 0 for what is none, or more than any call can take."""
    if isinstance(value, str) and value.isdecimal() and len(value) < MOST_DIGITS:
        value = int(value)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if known and 0 <= value < MOST else 0
