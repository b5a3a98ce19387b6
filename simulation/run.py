"""One run of the program under test, which may end at any step as a killed process does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import traceback
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from gpt4batch import Settings
from gpt4batch.errors import Gpt4BatchError, UsageError
from simulation import seam
from simulation.apart import leave, lived
from simulation.disk import Disk, Durable
from simulation.forms import GPT4API
from simulation.loop import VirtualLoop
from simulation.service import BASE, CHAT, TOKEN, UPLOAD, Service, State
from simulation.wire import Wire

if TYPE_CHECKING:
    from pathlib import Path

    from gpt4batch import Summary
    from simulation.plan import Plan, RunPlan

LONGEST = 200_000
"""Rounds of the loop after which a run counts as one that never ends."""
PASSWORD = "secret-of-the-simulation"


@dataclass(slots=True)
class Ended:
    """How a run ended, as seen from outside, and what outlives it."""

    state: State
    durable: Durable
    how: str
    """`returned`, `refused`, `killed`, `endless` or `crashed`."""
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    second: str = ""
    """What a second run of the same output came to."""
    stderr: bytes = b""
    lost: int = -1
    """Chats without a reply of which its summary told, also where it was killed right after it."""
    rounds: int = 0
    operations: int = 0
    seconds: float = 0.0


def run(folder: Path, history: Plan, plan: RunPlan, state: State, seed: int, *, fix: bool) -> Ended:
    """Run the program once and return what came of it."""
    log = folder.parent / "stderr"
    ended: Ended = lived(log, Child(folder, history, plan, state, seed, fix=fix).live)
    ended.stderr = log.read_bytes()
    return ended


class Child:
    """The process of one run."""

    def __init__(
        self,
        folder: Path,
        history: Plan,
        plan: RunPlan,
        state: State,
        seed: int,
        *,
        fix: bool,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._seed = seed
        self._fix = fix
        self._history = history
        self._rounds = 0
        self._lost = -1
        self._second = ""
        self._began = state.seconds
        self._service = Service(state, plan.weather, seed)
        self._disk = Disk(
            folder,
            plan.trouble,
            die_at=plan.die_at_write,
            torn=random.Random(seed),
            end=lambda: self._end("killed"),
        )

    def live(self) -> None:
        """Run the program; this life ends in here."""
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
        random.seed(self._seed)
        self._loop = VirtualLoop(self._step)
        asyncio.set_event_loop(self._loop)
        os.chdir(self._folder)
        os.environ["HOME"] = str(self._folder.parent)
        os.environ["GPT4BATCH_EMAIL"] = "sim@example.org"
        os.environ["GPT4BATCH_PASSWORD"] = PASSWORD
        os.environ["GPT4BATCH_TOKEN_URL"] = TOKEN
        seam.one_thread()
        self._disk.install()
        try:
            summary = self._loop.run_until_complete(self._program())
        except Gpt4BatchError as error:
            self._end("refused", error=repr(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            traceback.print_exc()
            self._end("crashed", error=repr(error))
        else:
            self._end("returned", summary)

    def _step(self, _now: float) -> None:
        self._rounds += 1
        if self._rounds == self._plan.die_at_round:
            self._end("killed")
        if self._rounds > LONGEST:
            self._end("endless")

    def _end(self, how: str, summary: dict[str, Any] | None = None, error: str = "") -> None:
        """Tell what outlives this life, and end it."""
        state = self._service.state
        state.seconds += self._loop.time() + 1.0
        ended = Ended(
            state,
            self._disk.durable,
            how,
            summary or {},
            error,
            self._second,
            lost=self._lost,
            rounds=self._rounds,
            operations=self._disk.operations,
            seconds=self._loop.time(),
        )
        leave(ended)

    async def _program(self) -> dict[str, Any]:
        where: dict[str, Any] = {"url": CHAT, "upload_url": UPLOAD}
        if self._history.spoken != GPT4API:
            where = {"url": BASE, "model": "m", "stream": self._history.streamed}
        settings = Settings(
            input="in.jsonl",
            out="out.jsonl",
            fix=self._fix,
            token=f"token-{self._service.state.token:06d}",
            download_dir="downloads",
            allow_private_downloads=True,
            skip_bad_results=True,
            **where,
            **self._plan.flags,
        )
        transport: httpx.AsyncBaseTransport = self._service
        if self._history.wired:
            transport = Wire(self._service, random.Random(self._seed), self._loop.time)
        refused: Gpt4BatchError | None = None
        summary: dict[str, Any] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._disturb)
            if self._plan.second_at:
                tasks.start_soon(self._run_second, settings)
            try:
                found = await seam.run(
                    settings, transport, self._loop, self._began, ended=self._hear
                )
                summary = asdict(found)
            except Gpt4BatchError as error:
                refused = error  # raised in here it would come out in a group
            tasks.cancel_scope.cancel()
        if refused is not None:
            raise refused
        return summary

    def _hear(self, summary: Summary) -> None:
        """Note what the program says at its end, also where it is killed right after."""
        self._lost = summary.unanswered + summary.killed_in_flight

    async def _run_second(self, settings: Settings) -> None:
        """Start another run of the same output, which has to be refused."""
        await anyio.sleep(self._plan.second_at)
        self._second = "was not refused"
        try:
            await seam.run(settings, self._service, self._loop, self._began, signals=False)
        except UsageError:
            self._second = "refused"

    async def _disturb(self) -> None:
        """Send the signals of the plan, stop the process for a while, set its time of day."""
        plan = self._plan
        events = [(at, "signal", float(number)) for at, number in plan.signals]
        events += [(at, "pause", seconds) for at, seconds in plan.pauses]
        events += [(at, "jump", seconds) for at, seconds in plan.jumps]
        for at, kind, value in sorted(events):
            await anyio.sleep(max(0.0, at - anyio.current_time()))
            if kind == "signal":
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.Signals(int(value)))
            elif kind == "pause":
                self._loop.pause(value)
            else:
                self._loop.set_wall(value)
