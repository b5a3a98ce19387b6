"""A record as people read it: taken as it is, with the text of its asks and answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM, EXACT

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u(?:d[89ab]..(?!\\ud[c-f]..)|(?<!\\ud[89ab]..\\u)d[c-f]..)",
    re.IGNORECASE,
)


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the line's object, or None for other lines; ids and `extra` keep all their digits."""
    line = line.removeprefix(BOM)
    if b"\\ud" in line or b"\\uD" in line:
        line = _LONE_SURROGATE.sub(rb"\1\\ufffd", line)
    try:
        value = rawjson.loads(line)
        if not isinstance(value, dict):
            return None
        own = [value.get("id"), *mapped(value.get("extra")).values()]
        own += [mapped(ask).get("id") for ask in listed(value.get("asks"))]
        if any(isinstance(number, float) and abs(number) >= EXACT for number in own):
            value = rawjson.exact(line)  # the decoder made a float of the user's own number
    except rawjson.JSONError:
        return None
    return value if isinstance(value, dict) else None


def listed(value: Any) -> list[Any]:
    """Return the value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def mapped(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a text as it is, anything else as JSON, nothing for null."""
    if isinstance(value, str):
        return value
    return "" if value is None else rawjson.dumps(value).decode()


def attached(ask: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the pictures and the files of an ask, whichever way they are written."""
    return (
        _either(ask.get("images"), ask.get("image")),
        _either(ask.get("files"), ask.get("file")),
    )


def _either(many: Any, one: Any) -> list[Any]:
    return [*listed(many), one] if one else listed(many)


class Message(NamedTuple):
    """One message of a reply: who says it to whom, as what, and its text."""

    role: str
    name: str
    recipient: str
    kind: str
    language: str
    text: str


def messages(reply: Any) -> Iterator[Message]:
    """Yield the messages of a reply that a person wants to see."""
    for item in listed(mapped(reply).get("contents")):
        message = mapped(mapped(item).get("message"))
        author = mapped(message.get("author"))
        metadata = mapped(message.get("metadata"))
        role = text_of(author.get("role")) or "assistant"
        if role == "user" or metadata.get("is_visually_hidden_from_conversation"):
            continue
        content = mapped(message.get("content"))
        text = content_text(content)
        if text.strip():
            yield Message(
                role,
                text_of(author.get("name")),
                text_of(message.get("recipient")) or "all",
                text_of(content.get("content_type")) or "text",
                text_of(content.get("language")),
                text,
            )


def content_text(content: dict[str, Any]) -> str:
    """Return the text of a message's content, whatever its type."""
    parts = content.get("parts")
    if isinstance(parts, list):
        return "\n\n".join(text_of(part) for part in parts)
    for field in ("text", "result", "summary"):
        if content.get(field):
            return text_of(content[field])
    return ""


def answer_text(reply: Any) -> str:
    """Return what a reply says to the user, without tool calls and their results."""
    shown = (item for item in messages(reply) if item.role == "assistant")
    return "\n\n".join(item.text for item in shown if item.recipient == "all")
