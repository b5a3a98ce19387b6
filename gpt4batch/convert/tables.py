"""Tables to lines: a row is an ask, the rows of one conversation are one line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch.convert.columns import Header, Row
from gpt4batch.convert.pictures import reason_against
from gpt4batch.convert.text_table import TextTable
from gpt4batch.convert.workbook import Workbook
from gpt4batch.errors import InputError, UsageError
from gpt4batch.words import counted, tr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpt4batch.convert.problems import Problems

ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ADDRESS = re.compile(r"(?:https?|data):", re.IGNORECASE)


OF_LINES = {"model": "model", "gizmo-id": "gizmo_id", "system": "system"}
"""The columns that are keys of a whole line, and the keys."""


@dataclass(slots=True)
class Conversation:
    """The rows of one line, so far."""

    id: str
    first: Row
    asks: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """The row of each ask, by its id."""

    def line(self) -> dict[str, Any]:
        """Return the line."""
        line: dict[str, Any] = {"id": self.id, "asks": self.asks}
        for meaning, key in OF_LINES.items():
            if value := self.first[meaning]:
                line[key] = value
        if self.first.extra:
            line["extra"] = dict(self.first.extra)
        return line


def opened(
    path: str, raw: bytes, problems: Problems, *, sheet: str, encoding: str, delimiter: str
) -> TextTable | Workbook:
    """Return a file as a table, by what it holds.

    Raises:
        UsageError: It is of a kind that cannot be read.
    """
    if raw.startswith(OLE):
        raise UsageError(
            tr(
                "{path} is an old .xls workbook, or one with a password: save it as .xlsx "
                "without one",
                path=path,
            )
        )
    if raw.startswith(ZIP):
        if b"mimetypeapplication/vnd.oasis" in raw[:100]:
            raise UsageError(
                tr("{path} is an OpenDocument file: save it as .xlsx or .csv", path=path)
            )
        return Workbook(path, raw, problems, sheet=sheet)
    if sheet:
        raise UsageError(tr("--sheet {sheet!r}: {path} is not a workbook", sheet=sheet, path=path))
    return TextTable(path, raw, problems, encoding=encoding, delimiter=delimiter)


class Reader:
    """Makes lines of the rows of one table.

    Args:
        path: The table, for messages; its folder is where the paths in it start.
        batch: The folder of the batch, where the paths of its lines start.
        given: The columns that were named by flags.
        problems: Takes in what is wrong with a row.
    """

    def __init__(self, path: str, batch: Path, given: Mapping[str, str], problems: Problems):
        self._path = path
        self._batch = batch
        self._given = given
        self._problems = problems
        self._folder = Path(path).parent
        self._missing: list[str] = []
        self._followed = 0

    def lines(self, table: TextTable | Workbook) -> list[tuple[int, dict[str, Any]]]:
        """Return the lines of a table, each with the number of its first row."""
        held: dict[object, Conversation] = {}
        last: object = None
        count = 0
        for row in self._rows(table):
            count += 1
            name = row["conversation"]
            line_id = name or row["id"] or f"row-{count}"
            key: object = ("conversation", name) if name else ("row", count)
            if "conversation" not in row.cells and row["id"] and held and held[last].id == line_id:
                key = last
                self._followed += 1
            if key not in held:
                held[key] = Conversation(line_id, row)
            self._add(row, held[key])
            last = key
        if not count and not self._problems.found:
            raise UsageError(tr("{path} has no rows below its header", path=self._path))
        self._tell()
        return [(talk.first.number, talk.line()) for talk in held.values()]

    def _rows(self, table: TextTable | Workbook) -> Iterator[Row]:
        """Yield the rows below the header that are not blank and not refused."""
        header: Header | None = None
        try:
            for number, cells in table.rows():
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    header = Header(self._path, cells, self._given)
                elif reason := self._reason_against(header, cells):
                    self._problems.add(self._path, number, reason)
                else:
                    yield header.row(number, cells)
        except InputError as error:
            self._problems.found.append(error)
            return
        if header is None:
            raise UsageError(tr("{path} is empty", path=self._path))

    def _reason_against(self, header: Header, cells: list[str]) -> str:
        if any("\0" in cell for cell in cells):
            return tr("there is a NUL byte in it")
        if any(cell.strip() for cell in cells[len(header.names) :]):
            return tr(
                "{count} cells, but the header has {known}: is a quote or a delimiter missing?",
                count=len(cells),
                known=len(header.names),
            )
        return ""

    def _add(self, row: Row, talk: Conversation) -> None:
        """Add a row to its conversation."""
        number = len(talk.asks) + 1
        separate = bool(row["conversation"]) and row["id"] != row["conversation"]
        ask_id = (row["id"] if separate else "") or f"a-{number}"
        images = self._paths(row, "image")
        files = self._paths(row, "file")
        for reason in self._conflicts(row, talk, ask_id, attached=bool(images or files)):
            self._problems.add(self._path, row.number, reason)
        talk.rows[ask_id] = row.number
        ask: dict[str, Any] = {"id": ask_id, "content": row.cells["content"]}
        if images:
            ask["images"] = images
        if files:
            ask["files"] = files
        first = talk.first.extra
        if own := {name: text for name, text in row.extra.items() if text != first.get(name)}:
            # A follow-up that leaves a column empty has nothing to say there.
            own = {name: text for name, text in own.items() if text.strip()}
            ask |= {"extra": own} if own else {}
        talk.asks.append(ask)

    def _conflicts(
        self, row: Row, talk: Conversation, ask_id: str, *, attached: bool
    ) -> Iterator[str]:
        """Yield what is wrong with a row as a part of its conversation."""
        if not row.cells["content"].strip() and not attached:
            yield tr("the question is empty")
        for meaning, word in OF_LINES.items():
            mine, first = row[meaning], talk.first[meaning]
            if mine and mine != first:
                begins = tr(
                    "the conversation {id!r} begins with {first!r}",
                    id=talk.id,
                    first=first or "none",
                )
                yield tr(
                    "the {word} is {mine!r}, but {begins} in row {number}",
                    word=word,
                    mine=mine,
                    begins=begins,
                    number=talk.first.number,
                )
        if ask_id in talk.rows:
            where = tr("row {row} of the conversation {id!r}", row=talk.rows[ask_id], id=talk.id)
            yield tr("the id {ask_id!r} is that of {where}, too", ask_id=ask_id, where=where)

    def _paths(self, row: Row, meaning: str) -> list[str]:
        """Return the paths in a cell, as they are written in a batch; pictures are looked at."""
        found = [path.strip() for path in re.split(r"[;\n]", row[meaning]) if path.strip()]
        return [
            path if ADDRESS.match(path) else self._placed(row, path, picture=meaning == "image")
            for path in found
        ]

    def _placed(self, row: Row, path: str, *, picture: bool) -> str:
        try:
            real = next(
                (
                    folder / path
                    for folder in (self._folder, self._batch)
                    if os.path.lexists(folder / path)
                ),
                None,
            )
        except (OSError, ValueError) as error:
            self._problems.add(
                self._path,
                row.number,
                tr("{path}: no path: {error}", path=path[:100], error=error),
            )
            return path
        if real is None:
            self._missing.append(f"{self._path}:{row.number}: {path}")
            return path
        if picture and (reason := reason_against(real)):
            self._problems.add(
                self._path, row.number, tr("{path} {reason}", path=path, reason=reason)
            )
        if real == self._batch / path or self._folder.resolve() == self._batch.resolve():
            return path
        return os.path.relpath(self._folder.resolve() / path, self._batch.resolve())

    def _tell(self) -> None:
        if self._followed:
            text = counted(
                "{path}: {n:,} row with the id of the row before: taken as a further question of "
                "one conversation",
                "{path}: {n:,} rows with the id of the row before: taken as further questions of "
                "one conversation",
                self._followed,
                path=self._path,
            )
            self._problems.notes.append(text)
        if self._missing:
            text = counted(
                "{n:,} attachment not there yet: {first}",
                "{n:,} attachments not there yet, the first: {first}",
                len(self._missing),
                first=self._missing[0],
            )
            self._problems.notes.append(text)
