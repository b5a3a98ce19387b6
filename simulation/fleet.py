"""A history of a fleet: a coordinator, workers and a broker in one loop, each of which may fail."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from gpt4batch import Settings, Summary
from gpt4batch.api import run as run_batch
from gpt4batch.clock import Clock
from gpt4batch.errors import Gpt4BatchError
from gpt4batch.fleet.topics import Topics
from gpt4batch.fleet.worker import Worker
from gpt4batch.settings import WorkerSettings
from simulation import seam
from simulation.actors import Actor, Guarded, GuardedFiles, is_alive
from simulation.apart import forked
from simulation.disk import Disk
from simulation.fleet_judge import FleetJudge
from simulation.fleet_plan import MACHINE, Event, FleetPlan, smaller_ones
from simulation.forms import GPT4API, input_line
from simulation.history import MEMORY
from simulation.judge import ATTACHED
from simulation.loop import VirtualLoop
from simulation.nsqd import Nsqd
from simulation.service import CHAT, UPLOAD, Service, State

LONGEST = 3000.0
"""Virtual seconds in which everything has to be done, once nothing fails any more."""
LIVES = 12
"""Coordinators of a batch."""


@dataclass(slots=True)
class Played:
    """What a history came to."""

    state: State
    exits: list[int] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    error: str = ""
    cuts: list[float] = field(default_factory=list)
    """When the coordinator's machine had no power, or was copied, in virtual seconds."""
    folder: str = ""
    """Where the last coordinator was, if not in the first one's place."""
    swept: bool = True
    """No worker was dead or cut off at the end, whose spool only a next one would send."""
    seconds: float = 0.0
    stderr: bytes = b""


class Scenario:
    """The child process in which a history is played.

    The coordinator has its files in the folder, the workers theirs on a machine of their own.
    """

    def __init__(self, folder: Path, plan: FleetPlan) -> None:
        self._folder = folder
        self._machine = folder.parent / MACHINE
        self._copy = folder.parent / "copy"
        self._plan = plan
        self._draw = random.Random(plan.seed)
        self._power = random.Random(plan.seed)
        self._loop = VirtualLoop(lambda _now: None)
        self._service = Service(State(), plan.weather, plan.seed)
        self._played = Played(self._service.state)
        self._nsqd = Nsqd(plan.ways, self._draw)
        self._workers: dict[int, tuple[Actor, Worker]] = {}
        self._coordinator = Actor("coordinator")
        self._over = False
        self._copied, self._copy_done = False, anyio.Event()

    def live(self) -> Played:
        """Play the history and return what it came to."""
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        logging.getLogger().handlers[0].addFilter(is_alive)
        random.seed(self._plan.seed)
        names = random.Random(self._plan.seed)
        setattr(random, "_urandom", names.randbytes)  # noqa: B010 - the names that `secrets` draws
        asyncio.set_event_loop(self._loop)
        os.chdir(self._folder)
        os.environ["HOME"] = str(self._folder.parent)
        seam.one_thread()
        self._disks = [Disk(self._folder), Disk(self._machine)]
        for disk in self._disks:
            disk.install()
        GuardedFiles((self._folder, self._machine, self._copy), self._draw).install()
        try:
            self._loop.run_until_complete(self._play())
        except Exception as error:
            logging.exception("the history ended by an error")
            self._played.error = repr(error)
        self._played.seconds = self._loop.time()
        return self._played

    async def _play(self) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(self._plan.workers):
                tasks.start_soon(self._keep_working, number)
            tasks.start_soon(self._disturb, tasks)
            with anyio.move_on_after(LONGEST) as limit:
                await self._coordinate(self._folder)
                if self._copied:
                    await self._copy_done.wait()
            if limit.cancelled_caught:
                self._played.error = "it does not end"
            self._over, now = True, self._loop.time() + 10
            await anyio.sleep(10)  # in which workers send what others left
            for _, worker in self._workers.values():
                worker.stop()
            with anyio.move_on_after(120):
                for actor, _ in list(self._workers.values()):
                    await actor.end()
            self._played.swept = not any(
                actor.dead or actor.cut_until > now for actor, _ in self._workers.values()
            )
            tasks.cancel_scope.cancel()

    @property
    def _place(self) -> Topics:
        clock = Clock(self._loop.time, lambda: seam.BEGINNING + int(self._loop.time() * 1e9))
        return Topics(("nsqd:4150",), (), "sim", self._nsqd.access(), clock)

    async def _coordinate_copy(self) -> None:
        await self._coordinate(self._copy)
        self._copy_done.set()

    async def _coordinate(self, folder: Path) -> None:
        """Run the batch, again and again, until a run ends by itself and nothing fails any more."""
        for life in range(LIVES):
            copy = folder == self._copy
            if self._copied and not copy:
                return  # the other one has the batch
            die_at = self._plan.dies_at[life] if life < len(self._plan.dies_at) else 0
            actor = self._coordinator = Actor("coordinator", die_at)
            summary = await actor.live(partial(self._run_batch, folder, fix=copy or life > 0))
            if summary is None:
                self._played.kills["coordinator"] += 1
                await anyio.sleep(self._draw.choice((0.0, 1.0, 30.0)))
                continue
            self._played.exits.append(summary["exit_code"])
            if self._is_settled(summary):
                return
            await anyio.sleep(1.0)
        self._played.error = f"{LIVES} coordinators were not enough: {self._played.exits}"

    def _is_settled(self, summary: dict[str, Any]) -> bool:
        rejects = sum(
            any(ask["content"].startswith("reject") for ask in line["asks"])
            for line in self._plan.lines
        )
        return not summary["not_run"] and summary["failed"] <= rejects

    async def _run_batch(self, folder: Path, *, fix: bool) -> dict[str, Any]:
        settings = Settings(
            input=str(folder / "in.jsonl"),
            out=str(folder / "out.jsonl"),
            fix=fix,
            fleet=True,
            qps=self._plan.rate,
            lease=self._plan.lease,
            retries=self._plan.retries,
            max_consecutive_failures=0,
            skip_bad_results=True,
        )
        place = self._place
        while True:
            try:
                return asdict(
                    await run_batch(settings, place=place, clock=place.clock, ended=self._hear)
                )
            except Gpt4BatchError as error:
                if self._nsqd.up and "nsqd" not in str(error):
                    raise
                await anyio.sleep(1.0)  # nsqd is away, or was a moment ago: as a user would

    def _hear(self, summary: Summary) -> None:
        """Note what the program says at its end, also where it is killed right after."""
        self._played.summaries.append(asdict(summary))

    async def _keep_working(self, number: int) -> None:
        """Run a worker, and another one in its place when it has ended."""
        die_at, lives = self._plan.worker_dies_at if number == 0 else 0, 0
        while not self._over:
            name = f"w{number}" if self._draw.random() < 0.7 else f"w{number}-{lives}"
            lives += 1
            settings = WorkerSettings(
                name=name,
                url=CHAT,
                upload_url=UPLOAD,
                token=f"token-{self._service.state.token:06d}",
                goroutine=self._plan.places,
                spool_dir=str(self._machine / "spool"),
                files_root=str(self._folder),
                download_dir=str(self._machine / "downloads"),
                allow_private_downloads=True,
                grace=5.0,
            )
            worker = Worker(settings, place=self._place, transport=Guarded(self._service))
            actor = Actor(f"worker {number}", die_at)
            self._workers[number] = actor, worker
            die_at = 0
            await actor.live(partial(worker.run, signals=False))
            self._played.kills["worker"] += actor.dead
            await anyio.sleep(self._draw.choice((0.1, 1.0, 5.0)))

    async def _disturb(self, tasks: TaskGroup) -> None:
        for event in sorted(self._plan.events, key=lambda one: one.at):
            await anyio.sleep(max(0.0, event.at - anyio.current_time()))
            if event.kind in ("nsqd", "restart"):
                self._nsqd.fall(killed=event.kind == "nsqd")
                await anyio.sleep(event.seconds)
                self._nsqd.rise()
            elif event.kind == "coordinator copied":
                if not (self._copied or self._over):
                    self._begin_copy()
                    tasks.start_soon(self._coordinate_copy)
            elif "coordinator" in event.kind:
                self._disturb_coordinator(event)
            else:
                self._disturb_worker(event)

    def _begin_copy(self) -> None:
        """Copy the coordinator's folder while it runs, as somebody who thinks that it is dead."""
        shutil.copytree(self._folder, self._copy)
        self._copied, self._played.folder = True, str(self._copy)
        self._played.cuts.append(self._loop.time())  # what it grants from here on is noted there

    def _disturb_coordinator(self, event: Event) -> None:
        match event.kind:
            case "power coordinator" if not self._copied:
                self._played.cuts.append(self._loop.time())
                self._cut_power(0, self._coordinator)
            case "cut coordinator":
                self._nsqd.cut(self._coordinator, event.seconds)
            case _:
                self._coordinator.kill()

    def _disturb_worker(self, event: Event) -> None:
        actor, worker = self._workers[event.worker]
        match event.kind:
            case "worker":
                actor.kill()
            case "stop":
                worker.stop()
            case "power":
                self._cut_power(1, *(one for one, _ in self._workers.values()))
            case _:
                self._nsqd.cut(actor, event.seconds)

    def _cut_power(self, number: int, *actors: Actor) -> None:
        """End all that runs on a machine, and leave on its disk what a power cut would."""
        for actor in actors:
            actor.kill()
        self._disks[number].cut_power(self._power)


@dataclass(slots=True)
class Verdict:
    """What a history showed."""

    plan: FleetPlan
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0


def placed(root: Path, plan: FleetPlan) -> Path:
    """Make the folder of a history, with its input, and return it."""
    folder = root / "work"
    machine = root / MACHINE
    for path in (folder, machine, machine / "spool", machine / "downloads"):
        path.mkdir()
    for name, text in ATTACHED.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (0, 0))
    text = "".join(input_line(line, GPT4API) + "\n" for line in plan.lines)
    (folder / "in.jsonl").write_text(text, encoding="utf-8")
    return folder


def play(plan: FleetPlan) -> Verdict:
    """Play a history and judge it."""
    root = Path(tempfile.mkdtemp(prefix="fleet-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        folder = placed(root, plan)
        played = forked(Scenario(folder, plan).live, root / "stderr")
        played.stderr = (root / "stderr").read_bytes()
        judge = FleetJudge(Path(played.folder or folder), plan, played)
        judge.judge()
        faults = Counter({f"fleet: {event.kind}": 1 for event in plan.events})
        faults.update({f"fleet: {name} killed": count for name, count in played.kills.items()})
        runs = len(played.exits) + played.kills["coordinator"]
        return Verdict(plan, judge.broken, faults, runs)
    finally:
        shutil.rmtree(root)


def shrink(plan: FleetPlan) -> FleetPlan:
    """Return a smaller plan that breaks a promise still: fewer events, lines and workers."""
    smaller, broken = True, play(plan).broken
    while smaller:
        smaller = False
        for other in smaller_ones(plan):
            if _kind(play(other).broken) == _kind(broken):
                plan, smaller = other, True
                break
    return plan


def _kind(broken: list[str]) -> str:
    """Return what is the same of a broken promise in every smaller history."""
    return broken[0][:7] if broken else ""
