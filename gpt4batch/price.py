"""What tokens cost, as the user says; there is no built-in price list."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpt4batch.errors import UsageError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.usage import Usage

MILLION = 1_000_000
KINDS = ("in", "cached", "out")
PRICE = tr("--price in=0.15,cached=0.075,out=0.60 (per million tokens)")
NO_PRICE = tr(
    "--price {text!r}: {part!r} is not a price; write --price in=0.15,cached=0.075,out=0.60 (per "
    "million tokens)"
)
LACKING = tr(
    "--price {text!r}: {name}= is missing; write --price in=0.15,cached=0.075,out=0.60 (per "
    "million tokens)"
)


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
                raise UsageError(NO_PRICE.filled(text=text, part=part)) from None
            if name not in KINDS or not 0 <= found[name] < float("inf"):
                raise UsageError(NO_PRICE.filled(text=text, part=part))
        if missing := [name for name in ("in", "out") if name not in found]:
            raise UsageError(LACKING.filled(text=text, name=missing[0]))
        return cls(found["in"], found.get("cached", found["in"]), found["out"])
