"""How fast whole histories of runs are played in virtual time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Figure, row
from benchmarks.measure import CommandError

HISTORIES = 500
PACE = re.compile(r"([\d.]+) a second")


@row("simulation", product=False)
def simulation(bench: Bench) -> Iterator[Figure]:
    """Histories a second, of some three runs each, on every core."""
    words = ["-m", "simulation", "--histories", str(HISTORIES // (5 if bench.short else 1))]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = PACE.search(done.stdout)
    if done.returncode or found is None:
        raise CommandError(f"the simulation failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    yield Figure("simulation", "histories a second", float(found[1]), "/s")
