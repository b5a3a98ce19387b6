"""Where each line lies and how it stands, in compact columns: some sixty bytes a line."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

from gpt4batch.view.query import NUMBERS
from gpt4batch.view.record import Facts, State

LONGEST_SEARCH = 64
"""How many equal lines are looked at for one that is not done."""


def _numbers_of(facts: Facts) -> tuple[Any, ...]:
    seconds = sum(call.seconds for call in facts.calls) if facts.calls else -1.0
    counts = facts.length, facts.usage.total
    return (seconds, min(facts.made, 0xFFFF), *(min(count, 0xFFFFFFFF) for count in counts))


class Place(NamedTuple):
    """The bytes of a line: in the input (0) or the output (1), from where, how many."""

    source: int
    offset: int
    length: int


class Matcher:
    """Find rows by key: an open hash table in an array, equal rows linked in a circle.

    The table points at the last row of each circle, the one taken most recently, so that equal
    lines are taken in order.
    """

    def __init__(self, keys: array[int]) -> None:
        self.keys = keys
        self.table = array("I", bytes(4 * 1024))
        self.next = array("I")
        self.taken = bytearray()
        self.distinct = 0

    def add(self, row: int, *, taken: bool) -> None:
        """Add the row, the one after the last added."""
        slot = self.slot(self.keys[row])
        tail = self.table[slot] - 1
        self.taken.append(taken)
        if tail < 0:
            self.next.append(row)
            self.distinct += 1
        else:
            self.next.append(self.next[tail])
            self.next[tail] = row
        self.table[slot] = row + 1
        if self.distinct * 2 > len(self.table):
            self.grow()

    def slot(self, key: int) -> int:
        """Return the place of a key in the table: its rows', or the free one to use."""
        table, keys = self.table, self.keys
        mask = len(table) - 1
        slot = key & mask
        while (row := table[slot]) and keys[row - 1] != key:
            slot = (slot + 1) & mask
        return slot

    def grow(self) -> None:
        """Double the table."""
        old = self.table
        self.table = array("I", bytes(8 * len(old)))
        for row in old:
            if row:
                self.table[self.slot(self.keys[row - 1])] = row

    def take(self, key: int) -> int:
        """Return the next row of the key that was not taken yet, or -1."""
        slot = self.slot(key)
        tail = self.table[slot] - 1
        if tail < 0 or self.taken[self.next[tail]]:
            return -1
        return self.turn(slot, self.next[tail])

    def turn(self, slot: int, row: int) -> int:
        """Make the row the one taken most recently."""
        self.taken[row] = True
        self.table[slot] = row + 1
        return row


class Rows:
    """The columns; a row's number is its place in input order."""

    def __init__(self) -> None:
        self.source = bytearray()
        self.offset = array("Q")
        self.length = array("I")
        self.state = bytearray()
        self.cause = array("H")
        self.key = array("Q")
        self.answer = array("I")
        self.finish = bytearray()
        self.seconds = array("f")
        self.attempts = array("H")
        self.answered = array("I")
        self.tokens = array("I")
        self.pictures = bytearray()
        self.matcher: Matcher | None = None
        self.asked_from = array("Q")
        self.asked_length = array("I")

    def __len__(self) -> int:
        # The column appended to last: a row that is counted is whole.
        return len(self.pictures)

    def append(self, place: Place, facts: Facts, cause: int, finish: int) -> int:
        """Add a row and return its number."""
        row = len(self)
        self.source.append(place.source)
        self.offset.append(place.offset)
        self.length.append(place.length)
        self.state.append(facts.state)
        self.cause.append(cause)
        self.key.append(facts.key)
        self.answer.append(facts.answer)
        self.finish.append(finish)
        for column, value in zip(self._numbers(), _numbers_of(facts), strict=True):
            column.append(value)
        if self.matcher is not None:
            self.matcher.add(row, taken=bool(place.source))
        self.pictures.append(facts.pictures)
        return row

    def replace(self, row: int, place: Place, facts: Facts, cause: int, finish: int) -> None:
        """Let a row stand for a newer record of the same line."""
        self.source[row] = place.source
        self.offset[row] = place.offset
        self.length[row] = place.length
        self.state[row] = facts.state
        self.cause[row] = cause
        self.answer[row] = facts.answer
        self.finish[row] = finish
        for column, value in zip(self._numbers(), _numbers_of(facts), strict=True):
            column[row] = value
        self.pictures[row] = facts.pictures

    def _numbers(self) -> tuple[array[Any], ...]:
        return self.seconds, self.attempts, self.answered, self.tokens

    def number(self, name: str, row: int) -> float | None:
        """Return one of the numbers of a row by the name that lines are sorted by."""
        value = self._numbers()[NUMBERS.index(name)][row]
        return None if value < 0 else value

    def keep_question(self, row: int) -> None:
        """Remember where the input has a line, for rows of the output that do not repeat it."""
        lacking = len(self) - len(self.asked_from)
        self.asked_from.frombytes(bytes(8 * lacking))
        self.asked_length.frombytes(bytes(4 * lacking))
        self.asked_from[row], self.asked_length[row] = self.offset[row], self.length[row]

    def question(self, row: int) -> Place | None:
        """Return where the input has a line, if that was to be remembered."""
        if row >= len(self.asked_length) or not self.asked_length[row]:
            return None
        return Place(0, self.asked_from[row], self.asked_length[row])

    def place(self, row: int) -> Place:
        """Return where the row's bytes lie."""
        return Place(self.source[row], self.offset[row], self.length[row])

    def matching(self) -> Matcher:
        """Return the matcher over all rows, made when first needed."""
        if self.matcher is None:
            matcher = Matcher(self.key)
            for row in range(len(self)):
                matcher.add(row, taken=bool(self.source[row]))
            self.matcher = matcher
        return self.matcher

    def updated_by(self, key: int) -> int:
        """Return the row that a log record of this key brings up to date, or -1.

        That is the row it updated last while that is not done, else the next one that is not.
        """
        matcher = self.matching()
        slot = matcher.slot(key)
        last = matcher.table[slot] - 1
        if last < 0 or (matcher.taken[last] and self.state[last] != State.DONE):
            return last
        row = last
        for _ in range(LONGEST_SEARCH):
            row = matcher.next[row]
            if not matcher.taken[row] or self.state[row] != State.DONE:
                return matcher.turn(slot, row)
            if row == last:
                break
        return last
