"""Make a batch of a CSV file with a header: `gpt4batch convert` with two arguments.

python examples/csv_to_jsonl.py questions.csv prompts.jsonl

Columns: content is the question; id, images, files, model and gizmo_id may be there (several paths
are separated by semicolons); every other column goes into extra. Rows with the same id, one after
the other, are one conversation.
"""

from __future__ import annotations

import sys

from gpt4batch.cli import main

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    _, table, batch = sys.argv
    main(["convert", "--force", "-o", batch, "--", table])
