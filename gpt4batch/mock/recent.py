"""A mapping of bounded size that forgets what was put into it long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remember at least the last `size` keys that were put, and at most twice as many.

    Two generations instead of an order of use: a put costs no more than in a plain dict.
    """

    def __init__(self, size: int) -> None:
        self._size = max(size, 1)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None when it was never put or is forgotten."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        self._young[key] = value
        if len(self._young) >= self._size:
            self._young, self._old = {}, self._young

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield what is remembered, the oldest first."""
        for key, value in self._old.items():
            if key not in self._young:
                yield key, value
        yield from self._young.items()

    def __len__(self) -> int:
        return len(self._young) + sum(key not in self._young for key in self._old)


def count(counts: Recent[bytes, int], key: bytes) -> int:
    """Count one more of a key and return how many there were before."""
    before = counts.get(key) or 0
    counts.put(key, before + 1)
    return before
