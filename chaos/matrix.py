"""The matrix of fault and promise, as it is printed and as it is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.cells import Cell
    from chaos.lab import Counts

    Found = list[tuple[Cell, bool, Counts]]

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

Run it with `make chaos` (a quarter of an hour) or `make chaos-short` (for every change). Both print
their seed; `make chaos SEED=7` repeats a run. Root, on Linux, gets real file systems that fill up;
elsewhere a limit on the size of files stands in for them.

"""


def table(found: Found) -> str:
    """Return the matrix in Markdown."""
    rows = [
        "| fault | " + " | ".join(PROMISES) + " | counted |",
        "| --- |" + " --- |" * (len(PROMISES) + 1),
    ]
    for cell, held, counts in found:
        marks = ["held" if held else "BROKEN"] * len(PROMISES)
        shown = [
            "–" if name in cell.beside else mark for name, mark in zip(PROMISES, marks, strict=True)
        ]
        counted = ", ".join(
            f"{name.replace('_', ' ')} {number:,}" for name, number in sorted(counts.items())
        )
        rows.append(f"| {cell.fault} | {' | '.join(shown)} | {counted} |")
    return "\n".join(rows)


def document(found: Found, seed: int) -> str:
    """Return the page that tells of a campaign."""
    return f"{HEAD}Measured with seed {seed}:\n\n{table(found)}\n"
