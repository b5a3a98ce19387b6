"""What a format is: how an input becomes lines of our own form, and their records an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gpt4batch.lines.parse import Line


class Format(Protocol):
    """The form of one kind of input and of the output that belongs to it."""

    name: str

    def parse(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input; its text and its key are those of our own form.

        Raises:
            BadLine: It is not of the right shape.
        """

    def line(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input that `parse` took, ready to be asked."""

    def own(self, raw: bytes) -> bytes:
        """Return the text of a line of an input as our own form has it."""

    def row(self, record: bytes) -> bytes:
        """Return a record of our own form as it stands in the ordered output."""

    def result(self, row: bytes) -> bytes:
        """Return the record that a row of an output stands for; a record of our own form itself."""

    def notes(self) -> list[str]:
        """Return what is worth knowing of the rows that were read back."""
