"""Tokens and what they cost: counted as services tell them, priced as the user says."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpt4batch.errors import UsageError

MILLION = 1_000_000
KINDS = ("in", "cached", "out")
PRICE = "--price in=0.15,cached=0.075,out=0.60 (per million tokens)"


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


class Price(NamedTuple):
    """What a million tokens cost, in whatever currency the user means."""

    input: float
    cached: float
    output: float

    def of(self, usage: Usage) -> float:
        """Return what tokens cost."""
        fresh = max(0, usage.input - usage.cached)
        cost = fresh * self.input + usage.cached * self.cached + usage.output * self.output
        return cost / MILLION

    @classmethod
    def read(cls, text: str) -> Price | None:
        """Return the price that a text such as `in=0.15,cached=0.075,out=0.60` names, if any.

        Raises:
            UsageError: It is not a price.
        """
        if not text.strip():
            return None
        found: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = (piece.strip() for piece in part.partition("="))
            try:
                found[name] = float(number)
            except ValueError:
                raise UsageError(
                    f"--price {text!r}: {part!r} is not a price; write {PRICE}"
                ) from None
            if name not in KINDS or not 0 <= found[name] < float("inf"):
                raise UsageError(f"--price {text!r}: {part!r} is not a price; write {PRICE}")
        if missing := [name for name in ("in", "out") if name not in found]:
            raise UsageError(f"--price {text!r}: {missing[0]}= is missing; write {PRICE}")
        return cls(found["in"], found.get("cached", found["in"]), found["out"])


def usage_of(value: Any) -> Usage | None:
    """Return what a call took by the `usage` of its reply; None where that tells nothing.

    Source: OpenAI's openapi.yaml, for chat completions and for responses; DeepSeek and Moonshot
    name what was cached otherwise.
    """
    if not isinstance(value, dict):
        return None
    names = ("input", "output") if "input_tokens" in value else ("prompt", "completion")
    asked, answered = (_details(value.get(f"{name}_tokens_details")) for name in names)
    cached = (
        asked.get("cached_tokens"),
        value.get("prompt_cache_hit_tokens"),
        value.get("cached_tokens"),
    )
    return Usage(
        _count(value.get(f"{names[0]}_tokens")),
        max(map(_count, cached)),
        _count(value.get(f"{names[1]}_tokens")),
        _count(answered.get("reasoning_tokens")),
    )


def _details(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if known and 0 <= value < float("inf") else 0
