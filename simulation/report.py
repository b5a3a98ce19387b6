"""What many histories came to, and the part of a page that tells of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = "<!-- simulation: written by `python -m simulation --write` -->"
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


def write_report(page: Path, tally: Tally) -> None:
    """Write the counts into a page, between its two marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    chinese = "zh" in page.parts
    last = tally.first + tally.played - 1
    if chinese:
        told = (
            f"共模拟 {tally.played:,} 段历史（种子 {tally.first} 到 {last}），"
            f"含 {tally.runs:,} 次运行，用时 {tally.seconds:,.0f} 秒"
            f"（每秒 {tally.pace:.1f} 段）；每项承诺都得到遵守。"
        )
        head = "| 故障 | 发生该故障的运行数 |"
    else:
        told = (
            f"{tally.played:,} histories were played (seeds {tally.first} to {last}), with "
            f"{tally.runs:,} runs in them, in {tally.seconds:,.0f} s ({tally.pace:.1f} a second); "
            "every promise was kept in each."
        )
        head = "| fault | runs that had it |"
    rows = [f"| {name} | {count:,} |" for name, count in sorted(tally.faults.items()) if count]
    table = "\n".join([head, "| --- | ---: |", *rows])
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{table}\n\n{END}{after}", encoding="utf-8")
