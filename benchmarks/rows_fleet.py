"""A fleet: lines a second as workers are added, on a service bound by latency."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import services
from benchmarks.bench import MB, Bench, Figure, row
from benchmarks.contenders import HERE
from benchmarks.measure import CommandError, environment
from benchmarks.services import Service

PLACES, LATENCY = 10, 1.0


@contextmanager
def process(words: list[str | Path], folder: Path, said: str, **more: str) -> Iterator[None]:
    """Run a command until the end of the block, begun when it has said that it is ready."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            words, stdout=log, stderr=log, cwd=folder, env=environment() | more
        )
    try:
        until = time.monotonic() + 20
        while said.encode() not in (folder / "log").read_bytes():
            if running.poll() is not None or time.monotonic() > until:
                raise CommandError((folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        yield
    finally:
        services.stop(running)


def nsqd() -> str:
    built = HERE.parent / ".tools" / "bin" / "nsqd"
    found = str(built) if built.exists() else shutil.which("nsqd")
    if found is None:
        raise CommandError("no nsqd in .tools/bin or on the PATH: `make nsqd` builds it")
    return found


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Run an nsqd, as docs/fleet.md has it, and give its address."""
    port, http = services.free_port(), services.free_port()
    words = [nsqd(), "--data-path=.", f"--tcp-address=127.0.0.1:{port}"]
    words += [f"--http-address=127.0.0.1:{http}", "--mem-queue-size=1", "--sync-every=1"]
    with process([*words], folder / "nsqd", "TCP: listening"):
        yield f"127.0.0.1:{port}"


@contextmanager
def gathered(bench: Bench, service: Service, workers: int, places: int) -> Iterator[str]:
    """Run an nsqd and workers, and give its address."""
    with bench.place() as folder, ExitStack() as stack:
        address = stack.enter_context(broker(folder))
        for number in range(workers):
            run: list[str | Path] = [bench.product.program, "worksvc", "--name", f"w{number}"]
            run += ["-g", str(places), "--token", "x", "-u", service.chat]
            run += ["--nsqd-tcp-address", address]
            stack.enter_context(process(run, folder / f"w{number}", "is ready"))
        yield address


def speed(bench: Bench, service: Service, workers: int, lines: int) -> float:
    """Return the lines a second that some workers bring."""
    source = bench.questions(lines)
    with gathered(bench, service, workers, PLACES) as address:
        service.reset()
        bench.batch(source, service, lines, "--fleet", "--nsqd-tcp-address", address)
        arrivals = sorted(service.arrivals())
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


@row("fleet")
def fleet(bench: Bench) -> Iterator[Figure]:
    """Lines a second of 1, 2 and 4 workers of 10 places, on answers that take 1 s."""
    each = 100 if bench.short else 400
    found: dict[int, float] = {}
    with services.target(latency=LATENCY) as service:
        for workers in (1, 2, 4):
            found[workers] = speed(bench, service, workers, each * workers)
            yield Figure("fleet", f"{workers} workers", found[workers], "lines/s")
    for workers in (2, 4):
        share = found[workers] / (workers * found[1])
        yield Figure("fleet", f"{workers} workers", share, "× linear", "fleet.linear")


@row("fleet.makespan")
def makespan(bench: Bench) -> Iterator[Figure]:
    """Wall time of two workers over that of one process, at a pace, in turn."""
    for qps in (50, 200):
        lines = qps * (5 if bench.short else 20)
        source = bench.questions(lines)
        with (
            services.target(latency=0.1) as service,
            gathered(bench, service, 2, qps // 4 + 10) as address,
        ):
            fleet = ("--fleet", "--nsqd-tcp-address", address)
            shares = [
                bench.batch(source, service, lines, *fleet, qps=qps).wall
                / bench.batch(source, service, lines, qps=qps).wall
                for _ in range(bench.rounds)
            ]
        yield Figure("fleet", f"-q {qps}", statistics.median(shares), "× alone", "fleet.makespan")


@row("fleet.scale")
def scale(bench: Bench) -> Iterator[Figure]:
    """Lines a second and CPU of the coordinator with many simulated workers, at -q 200."""
    lines = 1000 if bench.short else 3000
    source = bench.questions(lines)
    for workers, places in ((4, 60), (64, 30), (256, 10)):
        with (
            services.target() as service,
            bench.place() as folder,
            broker(folder) as address,
            process(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.simulated",
                    address,
                    str(workers),
                    str(places),
                    "1",
                ],
                folder / "workers",
                "is ready",
                PYTHONPATH=str(HERE.parent),
            ),
        ):
            flags = ("--fleet", "--nsqd-tcp-address", address)
            sample = bench.batch(source, service, lines, *flags, qps=200)
        yield Figure("fleet", f"{workers} simulated workers", lines / sample.wall, "lines/s")
        yield Figure("fleet", f"{workers} simulated workers", sample.cpu / sample.wall, "CPU")
        yield Figure("fleet", f"{workers} simulated workers", sample.memory / MB, "MB")
