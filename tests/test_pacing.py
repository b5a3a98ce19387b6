from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.control import Control, Stopped
from gpt4batch.lines import rawjson
from gpt4batch.service.pacing import LONGEST_LAG, Pacer, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]

ANSWER = {"contents": [{"message": {"id": "m"}}], "conversation_id": "c", "message_id": "m"}


@pytest.mark.parametrize(("rate", "calls"), [(5.0, 8), (40.0, 80), (200.0, 300)])
async def test_rate_at_the_service_is_neither_exceeded_nor_left_unused(
    bench: Bench, service: MockService, rate: float, calls: int
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(calls)])
    summary = await bench.run(service.origin, qps=rate, goroutine=60)
    assert summary.done == calls
    seen = service.stats.to_dict()
    # Calls that left apart arrive together where service and run are held up in between.
    assert seen["worst_window"] <= rate * 1.05 + 1
    ideal = (calls - 1) / rate
    # Shared processors may hold a run up, by much at times. They make it faster by no more than
    # what it may lag behind its schedule at the start, and then makes up for.
    assert (ideal - LONGEST_LAG) * 0.97 <= seen["seconds"] <= ideal * 1.1 + 0.5


async def test_uploads_and_retries_count_as_calls(bench: Bench, serving: Serving) -> None:
    (bench.folder / "a.txt").write_bytes(b"a")
    lines = [bench.line(number, f"ask {number} [[mock:503*1]]") for number in range(4)]
    for line in lines:
        line["asks"][0]["files"] = ["a.txt"]
    bench.write(*lines)
    async with serving() as service:
        await bench.run(service.origin, qps=10.0)
        seen = service.stats.to_dict()
    assert seen["arrivals"] == 12
    assert seen["worst_window"] <= 11
    assert seen["seconds"] >= 1.0


async def test_no_rate_is_no_limit(bench: Bench, service: MockService) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(300)])
    await bench.run(service.origin, qps=0.0)
    assert service.stats.to_dict()["worst_window"] > 100


async def test_lower_rate_set_during_a_run_is_kept() -> None:
    pacer = Pacer(1000.0, Control())
    await pacer.wait()
    pacer.set_rate(100.0)
    moments = [await pacer.wait() for _ in range(21)]
    assert moments[-1] - moments[0] >= 20 / 100 * 0.9


async def test_rate_of_nothing_set_during_a_run_is_no_limit() -> None:
    pacer = Pacer(2.0, Control())
    await pacer.wait()
    pacer.set_rate(0)
    with anyio.fail_after(5):
        for _ in range(100):
            await pacer.wait()
            pacer.speed_up()
    assert pacer.pace == 0


async def test_rate_set_on_an_unlimited_run_is_kept() -> None:
    pacer = Pacer(0, Control())
    await pacer.wait()
    pacer.set_rate(100.0)
    moments = [await pacer.wait() for _ in range(21)]
    assert moments[-1] - moments[0] >= 20 / 100 * 0.9


@pytest.mark.parametrize("rate", [80.0, 0.0])
async def test_new_rate_forgets_neither_a_429_nor_the_wait_it_asked_for(rate: float) -> None:
    pacer = Pacer(100.0, Control())
    sent = [await pacer.wait() for _ in range(3)]
    pacer.slow_down(sent[-1], 30.0)
    slowed = pacer.pace
    pacer.set_rate(rate)
    assert slowed < 80
    assert pacer.pace == slowed
    assert pacer.cooling > 20


async def test_call_that_waits_for_its_turn_follows_a_new_rate() -> None:
    pacer = Pacer(0.01, Control())
    await pacer.wait()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(pacer.wait)
            await anyio.wait_all_tasks_blocked()
            pacer.set_rate(0)


async def test_short_pause_makes_no_later_call_late() -> None:
    pacer = Pacer(100.0, Control())
    moments = []
    for number in range(41):
        moments.append(await pacer.wait())
        if number == 10:
            time.sleep(0.1)  # the whole process is held up
    assert moments[-1] - moments[0] < 0.4 + 0.09


async def test_what_a_long_pause_missed_is_not_made_up_for() -> None:
    pacer = Pacer(100.0, Control())
    for _ in range(10):
        await pacer.wait()
    time.sleep(0.5)  # the whole process is suspended
    moments = [await pacer.wait() for _ in range(21)]
    assert moments[-1] - moments[0] >= 0.19


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.3)), min_size=60, max_size=200))
def test_turn_of_a_call_that_did_not_leave_goes_to_another(calls: list[tuple[bool, float]]) -> None:
    schedule, now, left = Schedule(20), 100.0, []
    unused: list[tuple[float, float]] = []
    for leaves, after in calls:
        now = max(now, schedule.turn(20))
        schedule.leave(now, 20)
        if leaves:
            left.append(now)
        else:
            unused.append((now + after, now))
        for told in [told for told in unused if told[0] <= now]:
            unused.remove(told)
            schedule.unused(told[1], 20)
    for moment in left:
        assert sum(moment <= other < moment + 1 for other in left) <= 20 * 1.02 + 1


def test_call_that_did_not_leave_costs_no_time() -> None:
    schedule, now, left = Schedule(20), 100.0, 0
    begun = now
    while left < 200:
        now = max(now, schedule.turn(20))
        schedule.leave(now, 20)
        if round(now * 7) % 10 == 0:
            schedule.unused(now, 20)
        else:
            left += 1
    assert now - begun <= 200 / 20 * 1.05  # one call in ten did not leave


async def test_wait_ends_when_the_run_is_halted() -> None:
    control = Control()
    pacer = Pacer(0.01, control)
    await pacer.wait()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(_expect_stopped, pacer)
            await anyio.wait_all_tasks_blocked()
            control.halt()
    with pytest.raises(Stopped):
        await pacer.wait()


async def _expect_stopped(pacer: Pacer) -> None:
    with pytest.raises(Stopped):
        await pacer.wait()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_holds_every_worker(bench: Bench, serving: Serving, form: str) -> None:
    lines = [bench.line(number, f"ask {number}") for number in range(20)]
    lines[0] = bench.line(0, "ask 0 [[mock:rate-limit*1]]")
    bench.write(*lines)
    async with serving(retry_after=1.0, retry_after_date=form == "date") as service:
        summary = await bench.run(service.origin, qps=50.0, goroutine=2)
        assert summary.done == 20
        assert service.stats.calls["/standard/all-tools", 429] == 1
        assert service.stats.to_dict()["seconds"] >= (1.0 if form == "seconds" else 0.1)


async def test_newest_retry_after_is_the_one_obeyed() -> None:
    pacer = Pacer(0, Control())
    sent = await pacer.wait()
    pacer.slow_down(sent, 60.0)
    pacer.slow_down(sent, 1.0)
    assert 0.5 < pacer.cooling <= 1.0


async def test_calls_held_by_retry_after_leave_only_when_it_is_over(
    bench: Bench, scripted: Any
) -> None:
    moments: list[float] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        moments.append(time.monotonic())
        if len(moments) == 1:
            return web.Response(status=429, headers={"Retry-After": "0.5"})
        return web.json_response(ANSWER)

    bench.write(*[bench.line(number, f"ask {number}") for number in range(6)])
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, qps=100.0, goroutine=1)
    assert summary.done == 6
    assert moments[1] - moments[0] >= 0.5


async def test_service_with_a_lower_limit_is_met_without_failing_a_line(
    bench: Bench, serving: Serving
) -> None:
    """Waiting is not trying: with one retry each, a limit that is often met fails nothing."""
    bench.write(*[bench.line(number, f"ask {number}") for number in range(60)])
    async with serving(limit_qps=30.0, retry_after=0.2) as service:
        summary = await bench.run(service.origin, qps=60.0, goroutine=20, retries=8)
        refused = service.stats.calls["/standard/all-tools", 429]
    assert (summary.done, summary.failed) == (60, 0)
    assert 0 < refused < 60


async def test_waiting_for_the_turn_is_never_counted_as_trying(
    bench: Bench, service: MockService
) -> None:
    """A call that waits for its turn longer than --timeout has not timed out."""
    bench.write(*[bench.line(number, f"ask {number}") for number in range(8)])
    summary = await bench.run(service.origin, qps=10.0, timeout=0.3, retries=0)
    assert (summary.done, summary.failed) == (8, 0)
    assert all(line["meta"]["asks"][0]["attempts"] == 1 for line in bench.read())
    assert max(line["meta"]["asks"][0]["seconds"] for line in bench.read()) < 0.3


async def test_5xx_slows_only_its_own_line(bench: Bench, scripted: Any) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(rawjson.loads(await request.read())["message"])
        if asked == ["bad"]:
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.json_response(ANSWER)

    bench.write(*[bench.line(message, message) for message in ("bad", *"abcdefghijkl")])
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, qps=100.0, goroutine=2)
    assert (summary.done, summary.retries) == (13, 1)
    assert asked == ["bad", *"abcdefghijkl", "bad"]
