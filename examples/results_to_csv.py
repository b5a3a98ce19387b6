"""Make a CSV file of a finished output: a row an ask, with its answer's text, downloads and error.

python examples/results_to_csv.py out.jsonl results.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

COLUMNS = ["id", "ask_id", "question", "answer", "downloads", "error"]


def text_of(answer: dict[str, Any]) -> str:
    """Return what the assistant said: the text of its last message."""
    for content in reversed(answer.get("contents") or []):
        message = content.get("message") or {}
        parts = (message.get("content") or {}).get("parts") or []
        text = "\n".join(part for part in parts if isinstance(part, str))
        if (message.get("author") or {}).get("role") == "assistant" and text:
            return text
    return ""


def rows_of(line: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield a row for each ask of a line."""
    answers = line.get("answers") or []
    error = (line.get("iErr") or {}).get("message", "")
    for place, ask in enumerate(line["asks"]):
        answer = answers[place] if place < len(answers) else {}
        files = [item["local"] for item in answer.get("spec_downloads") or [] if item["local"]]
        cells = [ask["content"], text_of(answer), ";".join(files), "" if answer else error]
        yield [line.get("id"), ask.get("id"), *map(harmless, cells)]


def harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: answers are not to be trusted."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def main(output: str, table: str) -> None:
    """Write the table. Excel reads its encoding from the byte order mark."""
    with (
        Path(output).open("rb") as lines,
        Path(table).open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerows(rows_of(orjson.loads(line)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
