"""The lines that a run takes on: those that are not done, of those that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4batch.errors import UsageError
from gpt4batch.lines.parse import BATCH
from gpt4batch.lines.record import State
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.journal.journal import Journal
    from gpt4batch.journal.source import Source


class Chosen:
    """The indices of the lines that are to be run, in their order, as things stand.

    Args:
        journal: Knows which are done.
        source: The input.
        most: How many lines; 0 is all.
        only: The ids of those that are wanted, with commas; empty is all.
        redo: Those that are done are wanted too.

    Raises:
        UsageError: The input has no line with an id that was named.
    """

    def __init__(
        self, journal: Journal, source: Source, most: int, only: str, *, redo: bool = False
    ) -> None:
        self._journal = journal
        self._source = source
        self._most = most
        self._only = _named(only, source) if only else None
        self._redo = redo
        if redo:
            _refuse_equals(sorted(self._only or ()), source)

    def __iter__(self) -> Iterator[int]:
        """Yield each line that is wanted and not bad."""
        left = self._most or len(self._source)
        for index in range(len(self._journal.ledger)):
            if left == 0:
                return
            if self._only is not None and index not in self._only:
                continue
            done = self._journal.ledger.states[index] == State.DONE and not self._redo
            if done or self._source.bad_reason(index):
                continue
            left -= 1
            yield index

    def __len__(self) -> int:
        """Return how many they are."""
        if self._only is not None:
            return sum(1 for _ in self)
        ledger = self._journal.ledger
        count = len(ledger) - ledger.count(State.DONE) - self._source.bad_count
        return min(count, self._most) if self._most else count


def _refuse_equals(wanted: list[int], source: Source) -> None:
    """Refuse to ask a line anew that another one is equal to: nobody could tell them apart.

    Those of a batch file too: what they had would be lost with their row.
    """
    keys: set[bytes] = set()
    for index in wanted:
        known, line = len(keys), source.line(index)
        if BATCH in line.options:
            raise UsageError(tr("--redo: the rows of a batch file have no place for what they had"))
        keys.add(line.key)
        if len(keys) == known:
            raise UsageError(
                tr(
                    "--redo: {path}:{number}: another line has the same id and asks",
                    path=source.path,
                    number=source.number(index),
                )
            )


def _named(ids: str, source: Source) -> frozenset[int]:
    """Return the lines with the ids that were named."""
    wanted = {name.strip() for name in ids.split(",")} - {""}
    found: dict[int, str] = {}
    for index in range(len(source)):
        if source.bad_reason(index) is None and (name := str(source.line(index).id)) in wanted:
            found[index] = name
    if missing := wanted - set(found.values()):
        raise UsageError(
            tr(
                "--only {ids}: {path} has no line with that id",
                ids=",".join(sorted(missing)),
                path=source.path,
            )
        )
    return frozenset(found)
