"""One run of the program under test, in a process of its own that may end at any step."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from simulation.disk import Disk, Durable
from simulation.loop import VirtualLoop
from simulation.plan import RunPlan
from simulation.service import CHAT, TOKEN, UPLOAD, Service, State

LONGEST = 200_000
"""Rounds of the loop after which a run counts as one that never ends."""


@dataclass(slots=True)
class Ended:
    """How a run ended, as seen from outside, and what outlives it."""

    state: State
    durable: Durable
    how: str
    """`returned`, `refused`, `killed`, `endless` or `crashed`."""
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    stderr: bytes = b""
    rounds: int = 0
    operations: int = 0
    seconds: float = 0.0


def run(folder: Path, plan: RunPlan, state: State, seed: int, *, fix: bool) -> Ended:
    """Run the program once in a child process and return what came of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        code = 1
        try:
            _Child(folder, plan, state, seed, send, fix=fix).live()
            code = 0
        except BaseException:
            logging.exception("a defect of the simulation")
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"the run told nothing; status {status}")
    ended: Ended = pickle.loads(told)
    ended.stderr = (folder.parent / "stderr").read_bytes()
    return ended


class _Child:
    def __init__(
        self, folder: Path, plan: RunPlan, state: State, seed: int, send: int, *, fix: bool
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._send = send
        self._seed = seed
        self._fix = fix
        self._rounds = 0
        self._service = Service(state, plan.weather, seed)
        torn = random.Random(seed)
        self._disk = Disk(
            folder,
            plan.trouble,
            die_at=plan.die_at_write,
            torn=torn,
            end=lambda: self._end("killed"),
        )

    def live(self) -> None:
        """Run the program; this process ends in here."""
        sys.stderr.flush()
        log = os.open(self._folder.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 2)
        logging.disable(logging.CRITICAL)
        random.seed(self._seed)
        self._loop = VirtualLoop(self._step)
        import asyncio

        asyncio.set_event_loop(self._loop)
        os.chdir(self._folder)
        self._disk.install()
        try:
            summary = self._loop.run_until_complete(self._program())
        except Exception as error:
            from gpt4batch.errors import Gpt4BatchError

            known = isinstance(error, Gpt4BatchError)
            if not known:
                import traceback

                traceback.print_exc()
            self._end("refused" if known else "crashed", error=repr(error))
        else:
            self._end("returned", summary)

    def _step(self, _now: float) -> None:
        self._rounds += 1
        if self._rounds == self._plan.die_at_round:
            self._end("killed")
        if self._rounds > LONGEST:
            self._end("endless")

    def _end(self, how: str, summary: dict[str, Any] | None = None, error: str = "") -> None:
        """Tell what outlives this process, and end it as a kill does: nothing else runs."""
        ended = Ended(
            self._service.state,
            self._disk.durable,
            how,
            summary or {},
            error,
            rounds=self._rounds,
            operations=self._disk.operations,
            seconds=self._loop.time(),
        )
        sys.stderr.flush()
        with os.fdopen(self._send, "wb") as pipe:
            pickle.dump(ended, pipe)
        os._exit(0)

    async def _program(self) -> dict[str, Any]:
        import gpt4batch
        from simulation import seam

        flags = dict(self._plan.flags)
        os.environ["GPT4BATCH_EMAIL"] = "sim@example.org"
        os.environ["GPT4BATCH_PASSWORD"] = "secret-of-the-simulation"
        settings = gpt4batch.Settings(
            input="in.jsonl",
            out="out.jsonl",
            fix=self._fix,
            url=CHAT,
            upload_url=UPLOAD,
            token=f"token-{self._service.state.token:06d}",
            download_dir="downloads",
            allow_private_downloads=True,
            **flags,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._disturb)
            summary = await seam.run(settings, self._service, self._loop, TOKEN)
            tasks.cancel_scope.cancel()
        from dataclasses import asdict

        return asdict(summary)

    async def _disturb(self) -> None:
        """Send the signals of the plan, and stop the process for a while."""
        events = [(at, "signal", number) for at, number in self._plan.signals]
        events += [(at, "pause", seconds) for at, seconds in self._plan.pauses]
        for at, kind, value in sorted(events):
            await anyio.sleep(max(0.0, at - anyio.current_time()))
            if kind == "signal":
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(int(value))
            else:
                self._loop.pause(value)
