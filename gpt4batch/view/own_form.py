"""Lines of other formats as our own form has them: the page shows that form alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.lines.formats.batch import Batch
from gpt4batch.lines.reading import parse

if TYPE_CHECKING:
    from gpt4batch.view.index import Index

MARK = b'"custom_id"'
"""What every line of a batch file and of its output holds."""
BATCH = Batch()


def own_form(line: bytes) -> bytes:
    """Return the text of a line in our own form; as it is where it is no whole line of another."""
    if MARK not in line:
        return line
    try:
        found = BATCH.result(line)
        return BATCH.own(line) if found is line else found
    except (KeyError, ValueError):
        return line


def is_result(line: bytes) -> bool:
    """Return whether a line is a row of another format's output, which repeats no question."""
    return MARK in line and BATCH.result(line) is not line


def record_of(index: Index, row: int) -> dict[str, Any] | None:
    """Return a row in our own form, with its question out of the input where it has none."""
    record = parsed(index.read(row))
    asked = parsed(index.question(row)) if record else None
    return {**asked, **record, "asks": asked["asks"]} if record and asked else record


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line as an object in our own form, None where it is none."""
    return parse(own_form(line))
