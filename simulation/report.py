"""What many histories came to: the counts of a campaign, the sum of all, and the pages of both."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
STORE = Path(__file__).parent / "histories.json"
PAGES = (DOCS / "faults.md", DOCS / "zh" / "faults.md")
BEGIN = "<!-- simulation: written by `python -m simulation --record` -->"
END = "<!-- simulation: end -->"


@dataclass(slots=True)
class Tally:
    """The counts of a campaign that began at a seed."""

    first: int = 0
    played: int = 0
    runs: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)

    def take(self, seed: int, faults: Counter[str], runs: int, *, failed: bool) -> None:
        """Count one history."""
        self.played += 1
        self.runs += runs
        self.faults += faults
        if failed:
            self.failed.append(seed)

    @property
    def pace(self) -> float:
        """Return the histories a second."""
        return self.played / self.seconds if self.seconds else 0.0

    def words(self) -> list[str]:
        """Return the counts as lines of text."""
        took = f"in {self.seconds:.0f} s: {self.pace:.1f} a second"
        lines = [f"{self.played:,} histories of {self.runs:,} runs {took}"]
        lines += [f"  {count:8,} {name}" for name, count in sorted(self.faults.items()) if count]
        lines.append(f"{self.played - len(self.failed):,} passed, {len(self.failed)} failed")
        return lines


def record(kind: str, tally: Tally) -> None:
    """Add the counts of a campaign to those of all, and write the pages anew.

    Args:
        kind: `runs` or `fleet`.
        tally: The counts.
    """
    known: dict[str, Any] = json.loads(STORE.read_text())
    numbers = known[kind]
    for name, more in (
        ("played", tally.played),
        ("runs", tally.runs),
        ("seconds", round(tally.seconds)),
        ("broken", len(tally.failed)),
    ):
        numbers[name] += more
    numbers["faults"] = dict(sorted((Counter(numbers["faults"]) + tally.faults).items()))
    STORE.write_text(json.dumps(known, indent=1) + "\n")
    write_pages()


def write_pages() -> None:
    """Write the sum of all campaigns into the pages, between two marks."""
    known = json.loads(STORE.read_text())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        told = _in_chinese(known) if "zh" in page.parts else _in_english(known)
        page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}", encoding="utf-8")


def _in_english(known: dict[str, Any]) -> str:
    runs, fleet = known["runs"], known["fleet"]
    told = (
        f"{runs['played']:,} histories were played so far, with {runs['runs']:,} runs in them, in "
        f"{runs['seconds'] / 3600:.1f} hours, and {fleet['played']:,} of a fleet, with "
        f"{fleet['runs']:,} coordinators. {runs['broken']} and {fleet['broken']} of them broke a "
        "promise: what was at fault, the tool or the judge, is mended, and they keep it now."
    )
    return told + "\n\n" + _table(known, "| fault | runs that had it |")


def _in_chinese(known: dict[str, Any]) -> str:
    runs, fleet = known["runs"], known["fleet"]
    told = (
        f"至今共模拟 {runs['played']:,} 段历史，含 {runs['runs']:,} 次运行，"
        f"用时 {runs['seconds'] / 3600:.1f} 小时；另有 {fleet['played']:,} 段集群的历史，"
        f"含 {fleet['runs']:,} 个协调进程。其中 {runs['broken']} 段和 {fleet['broken']} 段"
        "违背了承诺：过错在工具或在裁判的，均已改正，重演时承诺得到遵守。"
    )
    return told + "\n\n" + _table(known, "| 故障 | 发生该故障的运行数 |")


def _table(known: dict[str, Any], head: str) -> str:
    faults = {**known["runs"]["faults"], **known["fleet"]["faults"]}
    rows = [f"| {name} | {count:,} |" for name, count in faults.items()]
    return "\n".join([head, "| --- | ---: |", *rows])
