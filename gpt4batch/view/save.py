"""Lines to keep: as JSONL that is an input again, as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from gpt4batch.convert.cells import harmless
from gpt4batch.dialects.known import answer_text
from gpt4batch.lines.reading import (
    attached,
    listed,
    mapped,
    text_of,
)
from gpt4batch.view.questions import record_of
from gpt4batch.view.record import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpt4batch.view.index import Index

COLUMNS = (
    "line", "id", "state", "ask_id", "ask", "attachments", "answer", "downloads",
    "seconds", "attempts", "code", "stage", "message",
)  # fmt: skip


def jsonl(index: Index, rows: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines as they are."""
    for row in rows:
        yield index.read(row).strip() + b"\n"


def table(index: Index, rows: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines as CSV, one record an ask; begins with a BOM, as spreadsheets want it."""
    yield "\ufeff".encode() + record_bytes(COLUMNS)
    for row in rows:
        state = State(index.rows.state[row]).name.lower()
        for cells in asks_of(record_of(index, row) or {}):
            yield record_bytes([row + 1, cells[0], state, *cells[1:]])


def record_bytes(cells: Iterable[Any]) -> bytes:
    """Return one CSV record."""
    text = io.StringIO()
    csv.writer(text).writerow([harmless(cell) for cell in cells])
    return text.getvalue().encode()


def asks_of(record: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the cells of each ask of a line; a line without asks still gives one record."""
    replies = listed(record.get("answers"))
    calls = listed(mapped(record.get("meta")).get("asks"))
    error = mapped(record.get("iErr"))
    failure = [error.get("code"), text_of(error.get("stage")), text_of(error.get("message"))]
    for turn, item in enumerate(listed(record.get("asks")) or [{}]):
        ask = mapped(item)
        reply = replies[turn] if turn < len(replies) else None
        call = mapped(calls[turn]) if turn < len(calls) else {}
        names = [text_of(name) for part in attached(ask) for name in part]
        yield [
            text_of(record.get("id")),
            text_of(ask.get("id")),
            text_of(ask.get("content")),
            " | ".join(names),
            answer_text(reply),
            " | ".join(local_names(reply)),
            call.get("seconds"),
            call.get("attempts"),
            *failure,
        ]


def local_names(reply: Any) -> list[str]:
    """Return the names of a reply's downloaded files."""
    items = listed(mapped(reply).get("spec_downloads"))
    return [text_of(mapped(item).get("local")) for item in items if mapped(item).get("local")]
