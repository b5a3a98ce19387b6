"""A record as people read it: taken as it is, with the text of its asks and answers."""

from __future__ import annotations

import re
from typing import Any

from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM, EXACT

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
