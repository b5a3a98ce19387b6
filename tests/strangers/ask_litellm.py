"""Ask a service by way of litellm, in its own interpreter; print what came of it as JSON."""

# ruff: noqa: TID251 - nothing of the tool is installed beside litellm

from __future__ import annotations

import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"required": ["city"]}}}


def ask(base: str, key: str) -> dict[str, Any]:
    """Return the answers of a chat, a stream, a tool, embeddings and a refusal."""
    here = {"api_base": base, "api_key": key, "num_retries": 0}
    question: dict[str, Any] = {
        "model": "openai/mock-model",
        "messages": [{"role": "user", "content": "hello"}],
    }
    whole = litellm.completion(**question, **here)
    chunks = list(
        litellm.completion(**question, **here, stream=True, stream_options={"include_usage": True})
    )
    built = litellm.stream_chunk_builder(chunks)
    called = litellm.completion(**question, **here, tools=[TOOL])
    vectors = litellm.embedding(model="openai/mock-embedding", input=["a", "b"], **here)
    question["messages"][0]["content"] = "[[mock:rate-limit]]"
    try:
        refusal = litellm.completion(**question, **here)
    except litellm.RateLimitError as error:
        refusal = str(error)
    return {
        "whole": whole.model_dump(mode="json"),
        "stream": built.model_dump(mode="json"),
        "tool": called.choices[0].message.tool_calls[0].function.name,
        "vectors": [len(item["embedding"]) for item in vectors.data],
        "refusal": refusal,
    }


if __name__ == "__main__":
    print(json.dumps(ask(*sys.argv[1:])))
