"""When calls arrive: the pace, the makespan, and the way down and up again at a changing limit."""

from __future__ import annotations

import heapq
import re
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from benchmarks import services
from benchmarks.bench import Bench, Figure, expect, row
from benchmarks.measure import environment, interleaved, median
from benchmarks.target import latencies


def worst_second(arrivals: list[float]) -> int:
    """Return the most calls that any one-second window holds."""
    return max(bisect_left(arrivals, at + 1.0) - k for k, at in enumerate(arrivals))


def ideal(durations: list[float], slots: int) -> float:
    """Return the makespan of list scheduling: each call starts in the slot that is free first."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


@row("pace", short=True)
def pace(bench: Bench) -> Iterator[Figure]:
    """Calls a second seen at the service over -q: mean, worst second, first second."""
    plan = {10: 5, 100: 5} if bench.short else {1: 20, 10: 20, 100: 15, 1000: 15}
    for qps, seconds in plan.items():
        lines = qps * seconds
        with services.target() as service:
            bench.batch(bench.questions(lines), service, lines, qps=qps)
            arrivals = sorted(service.arrivals())
        mean = (lines - 1) / (arrivals[-1] - arrivals[0]) / qps
        worst = worst_second(arrivals)
        first = bisect_left(arrivals, arrivals[0] + 1.0)
        name = f"q = {qps}"
        yield Figure("pace", f"{name}: mean", mean, "× q", "pace.mean")
        allowed = 1.02 * qps + 1
        note = f"{worst} calls of {allowed:g} allowed"
        yield Figure("pace", f"{name}: worst second", worst / allowed, "×", "pace.worst", note)
        yield Figure("pace", f"{name}: first second", first, "calls")


@row("pause")
def pause(bench: Bench) -> Iterator[Figure]:
    """The process stopped for three seconds at -q 100: what it missed must not leave at once."""
    qps, lines = 100, 1_500
    with services.target() as service, bench.place() as folder:
        out = folder / "out.jsonl"
        command = bench.product.batch(bench.questions(lines), out, service, qps=qps)
        with subprocess.Popen([str(word) for word in command], env=environment()) as process:
            try:
                while len(service.arrivals()) < 4 * qps:
                    time.sleep(0.1)
                process.send_signal(signal.SIGSTOP)
                time.sleep(3)
            finally:
                process.send_signal(signal.SIGCONT)
        expect(out, lines)
        arrivals = sorted(service.arrivals())
    gap = max(range(1, lines), key=lambda k: arrivals[k] - arrivals[k - 1])
    after = arrivals[gap:]
    allowed = 1.02 * qps + 1
    first = bisect_left(after, after[0] + 1.0)
    tenth = bisect_left(after, after[0] + 0.1)
    worst = worst_second(arrivals)
    note = f"{worst} calls of {allowed:g} allowed"
    yield Figure("pause", "worst second", worst / allowed, "×", "pace.worst", note)
    yield Figure("pause", "first second after it", first, "calls")
    yield Figure("pause", "first tenth of a second after it", tenth, "calls")


@row("makespan", short=True)
def makespan(bench: Bench) -> Iterator[Figure]:
    """A run bound by latency, 1 s ± 50 % and 60 at a time, over list scheduling of it."""
    lines, mean = (600, 0.5) if bench.short else (6_000, 1.0)
    best = ideal(latencies(lines, mean, 0.5, 1), 60)
    source = bench.questions(lines)
    with services.target(latency=mean, spread=0.5) as service:

        def timed(product: bool) -> tuple[float, float]:
            service.reset()
            job = bench.batch if product else bench.floor
            wall = job(source, service, lines).wall
            arrivals = service.arrivals()
            return wall, service.counts()["last_answer"] / 1e9 - min(arrivals)

        found = interleaved({"floor": lambda: timed(False), "product": lambda: timed(True)}, 1)
    for name, key in (("floor", ""), ("product", "makespan.")):
        wall = median(wall for wall, _ in found[name]) / best
        calls = median(calls for _, calls in found[name]) / best
        label = "floor: " if name == "floor" else ""
        whole, inner = (key and key + "process"), (key and key + "calls")
        yield Figure("makespan", f"{label}whole process", wall, "× the ideal", whole)
        yield Figure("makespan", f"{label}first call to last answer", calls, "× the ideal", inner)


PLAN = ((0.0, 100.0), (15.0, 30.0), (35.0, 100.0))


@row("adaptive")
def adaptive(bench: Bench) -> Iterator[Figure]:
    """At -q 100 against a service that allows 100 a second, then 30, then 100 again."""
    lines, end = 5_600, 70.0
    limits = ",".join(f"{at:g}:{rate:g}" for at, rate in PLAN)
    with services.target(limits=limits) as service:
        bench.batch(bench.questions(lines), service, lines, "--retries", "50", qps=100)
        arrivals, codes = service.arrivals(), service.codes()
    began = arrivals[0]
    calls = [(at - began, code) for at, code in zip(arrivals, codes, strict=True)]
    picture = bench.results / "adaptive.svg"
    draw(picture, calls, end)
    for (start, rate), stop in zip(PLAN, (15.0, 35.0, 60.0), strict=True):
        taken = sum(code == 200 for at, code in calls if start <= at < stop) / (stop - start)
        name = f"{start:g} to {stop:g} s, {rate:g} allowed"
        yield Figure("adaptive", f"{name}: answered", taken / rate, "× the limit")
    refused = sum(code == 429 for _, code in calls) / len(calls)
    yield Figure("adaptive", "refused with 429", refused * 100, "% of calls")
    yield Figure("adaptive", "limit back to 95 of 100/s", recovery(calls), "s", note=picture.name)


def recovery(calls: list[tuple[float, int]]) -> float:
    """Return the seconds from the limit's end to the first full second of 95 calls answered."""
    good = [at for at, code in calls if code == 200 and at >= PLAN[-1][0]]
    for k, at in enumerate(good):
        if bisect_left(good, at + 1.0) - k >= 95:
            return at - PLAN[-1][0]
    return float("inf")


def draw(path: Path, calls: list[tuple[float, int]], end: float) -> None:
    """Plot calls a second, answered and refused, under the service's limit."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "gpt4batch"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    times = [[at for at, code in calls if code == kind] for kind in (200, 429)]
    axes.hist(
        times, bins=int(end), range=(0, end), stacked=True, label=("answered", "refused: 429"),
        color=("#4c78a8", "#e45756"),
    )  # fmt: skip
    steps = [*PLAN, (end, PLAN[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", color="black", label="the service's limit")
    axes.set(xlabel="seconds", ylabel="calls a second", xlim=(0, end))
    axes.legend(loc="lower right", frameon=True)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Without the document type and the metadata, which name addresses of other hosts.
    bare = re.sub(r"<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", path.read_text(), flags=re.DOTALL)
    path.write_text(bare)
