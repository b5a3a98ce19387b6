"""What the calls of a fleet may take: tokens a minute, tokens and money in all.

What a call took is known from the record that its result brings: it tells more tokens than the
line's record before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpt4batch.fleet.messages import CUT, LOST, OK
from gpt4batch.lines.record import usage_noted
from gpt4batch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.fleet.table import Call
    from gpt4batch.lines.parse import Line
    from gpt4batch.service.allowance import Allowance, Held


class _Out(NamedTuple):
    """What is reserved for a call that is out, and the tokens that its line told of before."""

    held: Held
    before: Usage


class Purse:
    """Reserves for each call that is granted, and settles what it took.

    Args:
        allowance: What there is; None is no limit.
        line: Returns a line as the log has it.
    """

    def __init__(self, allowance: Allowance | None, line: Callable[[int], Line]) -> None:
        self._allowance = allowance
        self._line = line
        self._out: dict[int, _Out] = {}

    def allows(self, index: int) -> bool:
        """Tell whether the call of a line may leave now.

        Raises:
            BudgetError: Nothing is left.
        """
        return self._allowance is None or self._allowance.allows(len(self._line(index).raw))

    def take(self, index: int) -> None:
        """Reserve for a call of a line that leaves now."""
        if self._allowance is None:
            return
        if (before := self._out.pop(index, None)) is not None:  # its answer never came
            before.held.lost = 1
            self._allowance.settle(before.held)
        raw = self._line(index).raw
        self._out[index] = _Out(self._allowance.take(len(raw)), usage_noted(raw))

    def ended(self, call: Call) -> None:
        """Settle a call that brought no answer; of one that did the result will tell."""
        if self._allowance is None or call.how == OK:
            return
        if (out := self._out.pop(call.line, None)) is not None:
            out.held.lost = int(call.how in (CUT, LOST))
            self._allowance.settle(out.held)

    def brought(self, index: int, record: bytes, *, answered: bool) -> None:
        """Settle the call that a result of a line tells of."""
        if self._allowance is None or (out := self._out.get(index)) is None:
            return
        pairs = zip(usage_noted(record), out.before, strict=True)
        took = Usage(*(max(0, now - before) for now, before in pairs))
        if not (answered or took.total):
            return
        del self._out[index]
        out.held.answered, out.held.usage = True, took if took.total else None
        self._allowance.settle(out.held)
