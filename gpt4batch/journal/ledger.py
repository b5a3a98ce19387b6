"""What is known of each line: its state, and where its latest record lies."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

from gpt4batch.lines.record import State
from gpt4batch.lines.steps import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY_SIZE = 16


class Chains:
    """Where the earlier records of half-way lines lie: 16 bytes a record, linked backwards."""

    def __init__(self) -> None:
        self._places = array("q")
        self._sizes = array("I")
        self._before = array("I")

    def add(self, place: int, size: int, before: int) -> int:
        """Note a record that another one goes on from; return its number, from 1."""
        self._places.append(place)
        self._sizes.append(size)
        self._before.append(before)
        return len(self._places)

    def back(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield place and size of a record and of those before it, the latest first."""
        while number:
            yield self._places[number - 1], self._sizes[number - 1]
            number = self._before[number - 1]

    def copy(self) -> Chains:
        """Return a copy that stays as it is."""
        other = Chains()
        other._places, other._sizes = self._places[:], self._sizes[:]
        other._before = self._before[:]
        return other


class Ledger:
    """The state of every line and the place of its record, 17 bytes a line.

    A place is an offset in the log, or in the input where a line came with its own result. A line
    of several steps has the place of its latest one here, and those of the others in the chains.
    """

    def __init__(self) -> None:
        self.states = bytearray()
        self._places = array("q")
        self._sizes = array("I")
        self._before = array("I")
        self._chains = Chains()

    def __len__(self) -> int:
        return len(self.states)

    def grow(self, size: int) -> None:
        """Add lines of which nothing is known, up to a number of lines."""
        more = size - len(self.states)
        if more > 0:
            self.states.extend(bytes(more))
            self._places.extend(array("q", [-1]) * more)
            self._sizes.extend(array("I", [0]) * more)
            self._before.extend(array("I", [0]) * more)

    def add(self, state: State, offset: int, size: int) -> None:
        """Add a line whose record lies in the log; the record of a new line tells nothing."""
        self.states.append(state)
        self._places.append(offset << 1 if state else -1)
        self._sizes.append(size)
        self._before.append(0)

    def put(self, index: int, state: State, offset: int, size: int, *, in_input: bool) -> None:
        """Note that the latest record of a line, which is whole, lies at an offset."""
        self.states[index] = state
        self._places[index] = offset << 1 | in_input
        self._sizes[index] = size
        self._before[index] = 0

    def step(self, index: int, state: State, offset: int, size: int) -> None:
        """Note that a line goes on from its latest record, in the same file, at an offset."""
        place = self._places[index]
        before = self._chains.add(place, self._sizes[index], self._before[index])
        self.put(index, state, offset, size, in_input=bool(place & 1))
        self._before[index] = before

    def place(self, index: int) -> tuple[int, int, bool] | None:
        """Return offset, size and whether it is in the input, of a line's latest record."""
        place = self._places[index]
        return None if place < 0 else (place >> 1, self._sizes[index], bool(place & 1))

    def read(self, index: int, source: int, output: int) -> bytes:
        """Return a line as its records tell it, which there are, from one of two open files."""
        place = self.place(index)
        assert place is not None
        offset, size, in_input = place
        file = source if in_input else output
        if not self._before[index]:
            return os.pread(file, size, offset).strip()
        places = [(offset, size)]
        places += [(at >> 1, length) for at, length in self._chains.back(self._before[index])]
        return folded([os.pread(file, length, at).strip() for at, length in reversed(places)])

    def copy(self) -> Ledger:
        """Return a copy that stays as it is while the run goes on."""
        other = Ledger()
        other.states = self.states[:]
        other._places = self._places[:]
        other._sizes = self._sizes[:]
        other._before, other._chains = self._before[:], self._chains.copy()
        return other

    def count(self, state: State) -> int:
        """Return how many lines are in a state."""
        return self.states.count(state)


class KeyIndex:
    """Which line a key belongs to; about 28 bytes a line, where a dict takes 150.

    Keys stand in the order of their lines. The table (open addressing) is built when a key is
    looked up that is not the expected one, or when equal lines are asked for; of an output that
    follows its input no key is here.
    """

    def __init__(self) -> None:
        self.equals: dict[int, Equals] = {}
        self._keys = bytearray()
        self._lines = array("I")
        self._table = array("I")

    def add(self, key: bytes, line: int) -> None:
        """Add a line, whose number is higher than that of the one before."""
        self._keys += key
        self._lines.append(line)
        if self._table:
            self._insert(len(self._lines) - 1)

    def key_at(self, place: int) -> bytes:
        """Return the key at a place in the order of lines; empty past the end."""
        return bytes(self._keys[place * KEY_SIZE : (place + 1) * KEY_SIZE])

    def line_at(self, place: int) -> int:
        """Return the line at a place in the order of lines."""
        return self._lines[place]

    def after(self, line: int) -> int:
        """Return the place that follows a line's."""
        return bisect_right(self._lines, line)

    def find(self, key: bytes) -> int:
        """Return the first line that has the key, or -1."""
        self._need_table()
        entry = self._table[self._slot(key)]
        return self._lines[entry - 1] if entry else -1

    def equal_lines(self, count: int) -> bytes:
        """Return a byte for each of so many lines: 1 where another one has its key."""
        self._need_table()
        found = bytearray(count if self.equals else 0)
        for group in self.equals.values():
            for index in group.lines:
                found[index] = 1
        return bytes(found)

    def _slot(self, key: bytes) -> int:
        """Return the slot in which a key is, or the free one where it would be."""
        table, keys = self._table, self._keys
        mask = len(table) - 1
        slot = int.from_bytes(key[:8], "little") & mask
        while entry := table[slot]:
            if keys[(entry - 1) * KEY_SIZE : entry * KEY_SIZE] == key:
                break
            slot = (slot + 1) & mask
        return slot

    def _need_table(self) -> None:
        if not self._table:
            self._build(max(1 << 12, 1 << (2 * len(self._lines)).bit_length()))

    def _build(self, size: int) -> None:
        self._table = array("I", bytes(4 * size))
        self.equals.clear()
        for place in range(len(self._lines)):
            self._insert(place)

    def _insert(self, place: int) -> None:
        if 3 * place > 2 * len(self._table):
            self._build(2 * len(self._table))
            return
        slot = self._slot(self.key_at(place))
        if entry := self._table[slot]:
            first = self._lines[entry - 1]
            self.equals.setdefault(first, Equals(first)).lines.append(self._lines[place])
        else:
            self._table[slot] = place + 1


class Equals:
    """Lines that have the same id and asks, and which of the records found so far is whose.

    The n-th record goes to the n-th line, with two exceptions: a record goes on where it continues
    a half-way one, and once every line has a record, a further one is a later run of the first
    that is not done. So no answer is lost and none is counted twice, whatever order the lines were
    finished in.

    Lines that have answers by records that are surely theirs are told by `have`.
    """

    def __init__(self, first: int) -> None:
        self.lines = array("I", [first])
        self.looked_at = False
        """Whether the lines were told that have answers."""
        self._used = 0
        self._begun: dict[int, None] = {}
        self._failed: deque[int] = deque()

    def have(self, line: int) -> None:
        """Note a line that has some answers."""
        self._begun[line] = None
        if line in self._failed:
            self._failed.remove(line)

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
        if line >= 0 and begun:
            self._begun[line] = None
        elif line >= 0:
            self._failed.append(line)
        return line

    def claim_done(self, *, done: Callable[[int], bool], continues: Callable[[int], bool]) -> int:
        """Return the line that a record which is done belongs to, or -1; see `claim`."""
        return self._owner(done, continues)

    def _owner(self, done: Callable[[int], bool], continues: Callable[[int], bool]) -> int:
        self._begun = {line: None for line in self._begun if not done(line)}
        for line in self._begun:
            if continues(line):
                del self._begun[line]
                return line
        while self._used < len(self.lines):
            self._used += 1
            line = self.lines[self._used - 1]
            if line not in self._begun and not done(line):
                return line
        if self._failed:
            return self._failed.popleft()
        line = next(iter(self._begun), -1)
        self._begun.pop(line, None)
        return line
