"""Which of several equal lines a record belongs to, by the answers that are known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.lines import rawjson
from gpt4batch.lines.record import INDEX, State, state_of, superseded

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.journal.ledger import Equals, KeyIndex
    from gpt4batch.lines.parse import Line


class Claims:
    """Gives records to lines that have the same id and asks as others.

    Args:
        keys: The keys of all lines.
        states: Returns how far each line is.
        known: Returns the answers that are known of a line.
    """

    def __init__(
        self,
        keys: KeyIndex,
        states: Callable[[], bytearray],
        known: Callable[[int], list[Any]],
    ) -> None:
        self._keys = keys
        self._states = states
        self._known = known

    def equals_of(self, line: Line) -> Equals | None:
        """Return the lines that are equal to one, if there are any, told which have answers."""
        equals = self._keys.equals.get(self._keys.find(line.key))
        if equals is not None and not equals.looked_at:
            equals.looked_at = True
            states = self._states()
            for index in equals.lines:
                if states[index] in (State.PARTIAL, State.FAILED) and self._known(index):
                    equals.have(index)
        return equals

    def has(self, equals: Equals, line: Line) -> bool:
        """Return whether one of several equal lines has the answers of a record already."""
        answers = [bare(answer) for answer in line.answers()]
        lines = [index for index in equals.lines if self._states()[index]]
        return any(self._known(index)[: len(answers)] == answers for index in lines)

    def claim(self, equals: Equals, line: Line) -> int:
        """Return which of several equal lines a record is of, or -1."""
        if line.meta.get(INDEX) in equals.lines:
            return int(line.meta[INDEX])
        answers, states = [bare(answer) for answer in line.answers()], self._states()
        told = answers + [plain(reply) for reply in superseded(line.meta)]

        def done(index: int) -> bool:
            return states[index] == State.DONE

        def continues(index: int) -> bool:
            known = self._known(index)
            return answers[: len(known)] == known or all(answer in told for answer in known)

        if state_of(line) is State.DONE:
            return equals.claim_done(done=done, continues=continues)
        return equals.claim(begun=line.answered > 0, done=done, continues=continues)


def is_other(line: Line, known: list[Any]) -> bool:
    """Return whether a record is that of a line that was equal before the input was edited.

    It has other answers than those that are known, so that both have to be kept.
    """
    answers = [bare(text) for text in line.answers()]
    told = answers + [plain(reply) for reply in superseded(line.meta)]
    return not all(answer in told for answer in known) and any(a not in known for a in answers)


def bare(answer: bytes) -> Any:
    """Return an answer without what was noted in it."""
    return plain(rawjson.loads(answer))


def plain(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded answer without what was noted in it."""
    return {name: value for name, value in reply.items() if name != "spec_downloads"}
