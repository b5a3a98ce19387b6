"""One history from its seed to its verdict."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from simulation.apart import forked
from simulation.disk import cut_power
from simulation.forms import input_line
from simulation.judge import ATTACHED, Judge
from simulation.plan import CALM, Plan, RunPlan
from simulation.run import Ended, run
from simulation.service import State

SETTLE = RunPlan(weather=CALM, flags={"qps": 0.0, "max_consecutive_failures": 0})
"""The run at the end: the same again, without a fault."""
MEMORY = Path("/dev/shm")
SHARES = (
    "refused",
    "failed",
    "reset",
    "lost",
    "cut",
    "stray",
    "stale",
    "hang",
    "garbage",
    "no_answer",
    "token_fails",
)


@dataclass(slots=True)
class Verdict:
    """What a history showed."""

    plan: Plan
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    digest: str = ""
    """Of every file at the end and of all that was said: the same for the same seed."""


def play(plan: Plan) -> Verdict:
    """Play a history in a process of its own, and judge it."""
    return forked(partial(play_here, plan))


def play_here(plan: Plan) -> Verdict:
    """Play a history in this process, and judge it."""
    root = Path(tempfile.mkdtemp(prefix="history-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        return _History(plan, root).play()
    finally:
        shutil.rmtree(root)


class _History:
    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self._root = root
        self._folder = root / "work"
        self._verdict = Verdict(plan)
        self._state = State()
        self._lines = [dict(line) for line in plan.lines]
        self._draw = random.Random(plan.seed)
        self._judge = Judge(self._folder, plan)
        self._said = hashlib.sha256()

    def play(self) -> Verdict:
        """Play it to its end."""
        self._folder.mkdir()
        for name, text in ATTACHED.items():
            (self._folder / name).write_text(text)
            os.utime(self._folder / name, (0, 0))  # it is noted of what was sent
        if self._plan.linked:
            (self._folder / "out.jsonl").symlink_to("real.jsonl")
        self._write()
        for number, step in enumerate(self._plan.runs):
            self._run(number, step)
        last = self._run(len(self._plan.runs), SETTLE)
        if not self._judge.broken:
            self._judge.conclude(self._state)
        chats = len(self._state.answers)
        if not last.summary.get("failed") and self._draw.random() < 0.25:
            self._run(len(self._plan.runs) + 1, SETTLE)
            if len(self._state.answers) > chats:
                self._judge.blame("a run of what is done made calls")
        self._verdict.broken = self._judge.broken
        self._verdict.digest = self._digest()
        return self._verdict

    def _run(self, number: int, step: RunPlan) -> Ended:
        self._change(step, number)
        ended = run(
            self._folder,
            self._plan,
            step,
            self._state,
            self._draw.randrange(1 << 30),
            fix=number > 0,
        )
        self._state = ended.state
        self._verdict.runs += 1
        _count(self._verdict.faults, step, ended.how)
        self._verdict.faults[f"run of {self._plan.spoken}"] += 1
        self._verdict.faults["run over connections"] += self._plan.wired
        self._verdict.faults["run of streams"] += self._plan.streamed
        if ended.how in ("killed", "returned") and step.power_cut:
            cut_power(self._folder, ended.durable, self._draw)
        self._said.update(ended.stderr.replace(str(self._root).encode(), b""))
        self._judge.see(step, ended)
        shutil.rmtree(self._root / f"kept-{self._folder.name}", ignore_errors=True)
        return ended

    def _change(self, step: RunPlan, number: int) -> None:
        """Do to the files what happens between two runs."""
        out = self._folder / "out.jsonl"
        if step.damage and out.exists():
            self._judge.damaged |= _damage(out, step.damage, self._draw)
        if step.edit:
            _edit(self._lines, step.edit, self._draw, number)
            self._write()

    def _write(self) -> None:
        spoken = self._plan.spoken
        text = "".join(input_line(line, spoken) + "\n" for line in self._lines)
        bom = "\ufeff" if self._plan.bom else ""
        (self._folder / "in.jsonl").write_text(bom + text, encoding="utf-8")

    def _digest(self) -> str:
        for path in sorted(self._folder.rglob("*")):
            self._said.update(str(path.relative_to(self._folder)).encode())
            if path.is_file():
                self._said.update(path.read_bytes())
        return self._said.hexdigest()


def _edit(lines: list[dict[str, Any]], how: str, draw: random.Random, number: int) -> None:
    if how == "add":
        lines.append({"id": f"added-{number}", "asks": [{"content": f"plain added {number}"}]})
    elif how == "move":
        draw.shuffle(lines)
    else:
        place = draw.randrange(len(lines))
        lines[place] = {**lines[place], "asks": [{"content": f"plain changed {number}"}]}


def _damage(out: Path, most: int, draw: random.Random) -> bool:
    """Spoil some records of an output; the numbers of their answers stay readable."""
    records = out.read_bytes().split(b"\n")
    places = [place for place, raw in enumerate(records) if b'"asks"' in raw]
    for place in draw.sample(places, min(most, len(places))):
        records[place] = records[place].replace(b'"asks"', b'"as\xffks"', 1)
    with out.open("r+b") as file:
        file.write(b"\n".join(records))
        os.fsync(file.fileno())
    return bool(places)


def _count(faults: Counter[str], step: RunPlan, how: str) -> None:
    if how == "killed":
        where = "write" if step.die_at_write else "await"
        faults[f"killed at a{'n' * (where == 'await')} {where}"] += 1
    faults["power cut"] += step.power_cut
    for name in SHARES:
        faults[name.replace("_", " ")] += bool(getattr(step.weather, name))
    weather, trouble = step.weather, step.trouble
    faults["limit"] += bool(weather.limit)
    faults["limit moves"] += bool(weather.limit and weather.limit_later)
    faults["unclear quota"] += bool(weather.quota_from)
    faults["token expired"] += bool(weather.token_lasts)
    faults["conversations forgotten"] += weather.forgets
    faults["downloads fail"] += bool(weather.link_failed)
    faults["disk full or failing"] += bool(trouble.write_fails_at)
    faults["sync fails"] += bool(trouble.sync_fails_at)
    faults["signals"] += len(step.signals)
    faults["process stopped"] += len(step.pauses)
    faults["time of day set"] += len(step.jumps)
    faults["second run"] += bool(step.second_at)
    faults["input edited"] += bool(step.edit)
    faults["records damaged"] += bool(step.damage)


def shrink(plan: Plan) -> Plan:
    """Return a smaller plan that breaks a promise still: fewer runs, lines and faults."""
    smaller = True
    while smaller:
        smaller = False
        for other in _smaller(plan):
            if play(other).broken:
                plan, smaller = other, True
                break
    return plan


def _smaller(plan: Plan) -> list[Plan]:
    found = [
        replace(plan, runs=plan.runs[:place] + plan.runs[place + 1 :])
        for place in range(len(plan.runs))
    ]
    found += [
        replace(plan, lines=plan.lines[:place] + plan.lines[place + 1 :])
        for place in range(len(plan.lines))
        if len(plan.lines) > 1
    ]
    found += [replace(plan, bom=False)] * plan.bom + [replace(plan, linked=False)] * plan.linked
    found += [replace(plan, wired=False, streamed=False)] * plan.wired
    for place, step in enumerate(plan.runs):
        found += [
            replace(plan, runs=(*plan.runs[:place], other, *plan.runs[place + 1 :]))
            for other in _calmer(step)
        ]
    return found


def _calmer(step: RunPlan) -> list[RunPlan]:
    plain = RunPlan()
    names = ("weather", "trouble", "power_cut", "signals", "pauses", "jumps", "second_at")
    found = [
        replace(step, **{name: getattr(plain, name)})
        for name in (*names, "edit", "damage")
        if getattr(step, name) != getattr(plain, name)
    ]
    for name in step.flags:
        flags = {key: value for key, value in step.flags.items() if key != name}
        found.append(replace(step, flags=flags))
    more = ("limit", "limit_later", "quota_from", "token_lasts", "link_failed", "forgets")
    for name in (*SHARES, *more):
        if getattr(step.weather, name):
            weather = replace(step.weather, **{name: type(getattr(step.weather, name))()})
            found.append(replace(step, weather=weather))
    return found
