"""One history from its seed to its verdict."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simulation.disk import cut_power
from simulation.judge import Judge
from simulation.plan import CALM, Plan, RunPlan
from simulation.run import run
from simulation.service import State

SETTLE = RunPlan(weather=CALM, flags={"qps": 0.0, "max_consecutive_failures": 0})
"""The run at the end: the same again, without a fault."""
ATTACHED = {"one.png": "one", "two.txt": "two", "three.txt": "three"}


@dataclass(slots=True)
class Verdict:
    """What a history showed."""

    plan: Plan
    broken: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    bytes: bytes = b""
    """The output at the end."""


def play(plan: Plan) -> Verdict:
    """Play a history and judge it."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="history-", dir=memory if memory.is_dir() else None))
    try:
        return _play(plan, root)
    finally:
        shutil.rmtree(root)


def _play(plan: Plan, root: Path) -> Verdict:
    folder, verdict, state = root / "work", Verdict(plan), State()
    folder.mkdir()
    for name, text in ATTACHED.items():
        (folder / name).write_text(text)
    lines = [dict(line) for line in plan.lines]
    _write(folder, lines)
    judge = Judge(folder, plan)
    draw = random.Random(plan.seed)
    for number, step in enumerate((*plan.runs, SETTLE, SETTLE)):
        if step.edit:
            _edit(lines, step.edit, draw, number)
            _write(folder, lines)
        ended = run(folder, step, state, draw.randrange(1 << 30), fix=number > 0)
        state = ended.state
        verdict.runs += 1
        _count(verdict.faults, step, ended.how)
        if ended.how == "killed" and step.power_cut:
            cut_power(folder, ended.durable, draw)
        judge.see(step, ended)
        shutil.rmtree(root / "kept", ignore_errors=True)
    if not judge.broken:
        judge.conclude(state)
    verdict.broken = judge.broken
    verdict.bytes = (folder / "out.jsonl").read_bytes() if (folder / "out.jsonl").exists() else b""
    return verdict


def _write(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "in.jsonl").write_text(text)


def _edit(lines: list[dict[str, Any]], how: str, draw: random.Random, number: int) -> None:
    if how == "add":
        lines.append({"id": f"added-{number}", "asks": [{"content": f"plain added {number}"}]})
    elif how == "move":
        draw.shuffle(lines)
    else:
        place = draw.randrange(len(lines))
        lines[place] = {**lines[place], "asks": [{"content": f"plain changed {number}"}]}


def _count(faults: Counter[str], step: RunPlan, how: str) -> None:
    if how == "killed":
        where = "write" if step.die_at_write else "await"
        faults[f"killed at a{'n' * (where == 'await')} {where}"] += 1
        faults["power cut"] += step.power_cut
    for name in ("refused", "failed", "reset", "lost", "cut", "hang", "garbage", "no_answer"):
        faults[name] += bool(getattr(step.weather, name))
    faults["limit"] += bool(step.weather.limit)
    faults["token expired"] += bool(step.weather.token_lasts)
    faults["conversations forgotten"] += step.weather.forgets
    faults["disk trouble"] += bool(step.trouble.write_fails_at or step.trouble.sync_fails_at)
    faults["signals"] += len(step.signals)
    faults["process stopped"] += len(step.pauses)
    faults["input edited"] += bool(step.edit)


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
    found = []
    for place in range(len(plan.runs)):
        found.append(replace(plan, runs=plan.runs[:place] + plan.runs[place + 1 :]))
    for place in range(len(plan.lines)):
        if len(plan.lines) > 1:
            found.append(replace(plan, lines=plan.lines[:place] + plan.lines[place + 1 :]))
    for place, step in enumerate(plan.runs):
        for other in _calmer(step):
            found.append(replace(plan, runs=(*plan.runs[:place], other, *plan.runs[place + 1 :])))
    return found


def _calmer(step: RunPlan) -> list[RunPlan]:
    plain = RunPlan()
    found = [
        replace(step, **{name: getattr(plain, name)})
        for name in ("weather", "trouble", "power_cut", "signals", "pauses", "edit")
        if getattr(step, name) != getattr(plain, name)
    ]
    for name in step.flags:
        flags = {key: value for key, value in step.flags.items() if key != name}
        found.append(replace(step, flags=flags))
    for name in (
        "refused",
        "failed",
        "reset",
        "lost",
        "cut",
        "hang",
        "garbage",
        "no_answer",
        "limit",
        "token_lasts",
        "link_failed",
        "forgets",
    ):
        if getattr(step.weather, name):
            weather = replace(step.weather, **{name: type(getattr(step.weather, name))()})
            found.append(replace(step, weather=weather))
    return found
