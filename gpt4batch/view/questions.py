"""Rows of batch outputs with their questions, which stand in the input alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.lines.formats.known import parse

if TYPE_CHECKING:
    from gpt4batch.view.index import Index

MARKS = (b'"custom_id"', b'"response"')
"""What every row of a batch output holds."""


def lacks_question(line: bytes) -> bool:
    """Return whether a line of an output is a row that does not repeat what was asked."""
    return all(mark in line for mark in MARKS)


def record_of(index: Index, row: int) -> dict[str, Any] | None:
    """Return the record of a row, with its question out of the input where it has none."""
    record = parse(index.read(row))
    asked = parse(index.question(row)) if record else None
    return {**asked, **record, "asks": asked["asks"]} if record and asked else record
