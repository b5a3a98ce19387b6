"""The replies of OpenAI-compatible services, as functions of the question.

Source of shapes: https://github.com/openai/openai-openapi (openapi.yaml).
"""

from __future__ import annotations

import struct
import time
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256, shake_128
from typing import TYPE_CHECKING, Any

import orjson

from gpt4batch.mock.digests import digest, letters_of
from gpt4batch.mock.openai_asks import tokens_of
from gpt4batch.mock.replies import answer_text, filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.mock.openai_asks import Question, Said

SORRY = "I'm sorry, but I can't assist with that request."
FINGERPRINT = "fp_mock"
DIMENSIONS = 16
"""The numbers of an embedding where the question does not say how many it wants."""
CACHED_FROM, CACHED_BY = 1024, 128
"""Prompts of so many tokens are cached, in pieces of so many: what OpenAI documents."""


@dataclass(frozen=True, slots=True)
class Making:
    """What a reply follows from, besides its question.

    Args:
        key: The digest of the question.
        seed: The service's seed.
        size: Least length of its text in bytes.
        number: How often the question was answered before.
        reasoning: Whether it tells how it was found.
        finish: Why it ends early, or is no answer; empty where it is a whole one.
    """

    key: bytes
    seed: int = 0
    size: int = 0
    number: int = 0
    reasoning: bool = False
    finish: str = ""

    def name(self, prefix: str, *what: object) -> str:
        """Return an id."""
        return prefix + letters_of(digest(self.key, self.number, *what), 29)


def thread_text(messages: Sequence[Said], seed: int = 0, size: int = 0) -> str:
    """Return the text that answers the last of some messages: a function of its arguments alone.

    It is what the other dialect answers; where other messages come first, it holds their digest.
    """
    *before, last = messages
    text = answer_text(last.text, last.sha256s, seed=seed)
    if before:
        told = [[said.role, said.text, said.sha256s, said.calls.decode()] for said in before]
        text += f"\nafter {len(before)} messages of sha256 {sha256(orjson.dumps(told)).hexdigest()}"
    return filled(text, size)


def chat_completion(question: Question, making: Making) -> dict[str, Any]:
    """Return the reply to a chat: the object `chat.completion`."""
    number = question.body.get("n") or 1
    choices = [_choice(question, making, place) for place in range(number)]
    written = sum(map(_written, choices))
    thought = sum(tokens_of(it["message"].get("reasoning_content", "")) for it in choices)
    return {
        "id": making.name("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": question.model,
        "choices": choices,
        "usage": usage_of(question, written + thought, thought),
        "service_tier": question.body.get("service_tier") or "default",
        "system_fingerprint": FINGERPRINT,
    }


def usage_of(question: Question, completion: int, reasoning: int = 0) -> dict[str, Any]:
    """Return what a question and its answer cost, in tokens."""
    prompt = question.tokens
    cached = prompt - question.messages[-1].tokens
    cached = cached // CACHED_BY * CACHED_BY if cached >= CACHED_FROM else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _written(choice: dict[str, Any]) -> int:
    message = choice["message"]
    calls = message.get("tool_calls", ())
    return sum(
        tokens_of(text)
        for text in (
            message["content"] or "",
            message["refusal"] or "",
            *(call["function"]["arguments"] for call in calls),
        )
    )


def _choice(question: Question, making: Making, place: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    finish: str | None = "stop"
    if making.reasoning:
        message["reasoning_content"] = f"Mock reasoning of seed {making.seed} on: {question.said}"
    if making.finish == "refusal":
        message["refusal"] = SORRY
    elif calls := _tool_calls(question, making, place):
        message["tool_calls"], finish = calls, "tool_calls"
    else:
        text = thread_text(question.messages, making.seed, making.size)
        text += f"\nchoice {place}" if place else ""
        message["content"], finish = _as_long_as_asked(text, question, making)
    message["annotations"] = []
    return {"index": place, "message": message, "logprobs": None, "finish_reason": finish}


def _as_long_as_asked(text: str, question: Question, making: Making) -> tuple[str, str | None]:
    """Return the part of a text that is written, and why it ends."""
    body = question.body
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if making.finish == "content-filter":
        return "", "content_filter"
    if making.finish == "length":
        return text[: len(text) // 2], "length"
    if most and tokens_of(text) > most:
        return text.encode("utf-8", "surrogatepass")[: 4 * most].decode("utf-8", "ignore"), "length"
    return text, None if making.finish == "unfinished" else "stop"


def _tool_calls(question: Question, making: Making, place: int) -> list[dict[str, Any]]:
    """Return the call of the tool that the question names, or of its first one; its user asks."""
    tools, choice = question.body.get("tools"), question.body.get("tool_choice")
    functions = [
        tool["function"]
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    if not functions or choice == "none" or question.messages[-1].role != "user":
        return []
    wanted = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    called = next((it for it in functions if it.get("name") == wanted), functions[0])
    required = (called.get("parameters") or {}).get("required") or []
    arguments = orjson.dumps(dict.fromkeys(required, question.said)).decode()
    function = {"name": called.get("name"), "arguments": arguments}
    return [{"id": making.name("call_", place), "type": "function", "function": function}]


def completion(question: Question, making: Making) -> dict[str, Any]:
    """Return the reply to a prompt: the object `text_completion`."""
    text = thread_text(question.messages, making.seed, making.size)
    text, finish = _as_long_as_asked(text, question, making)
    return {
        "id": making.name("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": question.model,
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}],
        "usage": usage_of(question, tokens_of(text)),
        "system_fingerprint": FINGERPRINT,
    }


def embeddings(question: Question, _making: Making) -> dict[str, Any]:
    """Return a vector of length 1 for each text, which follows from the text and the model."""
    size = question.body.get("dimensions") or DIMENSIONS
    data = []
    for place, said in enumerate(question.messages):
        bits = shake_128(f"{question.model} {said.text}".encode("utf-8", "surrogatepass"))
        numbers = [it / 2**15 for it in struct.unpack(f"<{size}h", bits.digest(2 * size))]
        length = sum(it * it for it in numbers) ** 0.5 or 1.0
        vector: Any = [it / length for it in numbers]
        if question.body.get("encoding_format") == "base64":
            vector = b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": place, "embedding": vector})
    tokens = sum(tokens_of(said.text) for said in question.messages)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": question.model, "usage": usage}


def response(question: Question, making: Making) -> dict[str, Any]:
    """Return the reply to a call of the Responses API: the object `response`."""
    text = thread_text(question.messages, making.seed, making.size)
    written = tokens_of(text)
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    message = {"type": "message", "id": making.name("msg_"), "status": "completed"}
    usage = usage_of(question, written)
    return {
        "id": making.name("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": question.body.get("instructions"),
        "model": question.model,
        "output": [{**message, "role": "assistant", "content": content}],
        "parallel_tool_calls": True,
        "tool_choice": question.body.get("tool_choice") or "auto",
        "tools": question.body.get("tools") or [],
        "metadata": question.body.get("metadata") or {},
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def emptied(reply: dict[str, Any], way: int) -> dict[str, Any]:
    """Return a reply in which nothing is said, in one of three ways."""
    empty: dict[str, Any] = {name: [] for name in ("choices", "data", "output") if name in reply}
    if way == 0 or "choices" not in empty:
        return {**reply, **empty}
    message = {"role": "assistant", "content": "" if way == 1 else None}
    choices = [
        {**choice, "message": message} if "message" in choice else {**choice, "text": ""}
        for choice in reply["choices"]
    ]
    return {**reply, "choices": choices}
