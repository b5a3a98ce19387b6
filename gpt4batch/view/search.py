"""Filters over all lines of an output, by what is known of them and by text; growing lists."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.lines.formats.known import parse
from gpt4batch.view.query import LONGEST_SEARCHED, Query, read_query
from gpt4batch.view.record import shown_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.view.index import Index

BLOCK_ROWS = 2048
SPAN = 4 << 20
MOST_FILTERS = 8
MOST_ORDERS = 4
_REWRITTEN = set('"\\/<>&\u2028\u2029\x7f')


@dataclass(frozen=True, slots=True)
class Question:
    """What lines are asked for; an empty field asks for nothing."""

    states: frozenset[int] = frozenset()
    cause: int = 0
    text: str = ""
    pictures: bool = False
    finish: int = 0

    @property
    def query(self) -> Query:
        """What the text asks for."""
        return read_query(self.text)

    def is_all(self) -> bool:
        """Tell whether every line answers it."""
        return self == Question()


class Span(NamedTuple):
    """Rows whose lines lie one after the other in one file."""

    source: int
    start: int
    end: int
    rows: list[int]
    offsets: list[int]


def needles_of(text: str) -> list[bytes]:
    """Return bytes of which a line that holds the text, in any case, must hold one, lowered.

    Escaped and raw JSON may spell the same text: only characters that both write alike, or whose
    two spellings are known, are looked for. An empty list: every line must be parsed.
    """
    best = run = ""
    for char in text.casefold():
        known = char.isprintable() and char not in _REWRITTEN
        folds = not char.isascii() and char.lower() != char.upper()
        run = run + char if known and not folds else ""
        best = max(best, run, key=len)
    if not best:
        return []
    raw = best.encode()
    escaped = "".join(c if c.isascii() else _escape(c) for c in best).encode()
    return [raw] if raw == escaped else [raw, escaped]


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


class Filter:
    """The rows that answer a question, in order; works through the index bit by bit."""

    def __init__(self, index: Index, question: Question) -> None:
        self.index = index
        self.question = question
        self.query = question.query
        self.folded = self.query.text.casefold()
        self.needles = [] if self.query.is_pattern else needles_of(self.query.text)
        self.pattern = self.query.pattern() if self.query.is_pattern else None
        self.rows = array("I")
        self.scanned = 0
        self.changes_seen = 0
        self.stopped = False
        self.lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Tell whether every row that is indexed so far was looked at."""
        return self.scanned >= len(self.index.rows) and self.changes_seen >= len(self.index.changes)

    def advance(self) -> None:
        """Look at all rows that were not looked at, and again at those that changed."""
        with self.lock:
            while self.scanned < len(self.index.rows) and not self.halted():
                end = min(self.scanned + BLOCK_ROWS, len(self.index.rows))
                self.rows.extend(self.matching(range(self.scanned, end)))
                self.scanned = end
            while self.changes_seen < len(self.index.changes) and not self.halted():
                self.reconsider(self.index.changes[self.changes_seen])
                self.changes_seen += 1

    def halted(self) -> bool:
        """Tell whether nobody wants the answer any more."""
        return self.stopped or self.index.stopped

    def reconsider(self, row: int) -> None:
        """Take a row in or out after its line changed."""
        place = bisect_left(self.rows, row)
        was = place < len(self.rows) and self.rows[place] == row
        now = bool(self.matching([row]))
        if now and not was:
            self.rows.insert(place, row)
        elif was and not now:
            self.rows.pop(place)

    def matching(self, rows: range | list[int]) -> list[int]:
        """Return those of the rows that answer the question."""
        question, columns = self.question, self.index.rows
        found = list(rows)
        if question.states:
            found = [row for row in found if columns.state[row] in question.states]
        if question.cause:
            found = [row for row in found if columns.cause[row] == question.cause]
        if question.finish:
            found = [row for row in found if columns.finish[row] == question.finish]
        if question.pictures:
            found = [row for row in found if columns.pictures[row]]
        for comparison in self.query.comparisons:
            found = [row for row in found if comparison.holds(columns, row)]
        return self.holding(found) if self.folded or self.query.extras else found

    def holding(self, rows: list[int]) -> list[int]:
        """Return those of the rows whose shown text holds the text that is looked for."""
        in_steps = [row for row in rows if row in self.index.earlier]
        found = [row for row in in_steps if self.holds(self.index.read(row))]
        plain = [row for row in rows if row not in self.index.earlier] if in_steps else rows
        for span in self.spans(plain):
            data = self.index.read_span(span.source, span.start, span.end - span.start)
            for place in self.candidates(span, data):
                if self.halted():
                    return found
                begin = span.offsets[place] - span.start
                end = span.offsets[place + 1] - span.start
                if self.holds(data[begin:end]):
                    found.append(span.rows[place])
        return sorted(found)

    def spans(self, rows: list[int]) -> Iterator[Span]:
        """Yield rows together whose lines can be read in one go."""
        columns = self.index.rows
        span = Span(0, 0, 0, [], [])
        for row in rows:
            with self.index.lock:
                source, offset, length = columns.place(row)
            joins = span.rows and source == span.source and 0 <= offset - span.end <= 2
            if not joins or offset + length - span.start > SPAN:
                if span.rows:
                    yield span._replace(offsets=[*span.offsets, span.end])
                span = Span(source, offset, offset, [], [])
            span.rows.append(row)
            span.offsets.append(offset)
            span = span._replace(end=offset + length)
        if span.rows:
            yield span._replace(offsets=[*span.offsets, span.end])

    def candidates(self, span: Span, data: bytes) -> Iterator[int]:
        """Yield the places in a span of lines that hold one of the needles."""
        if not self.needles:
            yield from range(len(span.rows))
            return
        lowered = data.lower()
        places: set[int] = set()
        for needle in self.needles:
            at = lowered.find(needle)
            while at >= 0:
                place = bisect_right(span.offsets, span.start + at, hi=len(span.rows)) - 1
                places.add(place)
                at = lowered.find(needle, span.offsets[place + 1] - span.start)
        yield from sorted(places)

    def holds(self, line: bytes) -> bool:
        """Tell whether a line shows the text."""
        record = parse(line)
        if record is not None and not self.query.fits(record):
            return False
        text = line.decode(errors="replace") if record is None else shown_text(record)
        if self.pattern is not None:
            return self.pattern.search(text, 0, LONGEST_SEARCHED) is not None
        return self.folded in text.casefold()

    def slice(self, start: int, count: int) -> list[int]:
        """Return some of the rows found so far."""
        return self.rows[start : start + count].tolist()


class Filters:
    """The filters in use; the one that was not asked for longest makes room."""

    def __init__(self) -> None:
        self.filters: OrderedDict[tuple[Index, Question], Filter] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, index: Index, question: Question) -> Filter:
        """Return the filter for a question, begun in the background if it is new."""
        with self.lock:
            wanted = self.known(index, question)
        if not wanted.complete and not wanted.lock.locked():
            self.begin(wanted)
        return wanted

    def known(self, index: Index, question: Question) -> Filter:
        """Return the filter for a question, a new one if there is none."""
        name = (index, question)
        wanted = self.filters.pop(name, None) or Filter(index, question)
        self.filters[name] = wanted
        for other in [item for item in self.filters if item[0].stopped]:
            del self.filters[other]
        while len(self.filters) > MOST_FILTERS:
            self.filters.popitem(last=False)[1].stopped = True
        return wanted

    def begin(self, item: Filter) -> None:
        """Let a filter work through what it has not seen."""
        worker = threading.Thread(target=item.advance, name="filter", daemon=True)
        worker.start()
        # Most are there at once: the page then needs no second request.
        worker.join(timeout=0.05)

    def close(self) -> None:
        """Stop all filters."""
        for item in self.filters.values():
            item.stopped = True


class Orders:
    """Rows sorted by one of their numbers; the orders that were asked for last are kept."""

    def __init__(self) -> None:
        self.orders: OrderedDict[tuple[Any, ...], list[int]] = OrderedDict()

    def get(self, index: Index, chosen: Filter | None, sort: str) -> list[int]:
        """Return the rows of a filter by a number, the largest first where `sort` has a minus."""
        rows = range(len(index.rows)) if chosen is None else chosen.rows[:]
        name = (index, chosen, sort, index.version, len(rows))
        found = self.orders.pop(name, None)
        if found is None:
            column = sort.removeprefix("-")

            def number(row: int) -> float:
                return index.rows.number(column, row) or 0.0

            found = sorted(rows, key=number, reverse=sort.startswith("-"))
        self.orders[name] = found
        while len(self.orders) > MOST_ORDERS:
            self.orders.popitem(last=False)
        return found
