"""A batch of tables, pictures or another batch: all its lines as a run reads them, or a refusal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from gpt4batch.convert import pictures, requests, tables
from gpt4batch.convert.problems import Problems
from gpt4batch.convert.settings import STREAM
from gpt4batch.errors import InputError, UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.known import Rows
from gpt4batch.lines.parse import BOM, BadLine, Id
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from gpt4batch.convert.settings import ConvertSettings


ROWS = Rows()


class Batch(NamedTuple):
    """The text of each line, the number of questions in them, and what is worth knowing."""

    lines: list[bytes]
    questions: int
    notes: list[str]


class _Writer:
    """Takes in lines; no two may have the same id, which their results go by."""

    def __init__(self, problems: Problems) -> None:
        self.lines: list[bytes] = []
        self.questions = 0
        self._problems = problems
        self._places: dict[Id, str] = {}

    def add(self, place: str, raw: bytes, line_id: Id) -> None:
        """Take in the line that was made of a place."""
        try:
            self.questions += len(ROWS.parse(raw).asks)
        except BadLine as error:
            self._problems.found.append(tr("{place}: {error}", place=place, error=error))
        first = self._places.setdefault(line_id, place)
        if first != place:
            self._problems.found.append(
                tr(
                    "{place}: the id {id!r} is that of {first}, too: give each its own; "
                    "rows of one conversation stand together, or are named by a column "
                    "(--conversation)",
                    place=place,
                    id=line_id,
                    first=first,
                )
            )
        self.lines.append(raw)


def batch_of(settings: ConvertSettings, question: str) -> Batch:
    """Return the batch that the settings ask for; `question` is asked about pictures by default.

    Raises:
        UsageError: Something cannot be read, each with its place and reason.
    """
    problems = Problems()
    writer = _Writer(problems)
    folder = Path() if settings.out == STREAM else Path(settings.out).parent
    asks = settings.ask or (question,)
    for path in settings.files:
        if path != STREAM and (Path(path).is_dir() or _is_picture(path)):
            for place, line in pictures.lines_of([path], folder, asks, problems):
                writer.add(pictures.readable(place), rawjson.dumps(line), line["id"])
        elif (raw := _content(path)).lstrip(BOM).startswith(b"{"):
            batch = requests.Reader(path, problems, lossy=settings.lossy)
            for row, text, line_id in anyio.run(batch.lines, raw):
                writer.add(f"{path}:{row}", text, line_id)
        else:
            for row, line in _table(path, raw, folder, settings, problems):
                writer.add(f"{path}:{row}", rawjson.dumps(line), line["id"])
    problems.refuse()
    return Batch(writer.lines, writer.questions, problems.notes)


def _is_picture(path: str) -> bool:
    try:
        return pictures.is_picture(Path(path))
    except OSError as error:
        raise UsageError(
            tr("{path}: cannot be read: {reason}", path=path, reason=because(error))
        ) from None


def _content(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STREAM else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = because(error) if isinstance(error, OSError) else error
        raise UsageError(tr("{path}: cannot be read: {reason}", path=path, reason=reason)) from None


def _table(
    path: str, raw: bytes, folder: Path, settings: ConvertSettings, problems: Problems
) -> list[tuple[int, dict[str, Any]]]:
    try:
        table = tables.opened(
            path,
            raw,
            problems,
            sheet=settings.sheet,
            encoding=settings.encoding,
            delimiter=settings.delimiter,
        )
    except InputError as error:
        problems.found.append(error)
        return []
    return tables.Reader(path, folder, settings.columns(), problems).lines(table)
