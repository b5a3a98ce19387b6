"""The command `results`: an output becomes a table, or a list of what failed."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Any

from gpt4batch.cli.streams import tell
from gpt4batch.convert.settings import STREAM, ResultsSettings
from gpt4batch.errors import UsageError, first_of
from gpt4batch.lines.steering import printable
from gpt4batch.words import counted, joined, say, spoken, tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.convert.results import Results

SETTINGS = ResultsSettings
HELP = tr(
    "Make a table of an output: CSV, TSV, XLSX or Markdown, a row an ask; or list what failed."
)
EXAMPLES = (
    "gpt4batch results out.jsonl -o out.csv",
    "gpt4batch results out.jsonl --failed",
)
DAMAGED = 1


def action(settings: ResultsSettings) -> None:
    """Write the table; exit with 1 where the output has lines that cannot be read."""
    from gpt4batch.convert.results import Results, columns_of
    from gpt4batch.convert.whole_file import refuse_taken, whole_file

    logging.getLogger("gpt4batch").addHandler(logging.NullHandler())
    columns = columns_of(settings.columns)
    if settings.out != STREAM:
        refuse_taken(settings.out, [settings.output], force=settings.force)
    with closing(Results(settings.output)) as results:
        to_file = settings.out != STREAM
        with whole_file(settings.out) if to_file else _standard_output(settings) as file:
            if settings.failed:
                count = _list_failed(file, settings.output, results)
            else:
                count = _write(file, columns, results, settings)
        if to_file:
            rows = counted("{n:,} row", "{n:,} rows", count)
            tell(printable(say("{path}: {rows}", path=settings.out, rows=rows)))
        _tell_of(results, settings.output)
        sys.exit(DAMAGED if results.damaged else 0)


def _write(file: IO[bytes], columns: list[str], results: Results, settings: ResultsSettings) -> int:
    """Write the table and return the number of its rows."""
    from gpt4batch.convert import writers
    from gpt4batch.convert.results import cells_of, kept

    rows = (
        cells_of(row, columns)
        for result in results
        if kept(result, settings.only)
        for row in result.rows()
    )
    if settings.form == "xlsx":
        return writers.write_workbook(file, columns, rows)
    if settings.form == "markdown":
        return writers.write_markdown(file, columns, rows)
    bom = settings.bom and settings.form == "csv" and settings.out != STREAM
    delimiter = "\t" if settings.form == "tsv" else ","
    return writers.write_text(
        file, columns, rows, delimiter=delimiter, bom=bom, guard=settings.guard
    )


def _list_failed(file: IO[bytes], path: str, results: Results) -> int:
    """Write a line for each line of the output that failed, and return their number."""
    from gpt4batch.convert.results import kept
    from gpt4batch.lines.reading import text_of

    count = 0
    for result in results:
        if kept(result, "failed"):
            count += 1
            error = result.error
            cells = [result.record.get("id"), *map(error.get, ("stage", "code", "message"))]
            fields = [f"{path}:{result.number}", *map(text_of, cells)]
            line = "\t".join(printable(" ".join(field.split())) for field in fields)
            file.write(line.encode(errors="backslashreplace") + b"\n")
    return count


class _Terminal(io.BytesIO):
    """A terminal: text from elsewhere is shown in it and cannot steer it."""

    def write(self, data: Any, /) -> int:
        """Write a text."""
        sys.stdout.write(printable(bytes(data).decode().replace("\r\n", "\n")))
        return len(data)


@contextmanager
def _standard_output(settings: ResultsSettings) -> Iterator[IO[bytes]]:
    if not sys.stdout.isatty():
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if settings.form == "xlsx" and not settings.failed:
        raise UsageError(tr("--format xlsx: no terminal can show a workbook: name a file with -o"))
    yield _Terminal()


def _tell_of(results: Results, path: str) -> None:
    """Say what the table does not hold."""
    if results.is_log:
        text = say(
            "gpt4batch: {path} is the log of a run that is on or was killed: lines that "
            "were not begun are not in it",
            path=path,
        )
        tell(printable(text))
    if results.damaged:
        left_out = counted(
            "gpt4batch: left out, as it cannot be read: {n:,} line",
            "gpt4batch: left out, as they cannot be read: {n:,} lines",
            len(results.damaged),
        )
        tell(printable(spoken(joined("\n", (left_out, first_of(results.damaged))))))
