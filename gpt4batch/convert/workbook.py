"""The rows of an XLSX workbook, each cell as the sheet shows it."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gpt4batch.errors import InputError, UsageError
from gpt4batch.words import counted, tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.convert.problems import Problems

MOST_COLUMNS = 1000
EXACT_DIGITS = 10**15
"""A spreadsheet keeps 15 digits of a number; the others are zeros by then."""

BROKEN = (
    OSError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, NotImplementedError,
)  # fmt: skip
"""What the library raises at a damaged file, by the place of the damage."""

DECIMALS = re.compile(r"0(?:\.(0+))?(%?)")
FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")


class Workbook:
    """One sheet of a workbook."""

    def __init__(self, path: str, raw: bytes, problems: Problems, *, sheet: str) -> None:
        self._path = path
        self._raw = raw
        self._problems = problems
        self._long = 0
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as file:
                sheets = [name for name in file.namelist() if name.startswith("xl/worksheets/")]
                xml = [file.read(name) for name in sheets if name.endswith(".xml")]
            merged = any(b"<mergeCell " in text or b":mergeCell " in text for text in xml)
            # Merged cells are only known where the whole sheet is loaded.
            self._book = self._load(values=True, whole=merged)
            self._sheet = self._chosen(sheet)
            # For the cells below the first one of a merged range: where that one is.
            self._merged = {
                (row, area.min_col): (area.min_row, area.min_col)
                for area in (self._sheet.merged_cells.ranges if merged else ())
                for row in range(area.min_row + 1, area.max_row + 1)
            }
            formulas = any(FORMULA.search(text) for text in xml)
            self._uncalculated = self._formulas() if formulas else set()
        except BROKEN as error:
            raise UsageError(
                tr(
                    "{path} is not an XLSX workbook that can be read: {error}",
                    path=path,
                    error=error,
                )
            ) from None

    def _load(self, *, values: bool, whole: bool = False) -> Any:
        try:
            import openpyxl
        except ImportError:
            raise UsageError(
                tr(
                    "{path} is a workbook: to read it, pip install 'gpt4batch[tables]', or save "
                    "it as CSV",
                    path=self._path,
                )
            ) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and rules that are not needed
            return openpyxl.load_workbook(
                io.BytesIO(self._raw), read_only=not whole, data_only=values
            )

    def _chosen(self, name: str) -> Any:
        sheets = self._book.worksheets
        if name:
            found = [sheet for sheet in sheets if sheet.title == name]
            if not found:
                titles = ", ".join(sheet.title for sheet in sheets)
                raise UsageError(
                    tr(
                        "--sheet {name!r}: {path} has only: {titles}",
                        name=name,
                        path=self._path,
                        titles=titles,
                    )
                )
            return found[0]
        shown = [sheet for sheet in sheets if sheet.sheet_state == "visible"] or sheets
        if not shown:
            raise UsageError(tr("{path} has no sheet with cells", path=self._path))
        if len(sheets) > 1:
            text = tr(
                "{path}: the sheet {title!r} of {count} is read; --sheet NAME takes another",
                path=self._path,
                title=shown[0].title,
                count=len(sheets),
            )
            self._problems.notes.append(text)
        return shown[0]

    def _formulas(self) -> set[tuple[int, int]]:
        """Return where the sheet has a formula."""
        sheet = self._load(values=False)[self._sheet.title]
        sheet.reset_dimensions()
        return {
            (cell.row, cell.column)
            for row in sheet.iter_rows(max_col=MOST_COLUMNS)
            for cell in row
            if cell.value is not None and cell.data_type == "f"
        }

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows with their numbers, from 1.

        Raises:
            InputError: The file is damaged behind the row before.
        """
        sheet, number = self._sheet, 0
        if hasattr(sheet, "reset_dimensions"):
            sheet.reset_dimensions()  # other programs write wrong ones
        last: dict[tuple[int, int], str] = {}
        rows = sheet.iter_rows(max_col=min(sheet.max_column or MOST_COLUMNS, MOST_COLUMNS))
        while True:
            number += 1
            try:
                cells = next(rows, None)
            except BROKEN as error:
                raise InputError(
                    self._path, number, tr("cannot be read: {error}", error=error)
                ) from None
            if cells is None:
                break
            texts = [
                self._shown(cell, number, column, last) for column, cell in enumerate(cells, 1)
            ]
            while texts and not texts[-1]:
                texts.pop()
            yield number, texts
        self._tell()

    def _shown(self, cell: Any, row: int, column: int, last: dict[tuple[int, int], str]) -> str:
        first = self._merged.get((row, column))
        if first is not None:
            return last.get(first, "")
        if cell.value is None and (row, column) in self._uncalculated:
            reason = tr("the formula in {coordinate} has no value yet", coordinate=cell.coordinate)
            self._problems.add(
                self._path, row, tr("{reason}: open the file and save it again", reason=reason)
            )
        if cell.data_type == "e":
            self._problems.add(
                self._path,
                row,
                tr(
                    "{coordinate} shows the error {value}",
                    coordinate=cell.coordinate,
                    value=cell.value,
                ),
            )
        if isinstance(cell.value, int | float) and abs(cell.value) >= EXACT_DIGITS:
            self._long += 1
        text = shown(cell.value, getattr(cell, "number_format", "") or "")
        if self._merged:
            last[row, column] = text
        return text

    def _tell(self) -> None:
        if self._merged:
            text = tr(
                "{path}: merged cells: every row has the value of its first one", path=self._path
            )
            self._problems.notes.append(text)
        if self._long:
            text = counted(
                "{path}: {n:,} number with more than 15 digits, of which a spreadsheet keeps 15: "
                "format ids as text",
                "{path}: {n:,} numbers with more than 15 digits, of which a spreadsheet keeps 15: "
                "format ids as text",
                self._long,
                path=self._path,
            )
            self._problems.notes.append(text)


def shown(value: Any, number_format: str = "General") -> str:
    """Return a cell's value as the sheet shows it, as far as that loses nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return _number(value, number_format) if isinstance(value, int | float) else str(value)


def _number(value: float, number_format: str) -> str:
    whole = float(value).is_integer()  # as ids are, which would else become 1.0 or 1.2e+18
    if number_format.strip("0") == "" and number_format and whole and value >= 0:
        return str(int(value)).zfill(len(number_format))
    if found := DECIMALS.fullmatch(number_format):
        return f"{value:.{len(found[1] or '')}{'%' if found[2] else 'f'}}"
    if not whole:
        return f"{value:.15g}"
    return str(value) if isinstance(value, int) else f"{Decimal(repr(value)):.0f}"
