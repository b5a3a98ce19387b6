"""The command: run the cells, print their counts and the matrix, fail when a promise breaks."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from pathlib import Path

from chaos.cells import CELLS, Cell
from chaos.lab import hear_signals, room
from chaos.matrix import Found, document, table


def main() -> int:
    """Run the campaign and return its exit code."""
    options = arguments()
    hear_signals()
    logging.getLogger("gpt4batch").setLevel(logging.CRITICAL)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed} (again with: make chaos SEED={seed})", flush=True)
    began = time.monotonic()
    chosen = [cell for cell in CELLS if options.only in cell.name]
    found = [work(cell, seed, short=options.short) for cell in chosen]
    broken = sum(not one.held for one in found)
    print(table(found))
    print(f"{broken} of {len(found)} broken, {time.monotonic() - began:.0f} s, seed {seed}")
    if options.write and not broken:
        page = Path(options.write)
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        _, mark, more = old.partition("\n## ")  # what other means have found
        page.write_text(document(found, seed) + mark + more, encoding="utf-8")
    return 1 if broken else 0


def work(cell: Cell, seed: int, *, short: bool) -> Found:
    """Work one cell; say whether its promises held, and what was counted."""
    start = time.monotonic()
    with room(cell.name, seed, short=short) as lab:
        try:
            cell.run(lab)
            held = True
        except Exception:  # noqa: BLE001 - the other cells are run all the same
            traceback.print_exc()
            held = False
    verdict = "held  " if held else "BROKEN"
    counted = ", ".join(f"{name} {number:,}" for name, number in sorted(lab.counts.items()))
    print(f"{verdict} {cell.name:14} {time.monotonic() - start:6.1f} s  {counted}", flush=True)
    return Found(cell, held, lab.counts, lab.used)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--short", action="store_true", help="a minute's worth")
    parser.add_argument("--only", default="", help="cells whose names contain this")
    parser.add_argument("--write", default="", help="write the matrix to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
