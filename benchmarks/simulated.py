"""Many workers of a fleet in one process, whose calls are a sleep: for the costs around the calls.

python -m benchmarks.simulated ADDRESS WORKERS PLACES SECONDS
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import anyio
import uvloop

from gpt4batch.fleet.desk import Desk
from gpt4batch.fleet.messages import Hello
from gpt4batch.fleet.worker import Worker
from gpt4batch.lines.parse import Line
from gpt4batch.service.conversation import Outcome
from gpt4batch.service.counters import CallStats
from gpt4batch.settings import WorkerSettings

ANSWER = b'{"contents":[{"message":{"content":{"parts":["' + b"answer " * 50 + b'"]}}}]}'


class Pretended:
    """Holds conversations with nobody."""

    def __init__(self, desk: Desk, seconds: float) -> None:
        self._desk = desk
        self._seconds = seconds

    async def hold(self, line: Line) -> Outcome:
        outcome = Outcome(line, [])
        permits = self._desk.permits
        for _ in line.asks:
            await permits.wait(new=True)
            permits.spend()
            try:
                await anyio.sleep(self._seconds)
            finally:
                permits.speed_up()
                permits.done()
            outcome.answers.append(ANSWER)
            outcome.timings.append({"seconds": self._seconds, "attempts": 1})
        return outcome

    def stats(self) -> CallStats:
        return CallStats()


class Simulated(Worker):
    """A worker whose calls take no network."""

    seconds = 1.0

    def conversation(self, desk: Desk, _hello: Hello, _root: Path) -> Any:
        return Pretended(desk, self.seconds)


async def main(address: str, workers: int, places: int) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(workers):
            settings = WorkerSettings(
                name=f"w{number}", nsqd_tcp_address=address, goroutine=places, token="x"
            )
            tasks.start_soon(Simulated(settings).run)
            await anyio.sleep(0.002)
        print("is ready", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Simulated.seconds = float(sys.argv[4])
    uvloop.install()
    anyio.run(
        main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), backend_options={"use_uvloop": True}
    )
