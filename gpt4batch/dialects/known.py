"""The dialects that this tool speaks: which one a run speaks, and readers of replies of any."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpt4batch.dialects.base import PLAIN_ANSWER, REASONING, Answer
from gpt4batch.dialects.gpt4api import Gpt4Api
from gpt4batch.dialects.openai import OpenAI
from gpt4batch.dialects.services import service_of
from gpt4batch.errors import UsageError
from gpt4batch.settings import DEFAULT_URL
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.dialects.base import Dialect, Message
    from gpt4batch.settings import Settings, WorkerSettings

GPT4API: Dialect = Gpt4Api()
OPENAI: Dialect = OpenAI()
DIALECTS = (GPT4API, OPENAI)

ENDS = (
    (GPT4API.name, re.compile(r"/(?:all-tools|gizmos)/*$")),
    (OPENAI.name, re.compile(r"/(?:chat/completions|v\d+\w*)/*$")),
)
"""How the path of an address ends, by the dialect that is spoken there."""


def dialect_for(settings: Settings | WorkerSettings) -> Dialect:
    """Return the dialect that a run speaks: by `--api`, else as its address says.

    Raises:
        UsageError: Neither says, or a flag belongs to the other dialect.
    """
    name = settings.api or _by_address(settings.url)
    if name == GPT4API.name:
        if settings.stream:
            raise UsageError(tr("--stream: gpt4api has no streams; it belongs to --api openai"))
        return GPT4API
    if gizmo := getattr(settings, "gizmo_id", ""):
        raise UsageError(
            tr(
                "-z {gizmo}: gizmos are those of --api gpt4api; with openai, leave it out",
                gizmo=gizmo,
            )
        )
    elsewhere = any(getattr(settings, name, False) for name in ("origin", "mock", "fleet"))
    if settings.url == DEFAULT_URL and not elsewhere:
        raise UsageError(
            tr(
                "--api openai needs -u: the base of the service, such as "
                "https://api.deepseek.com/v1"
            )
        )
    service = service_of(settings.url)
    return OpenAI(service, settings.failing, stream=settings.stream, url=settings.url)


def _by_address(url: str) -> str:
    path = urlsplit(url).path
    for name, end in ENDS:
        if end.search(path):
            return name
    raise UsageError(
        tr(
            "-u {url}: its path does not tell which dialect is spoken there; set --api "
            "gpt4api or --api openai (it follows from an end in /all-tools or /gizmos, "
            "and in /chat/completions or /v1)",
            url=url,
        )
    )


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
