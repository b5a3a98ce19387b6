"""The matrix of fault and promise, as it is printed and as it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.cells import Cell
    from chaos.lab import Counts

PROMISES = ("none lost", "none paid twice", "nothing silent", "it ends")

HEAD = """# Faults

Each row is a fault that was made to happen to real processes, with the embedded service as the
witness: it counts every ask that it answered, and every one that it answered before. A promise
that held is marked, with what was counted. The table is written by the campaign itself.

- **none lost**: every answer the service gave is in the output or, where no disk would take it, on
  standard error; at the end each line is done once, in input order, with the answer to its own
  asks; every download is there, byte for byte.
- **none paid twice**: no ask that was answered was asked again. After `SIGKILL` the asks in flight
  at that moment may be: no client can know what became of them. `in flight` is how many the killed
  runs noted, `asked twice` those of them that the service had answered.
- **nothing silent**: the exit code is the one that the reference gives for the case, and no
  traceback is shown.
- **it ends**: the process ended by itself within its time.

`flags` are those that the runs of a row were given beside `-q=0 -g=8`, which all have; where a row
names none of `--retries`, `--timeout` and `--max-consecutive-failures`, their defaults hold. `…`
stands for several values.

Run it with `make chaos` (half an hour) or `make chaos-short` (for every change). Both print
their seed; `make chaos SEED=7` repeats a run. Root, on Linux, gets real file systems that fill up;
elsewhere a limit on the size of files stands in for them.

"""


@dataclass(frozen=True)
class Found:
    """What came of a cell, and the flags that its runs were given."""

    cell: Cell
    held: bool
    counts: Counts
    used: set[str]


def table(found: list[Found]) -> str:
    """Return the matrix in Markdown."""
    rows = [
        "| fault | flags | " + " | ".join(PROMISES) + " | counted |",
        "| --- | --- |" + " --- |" * (len(PROMISES) + 1),
    ]
    for one in found:
        mark = "held" if one.held else "BROKEN"
        shown = ["–" if name in one.cell.beside else mark for name in PROMISES]
        counted = ", ".join(
            f"{name.replace('_', ' ')} {number:,}" for name, number in sorted(one.counts.items())
        )
        rows.append(f"| {one.cell.fault} | {flags(one.used)} | {' | '.join(shown)} | {counted} |")
    return "\n".join(rows)


def flags(used: set[str]) -> str:
    """Return the flags of a cell's runs, with the value where all had the same one."""
    values: dict[str, set[str]] = {}
    for word in used:
        name, _, value = word.partition("=")
        values.setdefault(name, set()).add(value)
    shown = []
    for name, found in sorted(values.items()):
        (value, *more) = sorted(found)
        value = "…" if more or "/" in value else value
        shown.append(f"`{name}={value}`" if value else f"`{name}`")
    return " ".join(shown) or "–"


def document(found: list[Found], seed: int) -> str:
    """Return the page that tells of a campaign."""
    return f"{HEAD}Measured with seed {seed}:\n\n{table(found)}\n"
