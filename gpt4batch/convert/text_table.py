"""The rows of a CSV or TSV file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from gpt4batch.convert.encodings import decoded
from gpt4batch.errors import InputError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.convert.problems import Problems

LONGEST_CELL = 2**31 - 1
DELIMITERS = (",", "\t", ";", "|", "，")
NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
SAMPLE = 24
SEPARATOR = "sep="
"""How Excel names the delimiter in a line before the header."""


class TextTable:
    """A CSV or TSV file, decoded.

    Rows are counted as a spreadsheet counts them: a cell with line breaks is still in one row.
    """

    def __init__(
        self, path: str, raw: bytes, problems: Problems, *, encoding: str, delimiter: str
    ) -> None:
        self._path = path
        self._text, name = decoded(raw, path, encoding)
        if not encoding and not name.startswith("utf-8"):
            problems.notes.append(
                tr("{path}: read as {name}{sample}", path=path, name=name, sample=self._sample())
            )
        self._delimiter = NAMED.get(delimiter, delimiter)

    def _sample(self) -> str:
        """Return some of the text by which a person can tell whether the encoding was right."""
        words = self._text.split()
        start = next((place for place, word in enumerate(words) if not word.isascii()), None)
        if start is None:
            return ""
        text = " ".join(words[start : start + SAMPLE])[:SAMPLE]
        return tr(" (“{text}”); if that is wrong: --encoding NAME", text=text)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows with their numbers, from 1.

        Raises:
            InputError: The quotes of a row do not match, which hides where the next one begins.
        """
        csv.field_size_limit(LONGEST_CELL)
        number, text = 0, self._text
        if text.lower().startswith(SEPARATOR):
            number, (first, _, text) = 1, text.partition("\n")
            self._delimiter = self._delimiter or first.strip("\r")[len(SEPARATOR) :]
        delimiter = self._delimiter or _delimiter_of(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while True:
            number += 1
            try:
                yield number, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(self._path, number, _reason(str(error))) from None


def _delimiter_of(text: str) -> str:
    """Return what separates the columns of the header: what stands in it most often."""
    header = next((row for row in text.splitlines() if row.strip()), "")
    unquoted = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=unquoted.count)


def _reason(text: str) -> str:
    if "end of data" in text:
        return tr('a quote (") is opened and never closed')
    if "expected after" in text:
        return tr(
            'a cell goes on after its closing quote ("); a quote in a cell is written twice ("")'
        )
    return text
