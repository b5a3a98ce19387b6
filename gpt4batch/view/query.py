"""What is typed to find lines: conditions, then a text or, between slashes, a regular expression.

`seconds>30 extra.topic=physics whole answer`, `attempts>=3 /time[ -]?out/`.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.lines.reading import mapped, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.view.rows import Rows

NUMBERS = ("seconds", "attempts", "length", "tokens")
"""The columns of numbers that lines are compared and sorted by."""

LONGEST = 1000
"""Characters of what is typed that count."""

LONGEST_SEARCHED = 1 << 20
"""Characters of a line that a regular expression looks through."""

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
}
NUMBER = re.compile(rf"({'|'.join(NUMBERS)})(<=|>=|<|>|=)(\d+(?:\.\d+)?)(?:\s+|$)")
EXTRA = re.compile(r'extra\.([^\s=]+)=("[^"]*"|\S*)(?:\s+|$)')


class Comparison(NamedTuple):
    """A condition on one of the columns of numbers."""

    name: str
    sign: str
    value: float

    def holds(self, rows: Rows, row: int) -> bool:
        """Tell whether a row meets it; one of which the number is not known does not."""
        value = rows.number(self.name, row)
        return value is not None and COMPARISONS[self.sign](value, self.value)


class Query(NamedTuple):
    """What is looked for in the lines themselves, and in their numbers."""

    text: str = ""
    is_pattern: bool = False
    comparisons: tuple[Comparison, ...] = ()
    extras: tuple[tuple[str, str], ...] = ()

    def pattern(self) -> re.Pattern[str]:
        """Return what finds the text where it is shown, in any case."""
        return re.compile(self.text if self.is_pattern else re.escape(self.text), re.IGNORECASE)

    def fits(self, record: dict[str, Any]) -> bool:
        """Tell whether the `extra` of a line has the values that are asked for."""
        extra = mapped(record.get("extra"))
        return all(text_of(extra.get(name)) == value for name, value in self.extras)


def read_query(typed: str) -> Query:
    """Return what was typed as a query; an expression that is none is a text."""
    rest = typed.strip()[:LONGEST]
    comparisons, extras = [], []
    while found := NUMBER.match(rest) or EXTRA.match(rest):
        if found.re is NUMBER:
            comparisons.append(Comparison(found[1], found[2], float(found[3])))
        else:
            extras.append((found[1], found[2].strip('"')))
        rest = rest[found.end() :]
    is_pattern = len(rest) > 2 and rest[0] == rest[-1] == "/" and _compiles(rest[1:-1])
    text = rest[1:-1] if is_pattern else rest
    return Query(text, is_pattern, tuple(comparisons), tuple(extras))


def _compiles(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
