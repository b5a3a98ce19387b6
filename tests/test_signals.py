"""A terminal that is closed, a process that is stopped and goes on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import COMMAND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Until = Callable[[Callable[[], Any]], Awaitable[None]]
    Serving = Callable[..., MockService]


def lines(bench: Bench, count: int) -> None:
    bench.write(*(bench.line(number, f"question {number}") for number in range(count)))


def answered(bench: Bench) -> int:
    return sum(line["answers"] is not None for line in bench.read())


async def test_hangup_lets_answers_in_flight_arrive_and_orders_the_output(
    bench: Bench, serving: Serving, until: Until
) -> None:
    lines(bench, 8)
    async with serving(latency=0.5, jitter=0.0) as service:
        async with bench.start(*bench.batchsvc(service.origin, "-g", "3")) as running:
            await until(lambda: service.stats.arrivals == 3)
            running.process.send_signal(signal.SIGHUP)
            running.process.send_signal(signal.SIGHUP)
            result = await running.end()
        assert result.code == 129, result.err
        assert "SIGHUP" in result.err
        assert answered(bench) == service.stats.arrivals == 3
        assert [line["id"] for line in bench.read()] == list(range(8))


async def test_hangup_that_is_ignored_stops_nothing(
    bench: Bench, serving: Serving, until: Until
) -> None:
    lines(bench, 4)
    async with serving(latency=0.2, jitter=0.0) as service:
        command = ["nohup", *COMMAND, *bench.batchsvc(service.origin, "-g", "2")]
        async with await anyio.open_process(command, cwd=bench.folder) as process:
            await until(lambda: service.stats.arrivals)
            process.send_signal(signal.SIGHUP)
            with anyio.fail_after(60):
                assert await process.wait() == 0
    assert answered(bench) == 4


@pytest.mark.parametrize("quiet", [True, False])
async def test_terminal_that_is_closed_loses_no_answer(
    bench: Bench, serving: Serving, until: Until, quiet: bool
) -> None:
    lines(bench, 8)
    ours, theirs = pty.openpty()
    async with serving(latency=0.5, jitter=0.0) as service:
        words = bench.batchsvc(service.origin, "-g", "3", *(["--quiet"] if quiet else []))
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *COMMAND, *words],
            cwd=bench.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        await until(lambda: service.stats.arrivals == 3)
        os.close(ours)  # the kernel sends SIGHUP, and every write fails with EIO from here on
        await until(lambda: process.poll() is not None)
    assert answered(bench) == service.stats.arrivals == 3
    assert process.returncode == 129


@pytest.mark.parametrize("uvloop", [True, False])
async def test_grace_does_not_pass_while_the_process_is_stopped(
    bench: Bench, serving: Serving, until: Until, uvloop: bool
) -> None:
    env = {} if uvloop else {"PYTHONPATH": str(bench.folder)}
    (bench.folder / "sitecustomize.py").write_text("import sys; sys.modules['uvloop'] = None")
    lines(bench, 6)
    async with serving(latency=1.0, jitter=0.0) as service:
        words = bench.batchsvc(service.origin, "-g", "3", "--grace", "2")
        async with bench.start(*words, env=env) as running:
            await until(lambda: service.stats.arrivals == 3)
            running.process.send_signal(signal.SIGTERM)
            await running.says("no new lines")
            running.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await until(lambda: time.monotonic() - stopped > 3.2)
            running.process.send_signal(signal.SIGCONT)
            result = await running.end()
        assert result.code == 143
        assert answered(bench) == service.stats.arrivals == 3, result.err


async def test_grace_that_is_over_gives_up_what_is_in_flight(
    bench: Bench, serving: Serving, until: Until
) -> None:
    lines(bench, 2)
    words = ("--grace", "0.3")
    async with (
        serving(latency=60.0, jitter=0.0) as service,
        bench.start(*bench.batchsvc(service.origin, *words)) as running,
    ):
        await until(lambda: service.stats.arrivals == 2)
        running.process.send_signal(signal.SIGTERM)
        result = await running.end()
    assert result.code == 143
    assert answered(bench) == 0
