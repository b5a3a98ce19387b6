"""A fleet: lines a second as workers are added, on a service bound by latency."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import services
from benchmarks.bench import Bench, Figure, row
from benchmarks.contenders import HERE
from benchmarks.measure import CommandError, environment
from benchmarks.services import Service

PLACES, LATENCY = 10, 1.0


@contextmanager
def process(words: list[str | Path], folder: Path, said: str) -> Iterator[None]:
    """Run a command until the end of the block, begun when it has said that it is ready."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=environment())
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


def speed(bench: Bench, service: Service, workers: int, lines: int) -> float:
    """Return the lines a second that some workers bring."""
    source, port, http = bench.questions(lines), services.free_port(), services.free_port()
    broker = f"127.0.0.1:{port}"
    with bench.place() as folder, ExitStack() as stack:
        words = [nsqd(), "--data-path=.", f"--tcp-address={broker}"]
        words += [f"--http-address=127.0.0.1:{http}", "--mem-queue-size=1"]
        stack.enter_context(process([*words], folder / "nsqd", "TCP: listening"))
        for number in range(workers):
            run: list[str | Path] = [bench.product.program, "worksvc", "--name", f"w{number}"]
            run += ["-g", str(PLACES), "--token", "x", "-u", service.chat]
            run += ["--nsqd-tcp-address", broker]
            stack.enter_context(process(run, folder / f"w{number}", "is ready"))
        service.reset()
        bench.batch(source, service, lines, "--fleet", "--nsqd-tcp-address", broker)
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
