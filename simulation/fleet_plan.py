"""What happens in a history of a fleet: drawn from its seed, made smaller, written and read."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from typing import Any

from simulation.nsqd import Ways
from simulation.plan import drawn_line
from simulation.service import Weather

MACHINE = "machine"
"""The folder of the workers' machine, beside that of the coordinator."""
KINDS = (
    "worker",
    "worker",
    "stop",
    "coordinator",
    "nsqd",
    "restart",
    "cut",
    "cut coordinator",
    "power",
    "power coordinator",
    "coordinator copied",
)
"""What may happen to whom: kills, ends, links that are cut, machines without power, two at once."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens: when, what, to which worker, and for how long."""

    at: float
    kind: str
    worker: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A whole history."""

    seed: int
    lines: tuple[dict[str, Any], ...]
    workers: int
    places: int
    rate: float
    lease: float
    retries: int
    weather: Weather
    ways: Ways
    events: tuple[Event, ...] = ()
    dies_at: tuple[int, ...] = ()
    """The change of a file at which each coordinator is killed in turn; 0 is never."""
    worker_dies_at: int = 0
    """The same for the first worker."""


def drawn(seed: int) -> FleetPlan:
    """Return the history of a seed."""
    draw = random.Random(f"fleet {seed}")
    rough = draw.random() < 0.7
    workers = draw.randint(1, 3)

    def event() -> Event:
        seconds = draw.choice((0.2, 2.0, 12.0, 40.0))
        return Event(draw.random() * 10, draw.choice(KINDS), draw.randrange(workers), seconds)

    def share(most: float) -> float:
        return draw.random() * most if draw.random() < 0.4 else 0.0

    calm = draw.random() < 0.5
    return FleetPlan(
        seed,
        tuple(drawn_line(draw, number) for number in range(draw.randint(1, 12))),
        workers,
        draw.choice((1, 2, 5)),
        draw.choice((0.0, 1.0, 5.0, 50.0)),
        draw.choice((3.0, 30.0)),
        draw.choice((1, 5)),
        Weather(
            latency=draw.choice((0.01, 0.3, 5.0)),
            refused=0.0 if calm else share(0.3),
            failed=0.0 if calm else share(0.2),
            no_answer=0.0 if calm else share(0.2),
            reset=0.0 if calm else share(0.2),
            lost=0.0 if calm else share(0.1),
            cut=0.0 if calm else share(0.1),
            hang=0.0 if calm else share(0.05),
            limit=0 if calm else draw.choice((0, 0, 10)),
        ),
        Ways(
            0.0005,
            draw.choice((0.003, 0.02)),
            draw.choice((0.0, 0.0, 0.2)),
            draw.choice((0.0, 0.0, 0.2)),
        ),
        tuple(event() for _ in range(draw.randint(1, 4) * rough)),
        tuple(draw.choice((0, draw.randint(1, 60))) for _ in range(draw.randint(0, 2))),
        draw.choice((0, 0, draw.randint(1, 40))),
    )


def smaller_ones(plan: FleetPlan) -> list[FleetPlan]:
    """Return plans with an event, a kill, a line or a kind of trouble less."""
    found = [replace(plan, events=_without(plan.events, n)) for n in range(len(plan.events))]
    found += [replace(plan, dies_at=_without(plan.dies_at, n)) for n in range(len(plan.dies_at))]
    if len(plan.lines) > 1:
        found += [replace(plan, lines=_without(plan.lines, n)) for n in range(len(plan.lines))]
    calmer = (
        replace(plan, weather=Weather(latency=plan.weather.latency)),
        replace(plan, ways=Ways()),
        replace(plan, worker_dies_at=0),
    )
    return found + [other for other in calmer if other != plan]


def _without(items: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    return items[:place] + items[place + 1 :]


def written(plan: FleetPlan) -> str:
    """Return a plan as one word of JSON."""
    return json.dumps(asdict(plan), separators=(",", ":"))


def read(text: str) -> FleetPlan:
    """Return the plan that `written` wrote."""
    doc = json.loads(text)
    doc["events"] = tuple(Event(**event) for event in doc["events"])
    doc["lines"], doc["dies_at"] = tuple(doc["lines"]), tuple(doc["dies_at"])
    doc["weather"], doc["ways"] = Weather(**doc["weather"]), Ways(**doc["ways"])
    return FleetPlan(**doc)
