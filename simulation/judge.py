"""Holds a history to the promises; shares no code with the program under test."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.forms import BATCH, read_back
from simulation.run import PASSWORD, Ended

if TYPE_CHECKING:
    from pathlib import Path

    from simulation.plan import Plan, RunPlan
    from simulation.service import Answer, State

ATTACHED = {"one.png": "one", "two.txt": "two", "three.txt": "three"}
"""The files that asks may name, and what is in them."""
ASIDE = re.compile(r"(out|real)\.\d{8}-\d{6}(-\d+)?\.jsonl")
SNAPSHOT = re.compile(r"\.\d{8}-\d{4}-(in|out|real|in-out|in-real)\.jsonl")
KEYS = ("id", "asks", "extra", "unknown")
SYNC = 1.0
"""Seconds in which a written answer has to be on the disk."""
ROOM = 0.5
"""Seconds more, for the write itself and the loop's rounds."""


@dataclass(slots=True)
class Judge:
    """What is known of a history so far, and which promises it broke."""

    folder: Path
    plan: Plan
    broken: list[str] = field(default_factory=list)
    told: int = 0
    """Chats that the runs said may have been paid for though no answer came."""
    ends: dict[int, tuple[RunPlan, Ended]] = field(default_factory=dict)
    said: bytes = b""
    """What all runs wrote to standard error."""
    edited: bool = False
    damaged: bool = False

    def blame(self, what: str) -> None:
        """Note a broken promise."""
        self.broken.append(what)

    @property
    def _downloaded(self) -> Path:
        """Return where downloads are."""
        return self.folder / "downloads"

    # -- after each run ----------------------------------------------------------------------

    def see(self, run: RunPlan, ended: Ended) -> None:
        """Look at one run that has ended."""
        number = ended.state.run
        self.ends[number] = (run, ended)
        self.said += ended.stderr
        self.edited |= bool(run.edit)
        troubled = run.trouble.write_fails_at or run.trouble.sync_fails_at
        if ended.how in ("crashed", "endless"):
            self.blame(f"run {number} {ended.how}: {ended.error} {ended.stderr[-400:]!r}")
        if ended.how == "refused" and not troubled:
            self.blame(f"run {number} refused: {ended.error}")
        if ended.second not in ("", "refused"):
            self.blame(f"run {number}: a second run of its output {ended.second}")
        for words in (
            b"Traceback",
            b"unexpected error",
            b"a defect",
            PASSWORD.encode(),
            b"token-0",
        ):
            if words in ended.stderr and ended.how != "crashed":
                place = ended.stderr.index(words)
                self.blame(f"run {number} said {ended.stderr[max(0, place - 200) : place + 900]!r}")
        self._pace(number, run, ended)
        if ended.how == "returned":
            self._summary(number, run, ended)
        elif ended.how == "killed" and not list(self.folder.glob("*.inflight")):
            # It had shown its summary, or there was nothing to be noted.
            self.told += max(ended.lost, 0)

    def _pace(self, number: int, run: RunPlan, ended: Ended) -> None:
        rate = run.flags.get("qps", 0.0)
        calls = ended.state.calls
        most = rate * 1.02 + 1
        if self.plan.wired:  # stopped while it connects, a run sends late what had its turn
            most += len(run.pauses)
        for place, moment in enumerate(calls):
            within = sum(1 for other in calls[place:] if other < moment + 1.0)
            if rate and within > most:
                self.blame(f"run {number}: {within} calls in one second at -q {rate:g}")
                return

    def _summary(self, number: int, run: RunPlan, ended: Ended) -> None:
        summary, state = ended.summary, ended.state
        self.told += summary["unanswered"] + summary["killed_in_flight"]
        # What is given up while it connects is counted; a chat is told as one that may be paid for.
        spare = summary["unanswered"], run.flags.get("goroutine", 60)
        known = state.chats, state.uploaded
        for key, counted, more in zip(("chats", "uploads"), known, spare, strict=True):
            if not counted <= summary[key] <= counted + more * self.plan.wired:
                self.blame(f"run {number}: {key} {summary[key]}, the service counted {counted}")
        most = run.flags.get("max_calls", 0)
        if most and state.chats > most:
            self.blame(f"run {number}: {state.chats} chats with --max-calls {most}")
        if summary["exit_code"] == 4:
            if not (run.trouble.write_fails_at or run.trouble.sync_fails_at):
                self.blame(f"run {number}: exit 4 without trouble: {summary['stopped']}")
            return
        lines = self._lines()
        states = [_state(line) for line in lines]
        counts = {name: states.count(name) for name in ("done", "failed", "not_run")}
        found = {name: summary[name] for name in counts}
        if counts != found:
            self.blame(f"run {number}: the summary says {found}, the output {counts}")
        self._order(lines)
        expected = self._exit_code(run, summary, counts)
        if summary["exit_code"] not in expected:
            self.blame(f"run {number}: exit {summary['exit_code']}, not {expected}: {counts}")

    def _exit_code(self, run: RunPlan, summary: dict[str, Any], counts: dict[str, int]) -> set[int]:
        if not counts["failed"] and not counts["not_run"]:
            return {0, 3} if summary["stopped"] else {0}
        allowed = {1}
        if summary["stopped"]:
            allowed = {3} | {128 + number for _, number in run.signals}
        return allowed if counts["not_run"] or summary["stopped"] else {1}

    # -- at the end --------------------------------------------------------------------------

    def conclude(self, state: State) -> None:
        """Look at what is left after everything was run again without a fault."""
        lines = self._lines()
        self._order(lines)
        by_serial = {answer.serial: answer for answer in state.answers}
        used: set[int] = set()
        for place, line in enumerate(lines):
            line.setdefault("asks", self._given()[place]["asks"])  # rows do not say what was asked
            refused = any(ask["content"].startswith("reject") for ask in line["asks"])
            if _state(line) != ("failed" if refused else "done"):
                self.blame(f"line {place + 1} is {_state(line)} at the end: {line.get('iErr')}")
            self._line(place + 1, line, by_serial, used, state)
        self._account(state, used, lines)
        self._leftovers()

    def _line(
        self,
        number: int,
        line: dict[str, Any],
        by_serial: dict[int, Answer],
        used: set[int],
        state: State,
    ) -> None:
        before: Answer | None = None
        for ask, reply in zip(line["asks"], line["answers"] or (), strict=False):
            serial = _serial(reply)
            answer = by_serial[serial]
            if serial in used:
                self.blame(f"line {number}: answer {serial} stands twice in the output")
            used.add(serial)
            if answer.ask != ask["content"]:
                self.blame(f"line {number}: {ask['content']!r} has the answer to {answer.ask!r}")
            if before and (answer.conversation, answer.parent) != (
                before.conversation,
                f"m-{before.serial}",
            ):
                self.blame(f"line {number}: answer {serial} is not of the thread")
            if not before and answer.parent:
                self.blame(f"line {number}: its first answer has a parent")
            names = [*ask.get("images", ()), *ask.get("files", ())]
            contents = tuple((self.folder / name).read_text() for name in names)
            if answer.files != contents:
                self.blame(f"line {number}: sent {answer.files}, not {contents}")
            self._downloads(number, reply, state)
            before = answer

    def _downloads(self, number: int, reply: dict[str, Any], state: State) -> None:
        wanted = reply.get("downloads") or []
        noted = reply.get("spec_downloads") or []
        if [item["origin"] for item in noted] != wanted:
            self.blame(f"line {number}: {len(noted)} of {len(wanted)} downloads are noted")
        for item in noted:
            path = self._downloaded / item["local"]
            if not path.is_file() or path.read_bytes() != state.files[item["origin"]]:
                self.blame(f"line {number}: the bytes of {item['local']} are not those sent")

    def _account(self, state: State, used: set[int], lines: list[dict[str, Any]]) -> None:
        """Find every answer that the service gave, or what was told of it."""
        text = self.said + b"".join(path.read_bytes() for path in self.folder.glob("*.2*.jsonl"))
        elsewhere = {int(found) for found in re.findall(rb"answer (\d+)", text)}
        superseded = {
            int(found)
            for line in lines
            for found in re.findall(r"answer (\d+)", json.dumps(line.get("meta", {})))
        }
        forgets = any(run.weather.forgets for run, _ in self.ends.values())
        if superseded and not forgets:
            self.blame(
                f"answers {sorted(superseded)} were asked again though nothing was forgotten"
            )
        missing = [
            answer for answer in state.answers if answer.serial not in used | elsewhere | superseded
        ]
        for answer in missing:
            run, ended = self.ends[answer.run]
            if answer.arrived < 0 or (ended.how == "killed" and not run.power_cut):
                continue
            if ended.how != "killed" or answer.arrived < ended.seconds - SYNC - ROOM:
                self.blame(
                    f"answer {answer.serial} came at {answer.arrived:.2f} of run {answer.run},"
                    f" which {ended.how} at {ended.seconds:.2f}, and is lost"
                )
        if not any(run.power_cut for run, _ in self.ends.values()) and len(missing) > self.told:
            serials = [answer.serial for answer in missing]
            self.blame(f"answers {serials} are paid for and gone; told were {self.told}")

    def _leftovers(self) -> None:
        for path in self.folder.iterdir():
            known = path.name in self._known() or SNAPSHOT.fullmatch(path.name)
            torn = any(run.power_cut or run.die_at_write for run, _ in self.ends.values())
            aside = (self.edited or self.damaged or torn) and ASIDE.fullmatch(path.name)
            if not known and not aside:
                self.blame(f"{path.name} is left over")
        if self.plan.linked and not (self.folder / "out.jsonl").is_symlink():
            self.blame("the link was replaced by a file")
        parts = [path.name for path in self._downloaded.glob("*.part")]
        if parts:
            self.blame(f"{parts} are left over")

    def _known(self) -> set[str]:
        real = "real.jsonl" if self.plan.linked else "out.jsonl"
        return {"in.jsonl", "out.jsonl", "downloads", real, *ATTACHED}

    def _lines(self) -> list[dict[str, Any]]:
        raw = (self.folder / "out.jsonl").read_bytes()
        return [read_back(json.loads(line)) for line in raw.split(b"\n") if line.strip()]

    def _given(self) -> list[dict[str, Any]]:
        raw = (self.folder / "in.jsonl").read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return [read_back(json.loads(line)) for line in raw if line.strip()]

    def _order(self, lines: list[dict[str, Any]]) -> None:
        given = self._given()
        if self.plan.spoken == BATCH:
            given = [{"id": line["id"]} for line in given]
            lines = [{"id": line["id"]} for line in lines]
        kept = [{key: line.get(key) for key in KEYS} for line in lines]
        if kept != [{key: line.get(key) for key in KEYS} for line in given]:
            self.blame("the output has not the lines of the input, in their order")


def _serial(reply: dict[str, Any]) -> int:
    if "choices" in reply:
        text = reply["choices"][0]["message"]["content"]
    else:
        text = reply["contents"][0]["message"]["content"]["parts"][0]
    return int(text.removeprefix("answer "))


def _state(line: dict[str, Any]) -> str:
    error = line.get("iErr")
    if error and error["message"] == "resource is not ready":
        return "not_run"
    if error:
        return "failed"
    asks = len(line["asks"]) if "asks" in line else 1
    return "done" if len(line["answers"] or ()) == asks else "not_run"
