"""Two runs of one input side by side: their lines paired by id and asks, the pairs sorted out."""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING

from gpt4batch.view.record import State
from gpt4batch.view.rows import Matcher

if TYPE_CHECKING:
    from gpt4batch.view.index import Index

NONE = 0xFFFFFFFF
KINDS = ("all", "same", "differ", "better", "worse", "left", "right")


class Pairing:
    """The pairs of two indexes as they were when it was made: the n-th of equals with the n-th."""

    def __init__(self, left: Index, right: Index) -> None:
        self.left = left
        self.right = right
        self.versions = (left.version, right.version)
        self.pairs: dict[str, tuple[array[int], array[int]]] = {
            kind: (array("I"), array("I")) for kind in KINDS
        }
        self.done = 0
        self.total = len(left.rows) + len(right.rows)
        self.complete = False
        self.stopped = False

    def is_current(self, left: Index, right: Index) -> bool:
        """Tell whether nothing has changed since."""
        same = self.left is left and self.right is right
        return same and self.versions == (left.version, right.version)

    def run(self) -> None:
        """Pair all lines."""
        rights = len(self.right.rows)
        matcher = Matcher(self.right.rows.key)
        for row in range(rights):
            matcher.add(row, taken=False)
            self.done += 1
            if self.stopped:
                return
        for row in range(self.total - rights):
            self.sort(row, matcher.take(self.left.rows.key[row]))
            self.done += 1
            if self.stopped:
                return
        for row in range(rights):
            if not matcher.taken[row]:
                self.sort(-1, row)
        self.complete = True

    def sort(self, left: int, right: int) -> None:
        """Put one pair where it belongs; -1 is no line."""
        for kind in ("all", self.kind(left, right)):
            lefts, rights = self.pairs[kind]
            lefts.append(left if left >= 0 else NONE)
            rights.append(right if right >= 0 else NONE)

    def kind(self, left: int, right: int) -> str:
        """Tell how the two sides of a pair differ."""
        if right < 0:
            return "left"
        if left < 0:
            return "right"
        one, other = self.left.rows, self.right.rows
        was, now = one.state[left] == State.DONE, other.state[right] == State.DONE
        if was != now:
            return "better" if now else "worse"
        same = one.state[left] == other.state[right] and one.answer[left] == other.answer[right]
        return "same" if same else "differ"

    def slice(self, kind: str, start: int, count: int) -> list[tuple[int | None, int | None]]:
        """Return some pairs of rows."""
        lefts, rights = self.pairs[kind]
        end = start + count
        return [
            (None if left == NONE else left, None if right == NONE else right)
            for left, right in zip(lefts[start:end], rights[start:end], strict=False)
        ]

    def counts(self) -> dict[str, int]:
        """Return how many pairs there are of each kind."""
        return {kind: len(rights) for kind, (_, rights) in self.pairs.items()}


class Pairings:
    """The one pairing in use, made anew in the background when its outputs have grown."""

    def __init__(self) -> None:
        self.current: Pairing | None = None
        self.lock = threading.Lock()

    def get(self, left: Index, right: Index) -> Pairing:
        """Return the pairing of two outputs; while it is made it is shown as far as it goes."""
        with self.lock:
            known = self.current
            asked = known is not None and known.left is left and known.right is right
            if known and asked and (known.is_current(left, right) or not known.complete):
                return known
            self.close()
            fresh = self.current = Pairing(left, right)
        worker = threading.Thread(target=fresh.run, name="pairing", daemon=True)
        worker.start()
        worker.join(timeout=0.05)
        return fresh

    def close(self) -> None:
        """Stop the one that is being made."""
        if self.current is not None:
            self.current.stopped = True
