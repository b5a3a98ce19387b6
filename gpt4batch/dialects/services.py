"""The services that speak chat completions: what is their own of codes, headers and replies.

Data, with a test for each row. What is the same everywhere stands in `wordings` (codes and words)
and in `limits` (headers, whose units are told by their form and size). What no row and no wording
knows is probed, never guessed.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gpt4batch.dialects.base import Reason
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Mapping[str, Reason] = MappingProxyType({})
NO_STATUS: Mapping[int, Reason] = MappingProxyType({})


class Service(NamedTuple):
    """What one service does in a way of its own.

    Args:
        name: The service.
        hosts: The ends of its hosts' names.
        codes: Codes that mean something else here than anywhere else, in lower case.
        statuses: Statuses that say more here than their words.
        key_header: The header of a key, where that is not the usual one.
        wants_reasoning: The reasoning of a message with tool calls has to be sent back.
    """

    name: str
    hosts: tuple[str, ...] = ()
    codes: Mapping[str, Reason] = NONE
    statuses: Mapping[int, Reason] = NO_STATUS
    key_header: str = ""
    wants_reasoning: bool = False


ANY = Service("any")
"""A service of which nothing special is known, such as vLLM, Ollama, one-api or new-api."""

SERVICES = (
    Service("OpenAI", ("api.openai.com",)),
    Service(
        "Azure",
        ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
        key_header="api-key",  # openai-python, lib/azure.py
    ),
    Service(
        "DeepSeek",
        ("api.deepseek.com",),
        # 429 is the number of calls at a time, 402 an empty balance: api-docs.deepseek.com.
        statuses={429: Reason.CROWDED, 402: Reason.EMPTY_ACCOUNT},
        wants_reasoning=True,
    ),
    Service(
        "DashScope",
        ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
        # Tokens a minute, back within one: help.aliyun.com, model-studio/rate-limit.
        codes={"insufficient_quota": Reason.RATE_LIMIT},
    ),
    Service("Moonshot", ("api.moonshot.cn", "api.moonshot.ai", "api.kimi.com")),
    Service(
        "Gemini",
        ("generativelanguage.googleapis.com", "aiplatform.googleapis.com"),
        codes={"api_key_invalid": Reason.AUTH},  # with status 400
    ),
    Service("OpenRouter", ("openrouter.ai",)),
    Service(
        "Groq",
        ("api.groq.com",),
        statuses={498: Reason.CROWDED},  # flex: console.groq.com/docs/flex-processing
    ),
)


class Advice(NamedTuple):
    """What to do about a refusal: it goes behind the service's own words."""

    pattern: re.Pattern[str]
    text: str
    statuses: frozenset[int] = frozenset()


ADVICE = (
    Advice(
        re.compile(
            r"only supports? (?:the )?stream|non-streaming calls|stream(?: parameter)? must be true"
            r"|streaming is required",
            re.IGNORECASE,
        ),
        tr("set --stream"),
    ),
    Advice(
        re.compile(r"\bmodel\b|deployment|\u6a21\u578b", re.IGNORECASE),
        tr("-m, or the line's model, names the model"),
        frozenset({404}),
    ),
    Advice(
        re.compile(r"\bmodel\b.{0,80}(?:not (?:exist|found)|unknown|invalid|not supported)", re.I),
        tr("-m, or the line's model, names the model"),
        frozenset({400, 403, 422, 503}),
    ),
    Advice(
        re.compile(""),
        tr("is -u the base, or the address of chat completions?"),
        frozenset({404, 405}),
    ),
    Advice(
        re.compile(""),
        tr(
            "the body holds the line's system, asks, images and files: give it fewer or "
            "smaller ones"
        ),
        frozenset({413}),
    ),
)


def service_of(url: str) -> Service:
    """Return what is known of the service at an address."""
    host = urlsplit(url).hostname or ""
    for service in SERVICES:
        if any(host == name or host.endswith(f".{name}") for name in service.hosts):
            return service
    return ANY


def advice(status: int, words: str) -> str:
    """Return what to do about a refusal, or an empty text."""
    for item in ADVICE:
        if (not item.statuses or status in item.statuses) and item.pattern.search(words):
            return item.text
    return ""
