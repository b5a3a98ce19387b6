"""Play histories: `python -m simulation --help`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import anyio

from simulation.history import Verdict, play, shrink
from simulation.plan import drawn, read, written

CHUNK = 20
"""Histories that a worker plays before it tells of them."""


def main() -> int:
    """Play the histories that the command line asks for; 1 says that a promise was broken."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=2000, help="how many are played")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many; 0 is never")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at the same time")
    parser.add_argument("--plan", default="", help="play this one, as a failure printed it")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at ten failures")
    options = parser.parse_args()
    _warm()
    if options.plan:
        return _one(options.plan)
    return _many(options)


def _warm() -> None:
    """Import what is tested once: each run is a fork of this process."""
    import gpt4batch.api  # noqa: F401

    anyio.run(anyio.sleep, 0)
    gc.collect()
    gc.freeze()


def _one(text: str) -> int:
    verdict = play(read(text))
    print(*verdict.broken or ["every promise was kept"], sep="\n")
    return 1 if verdict.broken else 0


def _many(options: argparse.Namespace) -> int:
    began, faults, runs, played = time.monotonic(), Counter[str](), 0, 0
    failed: list[int] = []
    last = options.first + options.histories
    chunks = (range(at, min(at + CHUNK, last)) for at in range(options.first, last, CHUNK))
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting: set[Any] = set()
        waiting |= {pool.submit(_chunk, chunk) for chunk, _ in zip(chunks, range(options.jobs * 2))}
        while waiting:
            ended = next(iter(waiting))
            waiting.discard(ended)
            for seed, broken, found, count in ended.result():
                played, runs, faults = played + 1, runs + count, faults + found
                if broken:
                    failed.append(seed)
                    print(f"seed {seed}: {broken[0]}", flush=True)
            late = options.seconds and time.monotonic() - began > options.seconds
            enough = len(failed) >= 10 and not options.keep_going
            if not late and not enough and (chunk := next(chunks, None)):
                waiting.add(pool.submit(_chunk, chunk))
    seconds = time.monotonic() - began
    _tell(played, runs, seconds, faults)
    for seed in failed[:3]:
        _tell_smaller(seed)
    print(f"{played - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _chunk(seeds: range) -> list[tuple[int, list[str], Counter[str], int]]:
    return [(seed, found.broken, found.faults, found.runs) for seed, found in map(_played, seeds)]


def _played(seed: int) -> tuple[int, Verdict]:
    plan = drawn(seed)
    try:
        return seed, play(plan)
    except Exception:
        return seed, Verdict(plan, [f"the judge failed: {traceback.format_exc()[-600:]}"])


def _tell(played: int, runs: int, seconds: float, faults: Counter[str]) -> None:
    print(f"{played} histories of {runs} runs in {seconds:.0f} s: {played / seconds:.1f} a second")
    for name, count in sorted(faults.items()):
        print(f"  {count:8,} {name}")


def _tell_smaller(seed: int) -> None:
    plan = shrink(drawn(seed))
    print(f"seed {seed}, made smaller:")
    print(*(f"  {what}" for what in play(plan).broken), sep="\n")
    print(f"  {sys.executable} -m simulation --plan '{written(plan)}'", flush=True)


if __name__ == "__main__":
    sys.exit(main())
