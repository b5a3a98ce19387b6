"""Lines that a log tells of in steps, while it is being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt4batch.lines.parse import NOT_RUN
from gpt4batch.lines.record import State

if TYPE_CHECKING:
    from gpt4batch.journal.ledger import Equals, Ledger
    from gpt4batch.lines.parse import Line


@dataclass(slots=True)
class _Go:
    """A half-way line; its place is None where a record that it replaced counts."""

    index: int
    asks: int
    answered: int
    place: tuple[int, int, bool] | None
    equals: Equals | None
    steps: int = 0


class HalfWay:
    """The lines whose further steps may follow, by the name that their steps share."""

    def __init__(self) -> None:
        self._goes: dict[str, _Go] = {}

    def begin(
        self, ledger: Ledger, index: int, start: int, line: Line, equals: Equals | None
    ) -> None:
        """Remember a line whose whole record begins at an offset."""
        name = line.meta.get("go")
        if isinstance(name, str):
            place = ledger.place(index)
            counts = place is not None and place[0] == start
            asks = len(line.asks)
            self._goes[name] = _Go(index, asks, line.answered, place if counts else None, equals)

    def go_on(self, ledger: Ledger, doc: dict[str, Any], start: int, size: int) -> bool:
        """Take a decoded step to its line; False where that is not known, or a step is missing."""
        go = self._goes.get(doc["go"])
        if go is None or doc["step"] > go.steps + 1:
            return False
        if doc["step"] <= go.steps:
            return True  # it is here twice
        go.steps += 1
        go.answered += len(doc.get("answers", ()))
        error = doc.get("iErr")
        if error and {**error, **NOT_RUN} != error:
            state = State.FAILED
        else:
            state = State.DONE if go.answered == go.asks and not error else State.PARTIAL
        if go.place is not None and go.place == ledger.place(go.index):
            ledger.step(go.index, state, start, size)
            go.place = ledger.place(go.index)
        if state is not State.PARTIAL:
            del self._goes[doc["go"]]
        if go.answered and go.equals is not None:
            go.equals.have(go.index)
        return True
