"""A number of places to work at; who waits for something else lends the place meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.abc import TaskGroup


class Pool:
    """Work on items, so many at a time; an item is drawn only when there is a place for it.

    The workers share the iterator itself: on one event loop that is a queue without a buffer, and
    costs nothing an item.

    Args:
        most_lent: How many places may be lent at the same time; the next one is kept.
    """

    def __init__(self, most_lent: int) -> None:
        self._most_lent = most_lent
        self._lent: set[int] = set()
        self._workers = 0
        self._size: int
        self._places: anyio.Semaphore
        self._group: TaskGroup
        self._items: Iterator[int]
        self._work: Callable[[int], Awaitable[None]]

    async def run(
        self, work: Callable[[int], Awaitable[None]], items: Iterator[int], size: int
    ) -> None:
        """Work on every item, `size` at a time."""
        self._work, self._items, self._size = work, items, size
        self._places = anyio.Semaphore(size, fast_acquire=True)
        async with anyio.create_task_group() as self._group:
            for _ in range(self._size):
                self._hire()

    def lend(self, item: int) -> None:
        """Let another item have the place of this one, unless too many have been lent."""
        if item not in self._lent and len(self._lent) < self._most_lent:
            self._lent.add(item)
            self._places.release()
            self._hire()

    async def take_back(self, item: int) -> None:
        """Wait for a place where the item has lent its own."""
        if item in self._lent:
            await self._places.acquire()
            self._lent.discard(item)

    def _hire(self) -> None:
        self._workers += 1
        self._group.start_soon(self._worker)

    async def _worker(self) -> None:
        # One more worker comes for each place that is lent; one leaves when it is taken back.
        while self._workers <= self._size + len(self._lent):
            await self._places.acquire()
            item = None
            try:
                item = next(self._items, None)
                if item is None:
                    break
                await self._work(item)
            finally:
                # The place of an item that is finished goes to the next one.
                if item in self._lent:
                    self._lent.discard(item)
                else:
                    self._places.release()
        self._workers -= 1
