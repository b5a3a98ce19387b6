"""What is known of each line: its state, and where its latest record lies."""

from __future__ import annotations

from array import array
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SIZE = 16


class State(IntEnum):
    """How far a line is."""

    NEW = 0
    PARTIAL = 1  # some asks are answered or some files are up, and nothing failed
    FAILED = 2
    DONE = 3


class Ledger:
    """The state of every line and the place of its record, 13 bytes a line.

    A place is an offset in the log, or in the input where a line came with its own result.
    """

    def __init__(self) -> None:
        self.states = bytearray()
        self._places = array("q")
        self._sizes = array("I")

    def __len__(self) -> int:
        return len(self.states)

    def add(self) -> None:
        """Take in one more line, of which nothing is known."""
        self.states.append(State.NEW)
        self._places.append(-1)
        self._sizes.append(0)

    def put(self, index: int, state: State, offset: int, size: int, *, in_input: bool) -> None:
        """Note that the latest record of a line lies at an offset."""
        self.states[index] = state
        self._places[index] = offset << 1 | in_input
        self._sizes[index] = size

    def place(self, index: int) -> tuple[int, int, bool] | None:
        """Return offset, size and whether it is in the input, of a line's latest record."""
        place = self._places[index]
        return None if place < 0 else (place >> 1, self._sizes[index], bool(place & 1))

    def copy(self) -> Ledger:
        """Return a copy that stays as it is while the run goes on."""
        other = Ledger()
        other.states = self.states[:]
        other._places = self._places[:]
        other._sizes = self._sizes[:]
        return other

    def count(self, state: State) -> int:
        """Return how many lines are in a state."""
        return self.states.count(state)


class KeyIndex:
    """Which line a key belongs to: an open-addressing table, about 28 bytes a line.

    A dict of a million keys takes 150 MB; the lines of one key are found here in 28.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._table = array("I", bytes(4 << 10))
        self._lines = array("I")
        self.equals: dict[int, Equals] = {}

    def add(self, key: bytes, line: int) -> None:
        """Take in a line; a line equal to an earlier one joins it."""
        slot, found = self._find(key)
        if found >= 0:
            first = self._lines[found]
            self.equals.setdefault(first, Equals(first)).lines.append(line)
            return
        self._keys += key
        self._lines.append(line)
        self._table[slot] = len(self._lines)
        if len(self._lines) * 3 > len(self._table) * 2:
            self._grow()

    def find(self, key: bytes) -> int:
        """Return the first line that has the key, or -1."""
        found = self._find(key)[1]
        return self._lines[found] if found >= 0 else -1

    def _find(self, key: bytes) -> tuple[int, int]:
        table, keys = self._table, self._keys
        mask = len(table) - 1
        slot = int.from_bytes(key[:8], "little") & mask
        while entry := table[slot]:
            start = (entry - 1) * KEY_SIZE
            if keys[start : start + KEY_SIZE] == key:
                return slot, entry - 1
            slot = (slot + 1) & mask
        return slot, -1

    def _grow(self) -> None:
        self._table = array("I", bytes(len(self._table) * 8))
        table, keys = self._table, self._keys
        mask = len(table) - 1
        for entry in range(len(self._lines)):
            slot = int.from_bytes(keys[entry * KEY_SIZE : entry * KEY_SIZE + 8], "little") & mask
            while table[slot]:
                slot = (slot + 1) & mask
            table[slot] = entry + 1


class Equals:
    """Lines that have the same id and asks, and which of the records found so far is whose.

    The n-th record goes to the n-th line, with two exceptions: a record goes on where it continues
    a half-way one, and once every line has a record, a further one is a later run of the first
    that is not done. So no answer is lost and none is counted twice, whatever order the lines were
    finished in.
    """

    def __init__(self, first: int) -> None:
        self.lines = array("I", [first])
        self._used = 0
        self._begun: list[int] = []
        self._failed: deque[int] = deque()

    def claim(
        self, *, begun: bool, done: Callable[[int], bool], continues: Callable[[int], bool]
    ) -> int:
        """Return the line that a record which is not done belongs to, or -1 for none.

        Args:
            begun: Whether the record has some answers.
            done: Tells whether a line is done already.
            continues: Tells whether the record goes on where the latest one of a line ended.
        """
        line = self._owner(done, continues)
        if line >= 0:
            (self._begun if begun else self._failed).append(line)
        return line

    def claim_done(self, *, done: Callable[[int], bool], continues: Callable[[int], bool]) -> int:
        """Return the line that a record which is done belongs to; see `claim`."""
        line = self._owner(done, continues)
        return line if line >= 0 else self.lines[-1]

    def _owner(self, done: Callable[[int], bool], continues: Callable[[int], bool]) -> int:
        for line in self._begun:
            if continues(line):
                self._begun.remove(line)
                return line
        while self._used < len(self.lines):
            self._used += 1
            if not done(self.lines[self._used - 1]):
                return self.lines[self._used - 1]
        if self._failed:
            return self._failed.popleft()
        return self._begun.pop(0) if self._begun else -1
