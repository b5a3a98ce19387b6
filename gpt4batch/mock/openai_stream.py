"""Replies as a stream of events, piece by piece.

Source: https://github.com/openai/openai-openapi (openapi.yaml), `chat.completion.chunk`; the events
are server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PIECE = 16
"""The letters of one piece of text."""
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
IN_ALL = ("id", "created", "model", "service_tier", "system_fingerprint")
"""The fields of a reply that each of its chunks has."""


def event(value: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(reply: Mapping[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    """Return the event of one chunk of a reply."""
    kind = reply["object"]
    kind = f"{kind}.chunk" if kind == "chat.completion" else kind
    told = {name: reply[name] for name in IN_ALL if name in reply}
    return event({"object": kind, **told, "choices": choices, **more})


def content_events(reply: Mapping[str, Any], usage: Mapping[str, Any]) -> list[bytes]:
    """Return the events of a reply up to the end of its text; `usage` stands in each."""
    events = []
    for choice in reply["choices"]:
        if "message" in choice:
            parts = [_part(choice, delta=delta) for delta in _deltas(choice["message"])]
        else:
            parts = [_part(choice, text=piece) for piece in _pieces(choice["text"])]
        events += [chunk(reply, [part], **usage) for part in parts]
    return events


def end_events(reply: Mapping[str, Any], usage: Mapping[str, Any]) -> list[bytes]:
    """Return the events that say why each choice ended."""
    events = []
    for choice in reply["choices"]:
        rest: dict[str, Any] = {"delta": {}} if "message" in choice else {"text": ""}
        rest["finish_reason"] = choice["finish_reason"]
        events.append(chunk(reply, [_part(choice, **rest)], **usage))
    return events


def _part(choice: Mapping[str, Any], **what: Any) -> dict[str, Any]:
    return {"index": choice["index"], "logprobs": None, "finish_reason": None, **what}


def _pieces(text: str | None) -> Iterator[str]:
    text = text or ""
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": message["role"], "content": "" if message["content"] is not None else None}
    for name in ("reasoning_content", "content", "refusal"):
        for piece in _pieces(message.get(name)):
            yield {name: piece}
    for place, call in enumerate(message.get("tool_calls", ())):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{**call, "index": place, "function": function}]}
        for piece in _pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}
