"""Tables as CSV, TSV, XLSX and Markdown."""

from __future__ import annotations

import csv
import io
import re
from typing import IO, TYPE_CHECKING, Any

from gpt4batch.convert.cells import harmless, harmless_id
from gpt4batch.errors import UsageError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Rows = Iterable[list[Any]]

LONGEST_CELL = 32_767
"""What a cell of a workbook holds, in units of UTF-16."""

MOST_ROWS = 1_048_576
CUT = "… [cut: {:,} characters in all]"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML cannot hold."""

IDS = ("id", "ask_id")
MARKUP = str.maketrans({"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;"})


def write_text(
    file: IO[bytes],
    columns: list[str],
    rows: Rows,
    *,
    delimiter: str = ",",
    bom: bool = True,
    guard: bool = True,
) -> int:
    """Write CSV, or TSV with tabs, and return the number of rows."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    disarm: list[Callable[[Any], Any]] = [
        harmless_id if name in IDS else harmless for name in columns
    ]
    file.write("\ufeff".encode() if bom else b"")
    writer.writerow(columns)
    count = 0
    for row in rows:
        count += 1
        cells = zip(disarm, row, strict=True)
        writer.writerow([make(cell) for make, cell in cells] if guard else row)
        file.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
    file.write(text.getvalue().encode())
    return count


def write_markdown(file: IO[bytes], columns: list[str], rows: Rows) -> int:
    """Write a table of Markdown and return the number of rows."""

    def record(cells: Iterable[Any]) -> bytes:
        return f"| {' | '.join(map(_markdown, cells))} |\n".encode()

    file.write(record(columns) + f"|{' --- |' * len(columns)}\n".encode())
    count = 0
    for row in rows:
        count += 1
        file.write(record(row))
    return count


def _markdown(cell: Any) -> str:
    """Return a cell in one line, with nothing in it that ends it or is taken for HTML."""
    text = "" if cell is None else str(cell)
    return "<br>".join(text.translate(MARKUP).splitlines())


def write_workbook(file: IO[bytes], columns: list[str], rows: Rows) -> int:
    """Write XLSX and return the number of rows.

    Raises:
        UsageError: The library is missing, or there are more rows than a sheet holds.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
    except ImportError:
        raise UsageError(tr("XLSX needs an extra: pip install 'gpt4batch[tables]'")) from None
    book = Workbook(write_only=True)
    sheet = book.create_sheet("results")
    sheet.freeze_panes = "A2"

    def cell_of(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = CONTROL.sub("", value)
        whole = text.encode("utf-16-le")
        if len(whole) > 2 * LONGEST_CELL:
            note = CUT.format(len(text))
            room = 2 * (LONGEST_CELL - len(note))
            text = whole[:room].decode("utf-16-le", errors="ignore") + note
        cell = WriteOnlyCell(sheet, value=text)
        cell.data_type = "s"  # also where the text begins with =
        return cell

    sheet.append(columns)
    count = 0
    for count, row in enumerate(rows, 1):
        if count >= MOST_ROWS:
            raise UsageError(
                tr("a sheet holds {most_rows:,} rows at most: write CSV", most_rows=MOST_ROWS)
            )
        sheet.append([cell_of(value) for value in row])
    book.save(file)
    return count
