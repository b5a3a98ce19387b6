"""What happens in a history, drawn from its seed: the input, the runs, and the faults of each."""

from __future__ import annotations

import errno
import json
import math
import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from simulation.disk import Trouble
from simulation.forms import GPT4API, OPENAI, SPOKEN, fitting
from simulation.service import Weather

CALM = Weather(latency=0.2)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run of the command: its flags and its faults."""

    weather: Weather = CALM
    trouble: Trouble = field(default_factory=Trouble)
    flags: dict[str, Any] = field(default_factory=dict)
    die_at_round: int = 0
    """The round of the loop at which the process ends."""
    die_at_write: int = 0
    power_cut: bool = False
    signals: tuple[tuple[float, int], ...] = ()
    """When a signal comes, in seconds since the start, and which."""
    pauses: tuple[tuple[float, float], ...] = ()
    """When the process is stopped, and for how many seconds."""
    jumps: tuple[tuple[float, float], ...] = ()
    """When the time of day is set, and by how many seconds."""
    second_at: float = 0.0
    """When a second run of the same output is started; 0 is never."""
    edit: str = ""
    """What happens to the input before the run: `add`, `change`, `move`, or nothing."""
    damage: int = 0
    """Records of the output that are damaged before the run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole history."""

    seed: int
    lines: tuple[dict[str, Any], ...]
    runs: tuple[RunPlan, ...]
    bom: bool = False
    """Whether the input begins with a byte order mark."""
    linked: bool = False
    """Whether the output is a symbolic link."""
    spoken: str = GPT4API
    """What the service speaks, and what kind of file the input is."""
    wired: bool = False
    """Whether calls go as bytes over connections."""
    streamed: bool = False
    """Whether streams are asked for."""


def written(plan: Plan) -> str:
    """Return a plan as one word of JSON; what is as in a plain run is left out."""
    return json.dumps(_differing(asdict(plan), None), separators=(",", ":"))


def read(text: str) -> Plan:
    """Return the plan that `written` wrote."""
    doc = json.loads(text)
    runs = tuple(
        RunPlan(
            **run
            | {
                "weather": Weather(**run.get("weather", {})),
                "trouble": Trouble(**run.get("trouble", {})),
                "signals": tuple((at, number) for at, number in run.get("signals", ())),
                "pauses": tuple((at, seconds) for at, seconds in run.get("pauses", ())),
                "jumps": tuple((at, seconds) for at, seconds in run.get("jumps", ())),
            }
        )
        for run in doc["runs"]
    )
    return Plan(**doc | {"lines": tuple(doc["lines"]), "runs": runs})


def _differing(doc: dict[str, Any], plain: dict[str, Any] | None) -> dict[str, Any]:
    if plain is None:
        plain_run = asdict(RunPlan())
        plain_run["weather"] = asdict(Weather())
        return {**doc, "runs": [_differing(run, plain_run) for run in doc["runs"]]}
    return {
        key: _differing(value, plain[key]) if key in ("weather", "trouble") else value
        for key, value in doc.items()
        if key == "weather" or value != plain[key]
    }


def drawn(seed: int) -> Plan:
    """Return the history of a seed."""
    draw = random.Random(seed)
    lines = [drawn_line(draw, number) for number in range(draw.randint(1, 7))]
    runs = tuple(_run(draw) for _ in range(draw.choice((1, 1, 2, 3))))
    bom, linked = draw.random() < 0.1, draw.random() < 0.1
    [spoken] = draw.choices(SPOKEN, (3, 1, 1))
    wired = draw.random() < 0.3
    if wired:
        runs = tuple(replace(run, weather=_wired(draw, run.weather)) for run in runs)
    streamed = wired and spoken == OPENAI and draw.random() < 0.5
    return Plan(seed, tuple(fitting(lines, spoken)), runs, bom, linked, spoken, wired, streamed)


def _wired(draw: random.Random, weather: Weather) -> Weather:
    """Add to a weather what happens to connections only."""
    stray, stale = (draw.random() * 0.3 * (draw.random() < 0.4) for _ in range(2))
    return replace(weather, stray=stray, stale=stale)


def drawn_line(draw: random.Random, number: int) -> dict[str, Any]:
    """Draw a line of an input."""
    same = draw.random() < 0.2
    asks = []
    for place in range(draw.choice((1, 1, 1, 2, 3))):
        kind = draw.choices(("plain", "link", "reject"), (8, 2, 0.3))[0]
        ask: dict[str, Any] = {"content": f"{kind} {0 if same else number}.{place}"}
        if draw.random() < 0.15:
            ask["images"] = ["one.png"]
        if draw.random() < 0.15:
            ask["files"] = ["two.txt", "three.txt"][: draw.randint(1, 2)]
        asks.append(ask)
    line: dict[str, Any] = {"asks": asks}
    if not same and draw.random() < 0.7:
        line = {"id": f"q-{number}", **line}
    if draw.random() < 0.2:
        line["extra"] = {"n": number}
    if draw.random() < 0.1:
        line["unknown"] = [number, "\u2028"]
    return line


def _run(draw: random.Random) -> RunPlan:
    run = _ending(draw, RunPlan(weather=_weather(draw), flags=_flags(draw)))
    if run.power_cut and run.flags["fsync"] == "never":  # which promises nothing then
        run = replace(run, flags=run.flags | {"fsync": "interval"})
    happens = [draw.random() < 0.05 for _ in range(3)]
    edited = draw.random() < 0.1
    return replace(
        run,
        jumps=((draw.random() * 3, draw.choice((-3600.0, -1.0, 86400.0))),) * happens[0],
        second_at=draw.random() * 3 * happens[1],
        damage=draw.randint(1, 3) * happens[2],
        edit=draw.choice(("add", "change", "move")) if edited else "",
    )


def _ending(draw: random.Random, run: RunPlan) -> RunPlan:
    """Draw what cuts a run short, if anything does."""
    kinds = {"round": 3, "write": 3, "trouble": 1, "signals": 1, "pause": 1, "": 1}
    [kind] = draw.choices(list(kinds), list(kinds.values()))
    match kind:
        case "round":
            at = int(math.exp(draw.uniform(1, 5.5)))
            return replace(run, die_at_round=at, power_cut=draw.random() < 0.5)
        case "write":
            return replace(run, die_at_write=draw.randint(1, 40), power_cut=draw.random() < 0.5)
        case "trouble":
            return replace(run, trouble=_trouble(draw))
        case "signals":
            first = draw.random() * 5
            numbers = [draw.choice((1, 2, 15)) for _ in range(draw.randint(1, 2))]
            signals = tuple((first + place * draw.random(), n) for place, n in enumerate(numbers))
            return replace(run, signals=signals)
        case "pause":
            return replace(run, pauses=((draw.random() * 3, draw.choice((1.0, 30.0, 1000.0))),))
        case _:
            return run


def _flags(draw: random.Random) -> dict[str, Any]:
    return {
        "goroutine": draw.choice((1, 2, 5, 20)),
        "qps": draw.choice((0.0, 1.0, 5.0, 50.0)),
        "retries": draw.choice((0, 1, 5)),
        "timeout": draw.choice((2.0, 60.0)),
        "fsync": draw.choice(("interval", "always", "interval", "interval", "never")),
        "max_calls": draw.choice((0, 0, 0, 3)),
        "max_consecutive_failures": draw.choice((20, 0, 2)),
        "grace": draw.choice((0.5, 20.0)),
        "rdb_interval": draw.choice((0.02, 60.0, 60.0)),
        "patience": draw.choice((900.0, 20.0)),
        "ramp": draw.choice((0.0, 0.0, 0.0, 10.0)),
    }


def _trouble(draw: random.Random) -> Trouble:
    if draw.random() < 0.3:
        return Trouble(sync_fails_at=draw.randint(1, 6))
    number = draw.choice((errno.ENOSPC, errno.EIO, errno.EDQUOT))
    return Trouble(draw.randint(1, 20), draw.choice((1, 3, 1000)), error=number)


def _weather(draw: random.Random) -> Weather:
    if draw.random() < 0.2:
        return CALM

    def share(most: float) -> float:
        return draw.random() * most if draw.random() < 0.4 else 0.0

    return Weather(
        refused=share(0.4),
        failed=share(0.3),
        reset=share(0.3),
        lost=share(0.2),
        cut=share(0.2),
        hang=share(0.1),
        garbage=share(0.1),
        no_answer=share(0.2),
        latency=draw.choice((0.01, 0.3, 5.0)),
        limit=draw.choice((0, 0, 2, 10)),
        limit_later=draw.choice((0, 1, 20)),
        quota_from=draw.choice((0.0, 0.0, 0.0, 0.0, 0.5)),
        quota_until=draw.choice((3.0, 30.0, 2000.0)),
        token_fails=share(0.9),
        after=draw.choice((0.0, 1.0, 7.0, 7.0, 400.0)),
        token_lasts=draw.choice((0, 0, 0, 7)),
        link_failed=share(0.5),
        forgets=draw.random() < 0.1,
    )
