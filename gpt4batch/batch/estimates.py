"""How many tokens a run may take, from the texts that it sends; or better, from answers it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpt4batch.lines.reading import listed, mapped
from gpt4batch.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from gpt4batch.lines.parse import Line

ASCII = re.compile(r"[\x00-\x7f]+")
ASCII_A_TOKEN, OTHERS_A_TOKEN = 4.0, 1.3
"""Characters of a token, English and Chinese: half as many and twice as many occur."""
ASSUMED_ANSWER = 500
"""Tokens of an answer, as long as none is known."""
PER_MESSAGE = 4


class Estimate:
    """Tokens of calls that have not been made, and those of calls that have."""

    def __init__(self) -> None:
        self._asked = 0.0
        self._repeated = 0
        self._chats = 0
        self._known = NO_USAGE
        self._answers = 0

    def take(self, line: Line) -> None:
        """Count the calls of a line that are to be made; each sends the whole conversation."""
        if (request := line.request()) is not None:
            self._asked += tokens_of(request[1].decode(errors="replace"))
            self._chats += 1
            return
        said = tokens_of(str(line.options.get("system") or ""))
        for place, ask in enumerate(line.asks):
            said += tokens_of(ask.content) + PER_MESSAGE
            if place >= line.answered:
                self._asked += said
                self._repeated += place
                self._chats += 1

    def learn(self, meta: dict[str, Any]) -> None:
        """Learn from what an earlier run noted of a line."""
        for item in listed(meta.get("asks")):
            tokens = listed(mapped(item).get("tokens"))
            if len(tokens) == len(Usage._fields) and all(isinstance(n, int) for n in tokens):
                self._known = self._known.plus(Usage(*tokens))
                self._answers += 1

    @property
    def is_learned(self) -> bool:
        """Return whether earlier answers tell what calls take."""
        return self._answers > 0

    def total(self) -> Usage:
        """Return the tokens that the calls are expected to take."""
        if self._answers:
            share = self._chats / self._answers
            return Usage(*(round(count * share) for count in self._known))
        answers = ASSUMED_ANSWER * self._chats
        return Usage(round(self._asked + ASSUMED_ANSWER * self._repeated), 0, answers)


def tokens_of(text: str) -> float:
    """Return about how many tokens a text has."""
    others = len(ASCII.sub("", text))
    return (len(text) - others) / ASCII_A_TOKEN + others / OTHERS_A_TOKEN
