"""What keeps a conversion from being made: all of it is found, then told at once."""

from __future__ import annotations

from gpt4batch.errors import InputError, UsageError, first_of
from gpt4batch.words import counted, tr


class Problems:
    """A list of problems that is told in one refusal; `notes` are told and refuse nothing."""

    def __init__(self) -> None:
        self.found: list[object] = []
        self.notes: list[str] = []

    def add(self, path: str, row: int, reason: str) -> None:
        """Take in what is wrong in a row of a file."""
        self.found.append(InputError(path, row, reason))

    def refuse(self) -> None:
        """Refuse the conversion if there is any problem.

        Raises:
            UsageError: There is, with the place and the reason of each.
        """
        if self.found:
            count = len(self.found)
            head = counted("{n:,} problem", "{n:,} problems", count)
            raise UsageError(
                tr(
                    "{head}; nothing was written:\n{problems}",
                    head=head,
                    problems=first_of(self.found),
                )
            )
