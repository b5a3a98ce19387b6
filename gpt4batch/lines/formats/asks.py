"""Our own form: a line is an object with `asks`, and its record adds `answers` to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4batch.lines.parse import Ask, BadLine, Line, parse_line

if TYPE_CHECKING:
    from collections.abc import Callable


def _nothing(_line: Line) -> str:
    return ""


class Asks:
    """Lines of asks, which are passed on as they stand.

    Args:
        wrong: Returns what the dialect of the run cannot do with a line.
    """

    name = "asks"

    def __init__(self, wrong: Callable[[Line], str] = _nothing) -> None:
        self._wrong = wrong
        self._wrong_with_plain = wrong(Line(b"", (Ask(None, ""),)))
        """The same for every line that says nothing of how to answer, as most do."""

    def parse(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input.

        Raises:
            BadLine: It is not of the right shape.
        """
        line = parse_line(raw, index, number)
        plain = not line.options and not line.manner
        if wrong := self._wrong_with_plain if plain else self._wrong(line):
            raise BadLine(wrong)
        return line

    def line(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input that `parse` took, ready to be asked."""
        return parse_line(raw, index, number)

    def own(self, raw: bytes) -> bytes:
        """Return the text of a line, which is in our own form already."""
        return raw

    def row(self, record: bytes) -> bytes:
        """Return a record as it stands in the ordered output: as it is."""
        return record

    def result(self, row: bytes) -> bytes:
        """Return the record that a row of an output is."""
        return row

    def notes(self) -> list[str]:
        """Return what is worth knowing of the rows that were read back: nothing."""
        return []
