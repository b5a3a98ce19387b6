"""Logs and lines larger than comfort: a million done lines, lines of 5 MB, a snapshot of 2 GB."""

from __future__ import annotations

import itertools
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import data, measure, services
from benchmarks.bench import MB, Bench, Figure, row
from benchmarks.contenders import HERE
from benchmarks.measure import Sample, interleaved, median, ratio


def resumed(bench: Bench, name: str, shuffled: bool) -> Iterator[Figure]:
    """Run -f over a log in which everything is done."""
    lines = 1_000_000
    source = bench.questions(lines)
    log = data.answered(bench.folder / f"{name}.jsonl", lines, shuffled=shuffled)
    size = log.stat().st_size
    with services.instant() as service:

        def product() -> Sample:
            copy = Path(shutil.copyfile(log, bench.folder / "copy.jsonl"))
            return bench.batch(source, service, lines, "-f", log=copy)

        plain = [sys.executable, HERE / "floor.py", "scan", log]
        found = interleaved(
            {"floor": lambda: measure.run(plain), "product": product}, min(bench.rounds, 3)
        )
    log.unlink()
    speed = {who: [size / s.wall / MB for s in samples] for who, samples in found.items()}
    yield Figure(name, "log", size / MB, "MB")
    yield Figure(name, "floor: orjson.loads of each line", median(speed["floor"]), "MB/s")
    key = "scan.speed" if name == "scan" else ""
    yield Figure(name, "speed", median(speed["product"]), "MB/s", key)
    yield Figure(name, "speed", ratio(speed["product"], speed["floor"]), "× the floor")
    memory = max(s.memory for s in found["product"]) / MB
    yield Figure(name, "memory", memory, "MB", f"{name}.memory")


@row("scan")
def scan(bench: Bench) -> Iterator[Figure]:
    """-f over a log of a million done lines in input order, the whole process."""
    yield from resumed(bench, "scan", shuffled=False)


@row("order")
def order(bench: Bench) -> Iterator[Figure]:
    """-f over a log of a million done lines in no order: scanned and put in order."""
    yield from resumed(bench, "order", shuffled=True)


@row("big")
def big(bench: Bench) -> Iterator[Figure]:
    """Lines of 5 MB: memory must not grow with their number (--full: 5,000 of them)."""
    counts = (500, 5_000) if bench.full else (100, 400)
    memory = []
    with services.instant() as service:
        for lines in counts:
            source = bench.questions(lines, padding=5_000_000)
            sample = bench.batch(source, service, lines)
            speed = source.stat().st_size / sample.wall / MB
            bench.forget(source)
            memory.append(sample.memory / MB)
            yield Figure("big", f"{lines:,} lines: memory", memory[-1], "MB")
            yield Figure("big", f"{lines:,} lines: speed", speed, "MB/s")
    what = f"memory, {counts[1]:,} over {counts[0]:,} lines"
    yield Figure("big", what, memory[1] / memory[0], "×", "big.flat")


@contextmanager
def most_disk(folder: Path) -> Iterator[Callable[[], int]]:
    """Watch how much disk a folder takes; the value is the most that was seen."""
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.1):
            blocks = 0
            for item in folder.rglob("*"):
                try:
                    blocks += item.stat().st_blocks
                except FileNotFoundError:
                    continue
            most = max(most, blocks * 512)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: most
    finally:
        over.set()
        thread.join()


@row("snapshot")
def snapshot(bench: Bench) -> Iterator[Figure]:
    """Snapshots of a log of 2 GB while calls go out at q = 100: longest silence, and disk."""
    count, fresh, qps = 1_400_000, 4_000, 100
    with bench.place() as folder:
        log = data.answered(folder / "log.jsonl", count)
        size = log.stat().st_size
        source = bench.questions(count + fresh)
        flags = ("-f", "-r", "-v", "0.1")
        with services.target() as service, most_disk(bench.folder) as disk:
            before = sum(item.stat().st_blocks * 512 for item in bench.folder.rglob("*")) - size
            bench.batch(source, service, count + fresh, *flags, qps=qps, log=log)
            arrivals = sorted(service.arrivals())
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    yield Figure("snapshot", "log", size / MB, "MB")
    yield Figure("snapshot", "longest silence", max(gaps), "s", "snapshot.gap")
    usual = sorted(gaps)[len(gaps) // 2]
    yield Figure("snapshot", "usual silence", usual, "s")
    taken = (disk() - before) / size
    yield Figure("snapshot", "most disk", taken, "× the log", "snapshot.disk")
