"""Holds the history of a fleet to its promises; shares no code with the program under test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from simulation.fleet_plan import MACHINE
from simulation.judge import Judge
from simulation.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

    from simulation.fleet import Played
    from simulation.fleet_plan import FleetPlan
    from simulation.service import State

UNSYNCED = 1.5
"""Seconds before a power cut from which on the note of a call may not be on the disk."""
GRANTED = 4.0
"""Seconds after it up to which calls leave that were granted before."""
LOCAL = 0.005
"""Seconds up to which messages of a local network are on their way."""


class FleetJudge(Judge):
    """Holds the history of a fleet to its promises."""

    def __init__(self, folder: Path, plan: FleetPlan, played: Played) -> None:
        super().__init__(folder, Plan(plan.seed, plan.lines, ()))
        self._machine = folder.parent / MACHINE
        self._history = plan
        self._played = played

    @property
    def _downloaded(self) -> Path:
        return self._machine / "downloads"

    def judge(self) -> None:
        """Look at everything."""
        played, plan = self._played, self._history
        for words in (b"Traceback", b"unexpected error", b"a defect", b"token-0"):
            if words in played.stderr:
                at = played.stderr.index(words)
                self.blame(f"it said {played.stderr[max(0, at - 200) : at + 1500].decode()}")
        if played.error:
            self.blame(played.error)
            return
        self.said = played.stderr
        self.conclude(played.state)
        cut = any("cut" in event.kind for event in plan.events)
        if plan.rate and not played.kills["coordinator"] and not cut:
            self._hold_pace(plan.rate, played.state.calls)

    def _hold_pace(self, rate: float, calls: list[float]) -> None:
        most = max(
            (sum(1 for one in calls[place:] if one < at + 1.0) for place, at in enumerate(calls)),
            default=0,
        )
        varying = self._history.ways.most > LOCAL  # a second may see one more
        if most > rate * 1.02 + 1 + varying:
            self.blame(f"{most} calls in one second at -q {rate:g}")

    def _account(self, state: State, used: set[int], lines: list[dict[str, Any]]) -> None:
        del lines  # no line is begun anew here
        text = self.said
        if self._played.folder:
            text += (self.folder.parent / "work" / "out.jsonl").read_bytes()
        elsewhere = {int(found) for found in re.findall(rb"answer (\d+)", text)}
        missing = [one for one in state.answers if one.serial not in used | elsewhere]
        told = sum(
            one["unanswered"] + one["fleet"]["asked_again"] for one in self._played.summaries
        )
        unnoted = sum(
            any(cut - UNSYNCED < one.asked < cut + GRANTED for cut in self._played.cuts)
            for one in missing
        )
        if len(missing) > told + unnoted:
            serials = [(one.serial, one.ask) for one in missing]
            self.blame(f"answers {serials} are paid for and gone; told were {told}")

    def _leftovers(self) -> None:
        spools = [path.name for path in (self._machine / "spool").glob("*-spool*")]
        if spools and self._played.swept and not self._history.events:  # else the next one sends
            self.blame(f"{spools} are left over in the spool")
        for name in ("out.jsonl.fleet", "out.jsonl.inflight", "out.jsonl.lock"):
            if (self.folder / name).exists():
                self.blame(f"{name} is left over")
