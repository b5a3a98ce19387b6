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
            # Some of the text tells a person whether the encoding was right.
            words, sample = self._text.split(), tr("")
            start = next((place for place, word in enumerate(words) if not word.isascii()), None)
            if start is not None:
                text = " ".join(words[start : start + SAMPLE])[:SAMPLE]
                sample = tr(" (“{text}”); if that is wrong: --encoding NAME", text=text)
            problems.notes.append(
                tr("{path}: read as {name}{sample}", path=path, name=name, sample=sample)
            )
        self._delimiter = NAMED.get(delimiter, delimiter)

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
        header = next((row for row in text.splitlines() if row.strip()), "")
        unquoted = "".join(header.split('"')[::2])
        delimiter = self._delimiter or max(DELIMITERS, key=unquoted.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while True:
            number += 1
            try:
                yield number, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(self._path, number, _reason(str(error))) from None


def _reason(text: str) -> str:
    if "end of data" in text:
        return tr('a quote (") is opened and never closed')
    if "expected after" in text:
        return tr(
            'a cell goes on after its closing quote ("); a quote in a cell is written twice ("")'
        )
    return text
