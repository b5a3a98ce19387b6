"""The dialects that this tool speaks, and readers of replies of any of them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.base import PLAIN_ANSWER, REASONING, Answer
from gpt4batch.dialects.gpt4api import Gpt4Api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.dialects.base import Dialect, Message

GPT4API: Dialect = Gpt4Api()
DIALECTS = (GPT4API,)


def messages(reply: Any) -> Iterator[Message]:
    """Yield the messages of a reply that a person wants to see."""
    return chain.from_iterable(dialect.messages(reply) for dialect in DIALECTS)


def is_answer(reply: dict[str, Any]) -> bool:
    """Return whether any service would give such a reply for an answer."""
    return any(isinstance(dialect.answer(reply), Answer) for dialect in DIALECTS)


def answer_text(reply: Any) -> str:
    """Return what a reply says to the user, without reasoning, tool calls and their results."""
    shown = (item for item in messages(reply) if item.role == "assistant")
    return "\n\n".join(
        item.text for item in shown if item.recipient == "all" and item.kind != REASONING
    )


def told_by(reply: dict[str, Any]) -> Answer:
    """Return what a reply tells of itself: what it cost and why it ends."""
    read = (dialect.answer(reply) for dialect in DIALECTS)
    answers = (answer for answer in read if isinstance(answer, Answer))
    return max(answers, key=lambda answer: answer != PLAIN_ANSWER, default=PLAIN_ANSWER)


def model_of(reply: Any) -> str:
    """Return the model that answered, by its own word."""
    return next(filter(None, (dialect.model(reply) for dialect in DIALECTS)), "")
