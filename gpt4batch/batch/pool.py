"""A fixed number of workers that pull items as they become free."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")


async def run_pool(work: Callable[[T], Awaitable[None]], items: Iterator[T], size: int) -> None:
    """Work on every item, `size` at a time; an item is drawn only when a worker is free for it.

    The workers share the iterator itself: on one event loop that is a queue without a buffer, and
    costs nothing an item.
    """

    async def worker() -> None:
        for item in items:
            await work(item)

    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.start_soon(worker)
