"""Processes killed: at random moments, at every write, politely and twice."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

from chaos.lab import (
    HOOKS,
    Bench,
    Broken,
    Lab,
    Run,
    Service,
    answers_in,
    demand,
    kill,
    lines_of,
    read_lines,
    save_lines,
    verify,
)
from gpt4batch.lines import rawjson

TURNS = 6
"""Runs that may pass by a kill point, before it counts as one that cannot be reached."""


def sigkill(lab: Lab) -> None:
    """Kill one batch 50 times at random moments; then let it end."""
    kills, workers = lab.size(50, 6), 32
    service = lab.service("--latency=0.1", "--jitter=0.9", "--asset-rate=0.2", "--asset-size=60000")
    bench = lab.bench("batch", service, f"-g={workers}", "-v=0.002")
    lines = lines_of(bench.folder, lab.size(2000, 200), lab.rand)
    save_lines(bench.input, lines)
    for _ in range(kills):
        size = bench.out.stat().st_size if bench.out.exists() else 0
        process = bench.start("-f")
        if lab.rand.random() < 0.8:
            demand(bench.began(process, size), "the batch ended before it was killed often enough")
            time.sleep(lab.rand.uniform(0, 0.3))
        else:
            time.sleep(lab.rand.uniform(0, 0.8))
        kill(process)
        demand(process.wait(60) == -9, "the batch ended before it was killed often enough")
        lab.counts.note(kills=1, in_flight=in_flight_of(bench))
    bench.run("-f").expect(0)
    verify(bench, lines, lab.counts)
    nothing_paid_twice(lab, service, lab.counts["in_flight"])
    answered = service.stats()["chats_answered"]
    again = bench.run("-f", f"--summary={bench.folder}/again.json").expect(0)
    summary: Any = rawjson.loads((bench.folder / "again.json").read_bytes())
    demand(summary["chats"] == 0, "a run of a done batch made calls:", summary, again.errors)
    demand(service.stats()["chats_answered"] == answered, "what was done was asked again")


def in_flight_of(bench: Bench) -> int:
    """Return how many chats the killed run noted as in flight, and take the note away."""
    note = bench.out.with_name(f"{bench.out.name}.inflight")
    found = int(note.read_bytes() or 0) if note.exists() else 0
    note.unlink(missing_ok=True)
    return found


def write_points(lab: Lab) -> None:
    """Kill at every write of the log, the snapshot, the ordered output and the downloads."""
    service = lab.service("--latency=0.06", "--asset-rate=1", "--asset-size=100000")
    totals = _count_points(lab, service)
    for kind, total in totals.items():
        places = range(1, total + 1)
        if lab.short:
            places = range(1, total + 1, max(1, total - 1))
        for number in places:
            for mode in ("half",) if lab.short else ("before", "half"):
                _die_at(lab, service, kind, number, mode)
    demand(set(totals) == {"log", "snapshot", "ordered", "download"}, "kinds of writes:", totals)


def _points_bench(lab: Lab, service: Service, name: str) -> tuple[Bench, list[dict[str, Any]]]:
    """Make a batch that writes as often each time: alike but for the texts of its asks."""
    bench = lab.bench(name, service, "-g=1", "-v=0.0015")
    lines = lines_of(bench.folder, 2, random.Random(lab.seed), asks=2, attach=0.5)
    for line in lines:
        for ask in line["asks"]:
            ask["content"] += f" {name}"  # the service knows the batches apart
    save_lines(bench.input, lines)
    return bench, lines


def _count_points(lab: Lab, service: Service) -> dict[str, int]:
    """Return how many writes of each kind every run of such a batch makes, at least."""
    least: dict[str, int] = {}
    for number in range(3):
        bench, _ = _points_bench(lab, service, f"count{number}")
        counted = bench.folder / "counted"
        bench.run(env=hook(bench, CHAOS_COUNT=str(counted))).expect(0)
        for pair in counted.read_text().split():
            kind, _, total = pair.partition("=")
            least[kind] = min(least.get(kind, 1000), int(total))
    least["snapshot"] = min(least.get("snapshot", 0), 8)
    return least


def hook(bench: Bench, **more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(HOOKS), "CHAOS_ROOT": str(bench.folder), **more}


def _die_at(lab: Lab, service: Service, kind: str, number: int, mode: str) -> None:
    """Kill at one point and go on."""
    bench, lines, before = _killed_at(lab, service, f"{kind}:{number}:{mode}")
    lab.counts.note(kills=1, **{f"{kind}_points": 1})
    bench.run("-f", "-r=false").expect(0)
    verify(bench, lines, lab.counts)
    twice = service.stats()["answered_twice"]["count"] - before
    most = 1 if kind in ("log", "snapshot") else 0  # what is in flight with one worker
    demand(twice <= most, f"{kind} {number} {mode}: {twice} asks paid twice")
    lab.counts.note(asked_twice=twice)


def _killed_at(lab: Lab, service: Service, point: str) -> tuple[Bench, list[dict[str, Any]], int]:
    """Return a batch that was killed at a point, and what was paid twice before it began.

    How many writes a download or a second takes is up to chance: one run may pass by a point.
    """
    for turn in range(TURNS):
        bench, lines = _points_bench(lab, service, f"{point.replace(':', '-')}-{turn}")
        before = int(service.stats()["answered_twice"]["count"])
        killed = bench.run(env=hook(bench, CHAOS_POINT=point))
        if killed.code == -9:
            return bench, lines, before
        killed.expect(0)
    raise Broken(f"{point} was not reached in {TURNS} runs")


def signals(lab: Lab) -> None:
    """Send SIGINT and SIGTERM at random moments, once and twice."""
    service = lab.service("--latency=0.1", "--jitter=0.9", "--asset-rate=0.3")
    for number in range(lab.size(40, 4)):
        bench = lab.bench(f"signal{number}", service, "--grace=3")
        lines = lines_of(bench.folder, 40, lab.rand)
        save_lines(bench.input, lines)
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        twice = number % 4 >= 2
        before = service.stats()
        process = bench.start("-f")
        if number % 5:
            bench.began(process)
        time.sleep(lab.rand.uniform(0, 0.6))
        kill(process, sent)
        if twice:
            time.sleep(lab.rand.uniform(0, 0.1))
            kill(process, sent)
        _stopped(lab, bench, process, sent, lines, before, service, twice=twice)


def _stopped(  # type: ignore[no-untyped-def]
    lab, bench, process, sent, lines, before, service, *, twice
) -> None:
    run = bench.end(process)
    loading = b"Fatal Python error: init" in run.errors or b"KeyboardInterrupt" in run.errors
    if loading and not bench.out.exists():  # none of our code ran yet: Python's own words
        run = Run(-sent, b"", b"")
    # Before the run handles signals, Python's own way ends it: no call was made then.
    run.expect(128 + sent, 0, -sent)
    kept = answers_in(read_lines(bench.out)) if bench.out.exists() and run.code != -sent else 0
    after = service.stats()
    answered = after["chats_answered"] - before["chats_answered"]
    if not twice:
        demand(kept == answered, f"{answered} asks answered, {kept} kept", run.errors)
    bench.run("-f").expect(0)
    verify(bench, lines, lab.counts)
    paid = service.stats()["answered_twice"]["count"] - before["answered_twice"]["count"]
    demand(paid <= (8 if twice else 0), f"{paid} asks paid twice after a signal")
    lab.counts.note(signals=1 + twice, asked_twice=paid)


def closed_terminal(lab: Lab) -> None:
    """Close the terminal of a run (SIGHUP): what is in flight is paid for, and is kept."""
    service = lab.service("--latency=0.4", "--jitter=0.9")
    for number in range(lab.size(12, 2)):
        bench = lab.bench(f"hangup{number}", service, "--grace=5")
        lines = lines_of(bench.folder, 30, lab.rand, attach=0.0)
        save_lines(bench.input, lines)
        before = service.stats()
        process = bench.start("-f")
        demand(bench.began(process), "the run ended too soon")
        time.sleep(lab.rand.uniform(0, 0.5))
        kill(process, signal.SIGHUP)
        run = bench.end(process).expect(128 + signal.SIGHUP)
        answered = service.stats()["chats_answered"] - before["chats_answered"]
        kept = answers_in(read_lines(bench.out))
        demand(kept == answered, f"{answered} asks answered, {kept} kept", run.errors)
        bench.run("-f").expect(0)
        verify(bench, lines, lab.counts)
        lab.counts.note(signals=1)
    nothing_paid_twice(lab, service, 0)


def stopped(lab: Lab) -> None:
    """Stop a run for longer than a call may take, and let it go on (Ctrl-Z, a suspended VM)."""
    service = lab.service("--latency=0.5", "--jitter=0.5")
    for number in range(lab.size(6, 1)):
        bench = lab.bench(f"stopped{number}", service, "--timeout=2")
        lines = lines_of(bench.folder, 24, lab.rand, asks=2, attach=0.0)
        save_lines(bench.input, lines)
        process = bench.start("-f")
        demand(bench.began(process), "the run ended too soon")
        kill(process, signal.SIGSTOP)
        time.sleep(4)
        kill(process, signal.SIGCONT)
        bench.end(process).expect(0)
        verify(bench, lines, lab.counts)
        lab.counts.note(stops=1)
    nothing_paid_twice(lab, service, 0)


def overlapping(lab: Lab) -> None:
    """Start two runs on one output, as an impatient cron does."""
    service = lab.service("--latency=0.05", "--asset-rate=0.2")
    for number in range(lab.size(20, 2)):
        bench = lab.bench(f"cron{number}", service)
        lines = lines_of(bench.folder, 20, lab.rand)
        save_lines(bench.input, lines)
        first = bench.start("-f")
        time.sleep(lab.rand.uniform(0, 0.7))
        second = bench.start("-f")
        codes = sorted(bench.end(process).code for process in (first, second))
        demand(codes in ([0, 0], [0, 2]), "exit codes of two runs:", codes)
        lab.counts.note(runs=2, refused=codes.count(2))
        verify(bench, lines, lab.counts)
    nothing_paid_twice(lab, service, 0)


def nothing_paid_twice(lab: Lab, service: Service, most: int) -> None:
    """Demand that no more asks were paid twice than were in flight at kills."""
    seen = service.stats()
    twice = seen["answered_twice"]["count"]
    demand(twice <= most, f"{twice} asks paid twice, at most {most} were in flight", seen)
    leaks = seen["files"]["with_authorization"]
    demand(leaks == 0, "the token was sent to the file host")
    lab.counts.note(answered=seen["chats_answered"], asked_twice=twice)
