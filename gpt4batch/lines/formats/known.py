"""The formats that an input may have, and which one it has by its first line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson, reading
from gpt4batch.lines.formats.asks import Asks
from gpt4batch.lines.formats.batch import Batch, said_before
from gpt4batch.lines.parse import BATCH, BOM, BadLine, Line, decoded, parse_line
from gpt4batch.lines.reading import mapped
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.lines.formats.base import Format


def form_of(first: bytes, asks: Format, batch: Batch | None) -> Format:
    """Return the format of an input.

    Args:
        first: Its first line.
        asks: The format of lines of asks.
        batch: That of batch files; None where the service does not take their requests.

    Raises:
        UsageError: It is a batch file, and the service does not take it.
    """
    try:
        doc = rawjson.loads(first)
    except rawjson.JSONError:
        return asks
    if not Batch.knows(doc):
        return asks
    if batch is None:
        raise UsageError(
            tr(
                "the input is an OpenAI batch file, whose requests go to an "
                "OpenAI-compatible service: name its address by -u (such as "
                "https://api.openai.com/v1), or set --api openai"
            )
        )
    return batch


class Rows(Batch):
    """The rows of a batch output, for whoever only reads them."""

    def parse(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return what a row says of its line.

        Raises:
            BadLine: It is no row.
        """
        line = parse_line(self.own(raw), index, number)
        line.raw = raw  # as it stands in the file
        return line

    def own(self, raw: bytes) -> bytes:
        """Return a row, or a line of a batch file, in our own form."""
        text = self.result(raw)
        if text is not raw or b'"custom_id"' not in raw:
            return text
        doc = decoded(raw)
        return super().own(raw) if isinstance(doc.get("body"), dict) and "custom_id" in doc else raw


def form_of_output(first: bytes) -> Format:
    """Return the format of an output by its first line."""
    return form_of(first, Asks(), Rows())


def parse(line: bytes) -> dict[str, Any] | None:
    """Return a record of any format as people read it; None for what is no object."""
    if b'"custom_id"' in line or BATCH.encode() in line:
        try:
            line = _ROWS.own(line.removeprefix(BOM))
        except BadLine:
            return None
    record = reading.parse(line)
    request = mapped((record or {}).get(BATCH))
    if record is not None and request:
        body = mapped(request.get("body"))
        record |= {"model": body.get("model"), "system": said_before(body)}
    return record


_ROWS = Rows()
