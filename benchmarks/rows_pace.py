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
    lines = 4_600
    limits = ",".join(f"{at:g}:{rate:g}" for at, rate in PLAN)
    with services.target(limits=limits) as service:
        bench.batch(bench.questions(lines), service, lines, "--retries", "50", qps=100)
        arrivals, codes = service.arrivals(), service.codes()
    began = arrivals[0]
    calls = [(at - began, code) for at, code in zip(arrivals, codes, strict=True)]
    for (start, rate), stop in zip(PLAN, (15.0, 35.0, 60.0), strict=True):
        taken = sum(code == 200 for at, code in calls if start <= at < stop) / (stop - start)
        name = f"{start:g} to {stop:g} s, {rate:g} allowed"
        yield Figure("adaptive", f"{name}: answered", taken / rate, "× the limit")
    refused = sum(code == 429 for _, code in calls) / len(calls)
    yield Figure("adaptive", "refused with 429", refused * 100, "% of calls")
    yield Figure("adaptive", "limit back to 90 of 100/s", recovery(calls), "s")


def recovery(calls: list[tuple[float, int]]) -> float:
    """Return the seconds from the limit's end to the first full second of 90 calls answered."""
    good = [at for at, code in calls if code == 200 and at >= PLAN[-1][0]]
    for k, at in enumerate(good):
        if bisect_left(good, at + 1.0) - k >= 90:
            return at - PLAN[-1][0]
    return float("inf")


LIMITS = ((20, 0, 1_800), (20, 20, 1_800), (100, 0, 4_000))
WEATHER = ((0.03, 3_000), (0.1, 3_000))


@row("limit")
def limit(bench: Bench) -> Iterator[Figure]:
    """What a run makes of a limit of calls a second, and of refusals at random."""
    for rate, qps, lines in LIMITS:
        with services.target(limits=f"0:{rate}", latency=0.3, spread=0.5) as service:
            bench.batch(bench.questions(lines), service, lines, "--retries", "50", qps=qps)
            yield from _used(service, f"{rate}/s allowed, -q {qps}", rate, refused=True)
    for share, lines in WEATHER:
        with services.target(weather=share, latency=0.3, spread=0.5) as service:
            bench.batch(bench.questions(lines), service, lines, "--retries", "50", qps=100)
            possible = 100 * (1 - share)
            yield from _used(service, f"{share:.0%} refused at random, -q 100", possible)


def _used(
    service: services.Service, name: str, possible: float, *, refused: bool = False
) -> Iterator[Figure]:
    """Yield the calls answered, over what was possible, and those refused."""
    calls = sorted(zip(service.arrivals(), service.codes(), strict=True))
    good = [at for at, code in calls if code == 200]
    used = (len(good) - 1) / (good[-1] - good[0]) / possible
    yield Figure("limit", f"{name}: answered", used, "× what is possible", "limit.useful")
    share = 100 * (1 - len(good) / len(calls))
    key = "limit.refused" if refused else ""
    yield Figure("limit", f"{name}: refused", share, "% of calls", key)


HOUR = ((0, 100.0), (600, 30.0), (1200, 60.0), (1800, 20.0), (2400, 100.0), (3000, 50.0))


@row("hour", product=False)
def hour(bench: Bench) -> Iterator[Figure]:
    """An hour at -q 100 against a limit that changes every ten minutes, in virtual time."""
    from benchmarks.service_models import Batch, Sliding
    from gpt4batch.service.pace import Rule

    def allowed(now: float) -> float:
        return [rate for at, rate in HOUR if at <= now][-1]

    possible = sum(allowed(now) for now in range(3600))
    seen = Batch(Sliding(allowed), Rule(100), int(0.93 * possible)).run()
    calls = [(at, 200) for at in seen.accepted] + [(at, 429) for at in seen.refused]
    picture = bench.results / "adaptive.svg"
    draw(picture, sorted(calls), 3600.0, HOUR)
    end = min(3600.0, seen.accepted[-1])
    possible = sum(allowed(now) for now in range(int(end)))
    used = sum(at < end for at in seen.accepted) / possible
    yield Figure("hour", "answered", used, "× what is possible", "", picture.name)
    yield Figure("hour", "refused", 100 * seen.share(), "% of calls")


def draw(
    path: Path, calls: list[tuple[float, int]], end: float, plan: tuple[tuple[float, float], ...]
) -> None:
    """Plot calls a second, answered and refused, under the service's limit."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "gpt4batch"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    bins, width = 360, end / 360
    times = [[at for at, code in calls if code == kind] for kind in (200, 429)]
    axes.hist(
        times, bins=bins, range=(0, end), stacked=True, label=("answered", "refused: 429"),
        color=("#4c78a8", "#e45756"), weights=[[1 / width] * len(part) for part in times],
    )  # fmt: skip
    steps = [*plan, (end, plan[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", color="black", label="the service's limit")
    axes.set(xlabel="seconds", ylabel="calls a second", xlim=(0, end))
    axes.legend(loc="lower right", frameon=True)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Without the document type and the metadata, which name addresses of other hosts.
    bare = re.sub(r"<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", path.read_text(), flags=re.DOTALL)
    path.write_text(bare)
