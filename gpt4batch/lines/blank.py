"""Asks that ask nothing, which the service would answer and charge for all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.lines.parse import Line


def blank_ask(line: Line) -> str:
    """Return what is wrong where an ask without an answer has neither text nor attachments."""
    for place in range(max(line.answered, 0), len(line.asks)):
        ask = line.asks[place]
        if not ask.content.strip() and not ask.images and not ask.files:
            return tr(
                "ask {number} is blank: it has neither text nor attachments", number=place + 1
            )
    return ""
