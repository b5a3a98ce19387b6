"""Make a batch of a CSV file with a header.

python examples/csv_to_jsonl.py questions.csv prompts.jsonl

Columns: content is the question; id, images, files, model and gizmo_id may be there (several paths
are separated by semicolons); every other column goes into extra. Rows with the same id, one after
the other, are one conversation.
"""

from __future__ import annotations

import csv
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

OWN = {"id", "content", "images", "files", "model", "gizmo_id"}


def ask_of(row: dict[str, str], number: int) -> dict[str, Any]:
    """Return the ask of a row."""
    ask: dict[str, Any] = {"id": f"a-{number}", "content": row["content"]}
    for name in ("images", "files"):
        paths = [path.strip() for path in (row.get(name) or "").split(";")]
        if any(paths):
            ask[name] = [path for path in paths if path]
    return ask


def line_of(line_id: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the line of one conversation."""
    line: dict[str, Any] = {
        "id": line_id,
        "asks": [ask_of(row, number) for number, row in enumerate(rows, 1)],
    }
    for name in ("model", "gizmo_id"):
        if value := rows[0].get(name):
            line[name] = value
    if extra := {name: value for name, value in rows[0].items() if name not in OWN}:
        line["extra"] = extra
    return line


def main(table: str, batch: str) -> None:
    """Write the batch, a line a conversation."""
    # Excel begins its CSV files with a byte order mark; utf-8-sig drops it.
    with Path(table).open(encoding="utf-8-sig", newline="") as source:
        rows = list(csv.DictReader(source))
    if rows and "content" not in rows[0]:
        sys.exit(f"{table}: there is no column named content")
    numbered = [(row.get("id") or f"row-{number}", row) for number, row in enumerate(rows, 1)]
    with Path(batch).open("wb") as file:
        for line_id, group in groupby(numbered, key=lambda pair: pair[0]):
            file.write(orjson.dumps(line_of(line_id, [row for _, row in group])) + b"\n")
    print(f"{len(rows)} questions: {batch}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
