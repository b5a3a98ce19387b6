"""Make a CSV file of an output: a row an ask, with its answer's text, downloads and error.

python examples/results_to_csv.py out.jsonl results.csv

It is `gpt4batch results` with these columns; see there for others.
"""

from __future__ import annotations

import sys

from gpt4batch.cli import main

COLUMNS = "id,ask_id,question,answer,downloads,error"

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    _, output, table = sys.argv
    main(["results", "--force", "--format=csv", "-o", table, f"--columns={COLUMNS}", "--", output])
