from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from gpt4batch.batch.pool import Pool


class Crew:
    """Items at work: each one waits until it is told to go on."""

    def __init__(self, most_lent: int) -> None:
        self.pool = Pool(most_lent)
        self.begun: list[int] = []
        self.back: list[int] = []
        self.ended: list[int] = []
        self.files = anyio.Event()
        self.answers = anyio.Event()

    async def fetch(self, item: int) -> None:
        """Lend the place while files come, and end without it."""
        self.begun.append(item)
        self.pool.lend(item)
        self.pool.lend(item)
        await self.files.wait()
        self.ended.append(item)

    async def fetch_and_ask(self, item: int) -> None:
        """Lend the place while files come, and take it back."""
        self.begun.append(item)
        self.pool.lend(item)
        await self.files.wait()
        await self.pool.take_back(item)
        self.back.append(item)
        await self.answers.wait()
        self.ended.append(item)


async def test_place_that_is_lent_is_another_items_until_too_many_are_lent() -> None:
    crew = Crew(most_lent=3)
    async with anyio.create_task_group() as group:
        group.start_soon(crew.pool.run, crew.fetch, iter(range(20)), 2)
        await anyio.wait_all_tasks_blocked()
        assert crew.begun == [0, 1, 2, 3, 4]  # three that lend their places and two that keep them
        crew.files.set()
    assert sorted(crew.ended) == list(range(20))


async def test_places_that_are_taken_back_are_never_more_than_there_are() -> None:
    crew = Crew(most_lent=50)
    async with anyio.create_task_group() as group:
        group.start_soon(crew.pool.run, crew.fetch_and_ask, iter(range(10)), 2)
        await anyio.wait_all_tasks_blocked()
        assert len(crew.begun) == 10
        crew.files.set()
        await anyio.wait_all_tasks_blocked()
        assert len(crew.back) == 2
        crew.answers.set()
    assert sorted(crew.ended) == list(range(10))


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_items_that_lend_nothing_are_worked_on_by_as_many_as_there_are_places(
    size: int,
) -> None:
    pool, most, at_work = Pool(8), 0, 0

    async def work(item: int) -> None:
        nonlocal most, at_work
        at_work += 1
        most = max(most, at_work)
        await anyio.lowlevel.checkpoint()
        at_work -= 1

    await pool.run(work, iter(range(100)), size)
    assert most == size


async def test_item_that_ends_in_an_error_ends_the_pool() -> None:
    async def work(item: int) -> None:
        raise RuntimeError(item)

    with pytest.raises(ExceptionGroup):
        await Pool(1).run(work, iter(range(3)), 1)
