from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from gpt4batch.errors import RetryableError, ServerError
from gpt4batch.service.retry import backoff, delay_after, retry_after, retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (10_000, 60)]
)
def test_backoff_is_a_random_share_of_a_doubling_time(attempt: int, longest: float) -> None:
    assert backoff(attempt, lambda: 1.0) == longest
    assert backoff(attempt, lambda: 0.0) == 0
    assert backoff(attempt, lambda: 0.25) == longest / 4
    assert len({backoff(attempt) for _ in range(10)}) > 1


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Wed, 04 Mar 2026 06:06:17 +0100", 10),
        (f"{NOW.timestamp() + 40:.0f}", 40),
        (f"{(NOW.timestamp() + 40) * 1000:.0f}", 40),
        (f"{NOW.timestamp() - 40:.0f}", 0),
        ("Wednesday, 04-Mar-26 05:06:17 GMT", 10),
        ("Wed Mar  4 05:06:17 2026", 10),
        ("2s", 2),
        ("2 seconds", 2),
        ("1m30s", 90),
        ("1, 3", 3),
        ("2026-03-04T05:06:17Z", 10),
        ("soon", None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("99999999999999999999999 Mar", None),
        ("Wed, 99 Mar 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(value: str, wanted: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == wanted


def test_no_retry_after_is_none() -> None:
    assert retry_after({}) is None


@pytest.mark.parametrize(
    "kind", ["reset", "cut", "garbage", "error", "408", "409", "425", "500", "502", "503", "504"]
)
async def test_passing_failure_is_tried_again(
    bench: Bench, service: MockService, kind: str
) -> None:
    bench.write(bench.line(1, f"one [[mock:{kind}*1]]"))
    summary = await bench.run(service.origin)
    assert (summary.done, summary.retries, summary.chats) == (1, 1, 2)
    assert bench.read()[0]["meta"]["asks"][0]["attempts"] == 2


async def test_hanging_call_is_given_up_after_the_timeout_and_tried_again(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one [[mock:hang*1]]"))
    summary = await bench.run(service.origin, timeout=0.1)
    assert (summary.done, summary.retries) == (1, 1)


@pytest.mark.parametrize("retries", [0, 2])
async def test_failure_that_stays_fails_the_line_after_the_retries(
    bench: Bench, service: MockService, retries: int
) -> None:
    bench.write(bench.line(1, "one [[mock:503]]"), bench.line(2, "two"))
    summary = await bench.run(service.origin, retries=retries)
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 1)
    error = bench.read()[0]["iErr"]
    assert (error["code"], error["stage"], error["attempts"]) == (503, "chat", retries + 1)
    assert "503 Service Unavailable" in error["message"]
    assert service.stats.calls["/standard/all-tools", 503] == retries + 1


async def test_lost_connection_has_code_501_and_says_what_happened(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one [[mock:reset]]"), bench.line(2, "two [[mock:hang]]"))
    await bench.run(service.origin, retries=0, timeout=0.2)
    reset, hang = (line["iErr"] for line in bench.read())
    assert (reset["code"], hang["code"]) == (501, 501)
    assert reset["message"]
    assert "0.2 s" in hang["message"]


async def test_service_that_is_not_there_fails_lines_with_the_address(bench: Bench) -> None:
    bench.write(bench.line(1, "one"))
    summary = await bench.run("http://127.0.0.1:9", retries=0)
    assert summary.exit_code == 1
    error = bench.read()[0]["iErr"]
    assert error["code"] == 501
    assert "127.0.0.1:9" in error["message"]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 418, 422])
async def test_refusal_fails_the_line_at_once(
    bench: Bench, service: MockService, status: int
) -> None:
    bench.write(bench.line(1, f"one [[mock:{status}]]"), bench.line(2, "two"))
    summary = await bench.run(service.origin)
    assert (summary.done, summary.failed, summary.retries) == (1, 1, 0)
    error = bench.read()[0]["iErr"]
    assert (error["code"], error["attempts"]) == (status, 1)
    assert "the mock service fails on purpose" in error["message"]


async def test_attempts_of_an_upload_are_retried_too(bench: Bench, service: MockService) -> None:
    (bench.folder / "a[[mock:503*1]].txt").write_bytes(b"a" * 100_000)
    line = bench.line(1, "one")
    line["asks"][0]["files"] = ["a[[mock:503*1]].txt"]
    bench.write(line)
    summary = await bench.run(service.origin)
    assert (summary.done, summary.retries) == (1, 1)
    assert service.stats.uploads_answered == 1


@pytest.mark.parametrize("when", ["seconds", "date"])
async def test_retry_after_beyond_five_minutes_fails_the_line(
    bench: Bench, serving: Serving, when: str
) -> None:
    bench.write(bench.line(1, "one [[mock:rate-limit]]"), bench.line(2, "two"))
    async with serving(retry_after=400, retry_after_date=when == "date") as service:
        summary = await bench.run(service.origin)
        assert service.stats.calls["/standard/all-tools", 429] == 1
    assert (summary.done, summary.failed) == (1, 1)
    error = bench.read()[0]["iErr"]
    assert error["code"] == 429
    assert "429" in error["message"]
    assert "300" in error["message"]


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_a_moment_counts_from_the_date_of_its_own_reply(name: str) -> None:
    stamp = str(int((NOW.timestamp() + 50) * 1000))
    headers = {name: stamp, "date": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}
    assert retry_after(headers, NOW - timedelta(hours=3)) == 20


def test_wait_in_milliseconds_comes_before_the_one_in_seconds() -> None:
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after-ms": "0", "retry-after": "9"}) == 0


def failing(after: float | None) -> ServerError:
    return ServerError("down", code=503, after=after)


@pytest.mark.parametrize("after", [None, 0.0, 0.25])
def test_wait_below_the_back_off_does_not_replace_it(after: float | None) -> None:
    found = [delay_after(failing(after), attempt, lambda: 0.5) for attempt in (1, 2, 5)]
    assert found == [0.5, 1, 8]


def test_wait_above_the_back_off_replaces_it() -> None:
    assert delay_after(failing(299.5), 1) == 299.5


async def test_newest_retry_after_wins() -> None:
    """A call that is told to wait, then to wait less, waits less."""
    waits, asked = [], [200.0, 70.0]

    async def call(_number: int) -> str:
        if asked:
            raise failing(asked.pop(0))
        return "done"

    async def pause(_error: RetryableError, delay: float) -> None:
        waits.append(delay)

    assert await retrying(call, 5, pause) == "done"
    assert waits == [200, 70]
