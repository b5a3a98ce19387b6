"""The pace of a fleet over slow links, in virtual time: `python -m simulation.links`.

Every message between coordinator, nsqd and workers takes its own time on the way, so that they
overtake each other; of a call it is told when it leaves its worker.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from simulation.__main__ import warm
from simulation.apart import forked
from simulation.fleet import Scenario, placed
from simulation.fleet_plan import FleetPlan
from simulation.history import MEMORY
from simulation.nsqd import Ways
from simulation.service import Weather

WORKERS, SECONDS, ANSWER = 4, 20, 1.0
LINKS = ((1, 2), (5, 10), (10, 20), (25, 50), (50, 100), (100, 200), (20, 200))
"""Milliseconds of the shortest and the longest way."""
RATES = (10, 50, 200)


def calls_of(rate: int, shortest: float, longest: float) -> list[float]:
    """Return when the calls of a fleet left, in seconds."""
    lines = tuple({"asks": [{"content": f"plain {n}"}]} for n in range(rate * SECONDS))
    plan = FleetPlan(
        seed=1,
        lines=lines,
        workers=WORKERS,
        places=rate,  # one worker could hold them all
        rate=float(rate),
        lease=30.0,
        retries=1,
        weather=Weather(latency=ANSWER),
        ways=Ways(shortest, longest),
    )
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        root = Path(name)
        played = forked(Scenario(placed(root, plan), plan).live, root / "stderr")
    assert not played.error, played.error
    return sorted(played.state.calls)


def fullest(calls: list[float]) -> int:
    """Return the most calls in any second."""
    first = most = 0
    for last, at in enumerate(calls):
        while calls[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def main() -> None:
    """Print a row for each link."""
    warm()
    print(f"| one way, ms | {' | '.join(f'`-q {rate}`: mean, worst second' for rate in RATES)} |")
    print(f"| --- | {' | '.join('---' for _ in RATES)} |")
    for shortest, longest in LINKS:
        cells = []
        for rate in RATES:
            calls = calls_of(rate, shortest / 1000, longest / 1000)
            steady = [at for at in calls if at - calls[0] < SECONDS - 1]
            mean = (len(steady) - 1) / (steady[-1] - steady[0])
            cells.append(f"{mean:.1f}, {fullest(calls)}")
        print(f"| {shortest} to {longest} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
