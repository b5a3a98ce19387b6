"""Play histories: `python -m simulation --help`."""

from __future__ import annotations

import argparse
import gc
import mimetypes
import os
import shlex
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from simulation import fleet, fleet_plan, history, plan
from simulation.apart import forked
from simulation.report import Tally, record

CHUNK = 50
"""Histories that are played in one process, which ends then: what ended in it is kept there."""
WARMING = range(20)
"""Seeds of histories in which most of the program runs."""
ENOUGH = 10
"""Failures after which no more are looked for."""

Told = list[tuple[int, list[str], Counter[str], int]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of history: how one is drawn, played, made smaller, written and read."""

    drawn: Callable[[int], Any]
    play: Callable[[Any], Any]
    play_here: Callable[[Any], Any]
    shrink: Callable[[Any], Any]
    written: Callable[[Any], str]
    read: Callable[[str], Any]


RUNS = Kind(plan.drawn, history.play, history.play_here, history.shrink, plan.written, plan.read)
FLEET = Kind(
    fleet_plan.drawn, fleet.play, fleet.play, fleet.shrink, fleet_plan.written, fleet_plan.read
)


def main() -> int:
    """Play the histories that the command line asks for; 1 says that a promise was broken."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=2000, help="how many are played")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many; 0 is never")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at the same time")
    parser.add_argument("--seed", type=int, help="play this one, and print the digest of its files")
    parser.add_argument("--plan", default="", help="play this one, as a failure printed it")
    parser.add_argument("--fleet", action="store_true", help="histories of a fleet")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at ten failures")
    parser.add_argument("--record", action="store_true", help="add the counts to docs/faults.md")
    options = parser.parse_args()
    warm()
    kind = FLEET if options.fleet else RUNS
    if options.plan or options.seed is not None:
        return _one(kind, kind.read(options.plan) if options.plan else kind.drawn(options.seed))
    return _many(kind, options)


def warm() -> None:
    """Do once what every history would do for itself: each is a fork of this process."""
    mimetypes.init()
    for seed in WARMING:  # imports, and regular expressions that are compiled at their first use
        history.play_here(plan.drawn(seed))
    gc.collect()
    gc.freeze()


def _one(kind: Kind, plan: Any) -> int:
    verdict = kind.play(plan)
    print(*verdict.broken or ["every promise was kept"], sep="\n")
    print(getattr(verdict, "digest", ""))
    return 1 if verdict.broken else 0


def _many(kind: Kind, options: argparse.Namespace) -> int:
    tally, began = Tally(options.first), time.monotonic()
    last = options.first + options.histories
    chunks = iter(range(at, min(at + CHUNK, last)) for at in range(options.first, last, CHUNK))
    with ProcessPoolExecutor(options.jobs) as pool:
        running: set[Future[Told]] = set()
        while True:
            late = options.seconds and time.monotonic() - began > options.seconds
            if not late and (options.keep_going or len(tally.failed) < ENOUGH):
                room = options.jobs * 2 - len(running)
                running |= {pool.submit(_chunk, kind, chunk) for chunk in islice(chunks, room)}
            if not running:
                break
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for told in ended:
                _take(tally, told.result())
    tally.seconds = time.monotonic() - began
    print(*tally.words(), sep="\n")
    for seed in tally.failed[:3]:
        _tell_smaller(kind, seed)
    if options.record:
        record("fleet" if kind is FLEET else "runs", tally)
    return 1 if tally.failed else 0


def _take(tally: Tally, told: Told) -> None:
    for seed, broken, faults, runs in told:
        tally.take(seed, faults, runs, failed=bool(broken))
        if broken:
            print(f"seed {seed}: {broken[0]}", flush=True)


def _chunk(kind: Kind, seeds: range) -> Told:
    told: Told = forked(partial(_played, kind.drawn, kind.play_here, seeds))
    for place, (seed, broken, *_) in enumerate(told):
        if broken:  # alone it has to show the same
            (alone,) = _played(kind.drawn, kind.play, range(seed, seed + 1))
            told[place] = alone if alone[1] else (seed, [f"not alone: {broken[0]}"], Counter(), 0)
    return told


def _played(drawn: Callable[[int], Any], play: Callable[[Any], Any], seeds: range) -> Told:
    told: Told = []
    for seed in seeds:
        try:
            found = play(drawn(seed))
        except Exception:  # noqa: BLE001 - the other histories go on
            judge = f"the judge failed: {traceback.format_exc()[-900:]}"
            told.append((seed, [judge], Counter(), 0))
        else:
            told.append((seed, found.broken, found.faults, found.runs))
    return told


def _tell_smaller(kind: Kind, seed: int) -> None:
    smaller = kind.shrink(kind.drawn(seed))
    print(f"seed {seed}, made smaller:")
    print(*(f"  {what}" for what in kind.play(smaller).broken), sep="\n")
    words = f"{'--fleet ' * (kind is FLEET)}--plan {shlex.quote(kind.written(smaller))}"
    print(f"  python -m simulation {words}", flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is drawn by nobody
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])
    sys.exit(main())
