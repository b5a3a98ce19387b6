"""The command: run the cells, print their counts and the matrix, fail when a promise breaks."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from chaos.cells import CELLS
from chaos.lab import room


def main() -> int:
    """Run the campaign and return its exit code."""
    options = arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed} (again with: make chaos SEED={seed})", flush=True)
    broken, began = 0, time.monotonic()
    for cell in CELLS:
        if options.only and options.only not in cell.name:
            continue
        start = time.monotonic()
        with room(cell.name, seed, short=options.short) as lab:
            try:
                cell.run(lab)
                verdict = "held"
            except Exception:  # noqa: BLE001 - the other cells are run all the same
                traceback.print_exc()
                verdict, broken = "BROKEN", broken + 1
        shown = ", ".join(f"{name} {number:,}" for name, number in sorted(lab.counts.items()))
        print(f"{verdict:6} {cell.name:14} {time.monotonic() - start:6.1f} s  {shown}", flush=True)
    print(f"{broken} broken, {time.monotonic() - began:.0f} s, seed {seed}")
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--short", action="store_true", help="a minute's worth")
    parser.add_argument("--only", default="", help="cells whose names contain this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
