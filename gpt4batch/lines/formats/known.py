"""The formats that an input may have, and which one it has by its first line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.batch import Batch

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
            "the input is an OpenAI batch file, whose requests go to an OpenAI-compatible service:"
            " name its address by -u (such as https://api.openai.com/v1), or set --api openai"
        )
    return batch
