"""One property under atheris, which changes its cases by what they make the code do.

python -m chaos.fuzz PROPERTY RUNS SEED FOLDER, where the property is a number and the folder takes
the case that broke it. The exit code is 0 where it held.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["gpt4batch"]):
    from chaos.properties import fuzzed

LONGEST = 4096
"""Bytes that a case is drawn from."""


def main() -> None:
    """Fuzz; the process ends with it."""
    number, runs, seed, folder = sys.argv[1:]
    logging.getLogger("gpt4batch").setLevel(logging.CRITICAL)
    words = [f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={folder}/"]
    words += ["-len_control=0", "-print_final_stats=1", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], *words], fuzzed(int(number)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
