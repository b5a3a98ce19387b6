"""What one line of an output says: state, cause of failure, key, calls, pictures and text."""

from __future__ import annotations

import re
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.errors import NOT_READY
from gpt4batch.lines import rawjson
from gpt4batch.lines.reading import (
    answer_text,
    attached,
    listed,
    mapped,
    messages,
    parse,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE_NAMES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
MOST_PICTURES = 255
UNREADABLE = "unreadable"
_VARYING = re.compile(r"[0-9a-fA-F-]{12,}|\d{4,}")
_KEY_BITS = (1 << 64) - 1


class State(IntEnum):
    """Where a line stands."""

    DONE = 0
    FAILED = 1
    NOT_RUN = 2
    PARTLY = 3


class Cause(NamedTuple):
    """Why a line failed: code and stage tell causes apart, the message is one line's."""

    code: int
    stage: str
    message: str


class Call(NamedTuple):
    """One ask's call: when it ended (Unix time, 0 if unknown), its seconds, its attempts."""

    ended: float
    seconds: float
    attempts: int


class Facts(NamedTuple):
    """What the index keeps of a line."""

    key: int
    answer: int
    state: State
    cause: Cause | None
    pictures: int
    calls: list[Call]


def examine(line: bytes) -> Facts:
    """Return what the index keeps of a line; one that is no JSON object counts as failed."""
    record = parse(line)
    if record is None:
        cause = Cause(0, UNREADABLE, "not a JSON object")
        return Facts(hash(line) & _KEY_BITS, 0, State.FAILED, cause, 0, [])
    asks = listed(record.get("asks"))
    replies = listed(record.get("answers"))
    error = record.get("iErr")
    return Facts(
        key_of(record.get("id"), asks),
        hash(tuple(answer_text(reply) for reply in replies)) & 0xFFFFFFFF,
        state_of(asks, replies, error),
        cause_of(error) if error and not is_not_ready(error) else None,
        min(sum(1 for _ in picture_names(asks, replies)), MOST_PICTURES),
        calls_of(record.get("meta")),
    )


def key_of(name: Any, asks: list[Any]) -> int:
    """Return the number by which equal lines are recognised: same id, same asks."""
    parts = [
        [mapped(ask).get("id"), mapped(ask).get("content"), *attached(mapped(ask))] for ask in asks
    ]
    return hash(rawjson.dumps([name, parts])) & _KEY_BITS


def state_of(asks: list[Any], replies: list[Any], error: Any) -> State:
    """Tell where a line stands from its asks, replies and error."""
    if error and not is_not_ready(error):
        return State.FAILED
    if replies and len(replies) >= len(asks) and not error:
        return State.DONE
    return State.PARTLY if replies else State.NOT_RUN


def is_not_ready(error: Any) -> bool:
    """Tell whether an iErr only says that the line has not run yet."""
    fields = mapped(error)
    return fields.get("code") == NOT_READY and fields.get("message") == "resource is not ready"


def cause_of(error: Any) -> Cause:
    """Return the cause of a failure; without a stage the message, freed of numbers, is one."""
    fields = mapped(error)
    code = fields.get("code")
    message = text_of(fields.get("message") if fields else error)
    stage = fields.get("stage")
    if not isinstance(stage, str) or not stage:
        stage = _VARYING.sub("…", message)[:80]
    return Cause(code if isinstance(code, int) else 0, stage[:80], message[:500])


def calls_of(meta: Any) -> list[Call]:
    """Return the calls that a line's meta tells of; an end is reckoned back from the line's."""
    entries = [mapped(item) for item in listed(mapped(meta).get("asks"))]
    if not entries:
        return []
    ended = moment(mapped(meta).get("finished"))
    calls = []
    for entry in reversed(entries):
        seconds = number(entry.get("seconds"))
        if seconds is None:
            continue
        calls.append(Call(ended, seconds, int(number(entry.get("attempts")) or 1)))
        ended = max(ended - seconds, 0.0)
    return calls


def number(value: Any) -> float | None:
    """Return a number that is not below zero, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    return None


def moment(value: Any) -> float:
    """Return the Unix time of an ISO date, 0 where there is none."""
    if not isinstance(value, str):
        return 0.0
    try:
        return max(datetime.fromisoformat(value).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def picture_names(asks: list[Any], replies: list[Any]) -> Iterator[tuple[str, int, str]]:
    """Yield where (`ask` or `answer`), at which turn and under which name each picture lies."""
    for turn, ask in enumerate(asks):
        for name in attached(mapped(ask))[0]:
            if isinstance(name, str):
                yield "ask", turn, name
    for turn, reply in enumerate(replies):
        for item in listed(mapped(reply).get("spec_downloads")):
            name = mapped(item).get("local")
            if isinstance(name, str) and name.lower().endswith(PICTURE_NAMES):
                yield "answer", turn, name


def shown_text(record: dict[str, Any]) -> str:
    """Return all that is searched in a line: id, asks, attachments, messages, error."""
    parts = [text_of(record.get("id"))]
    for item in listed(record.get("asks")):
        ask = mapped(item)
        parts += [text_of(ask.get("id")), text_of(ask.get("content"))]
        parts += [text_of(name) for names in attached(ask) for name in names]
    for reply in listed(record.get("answers")):
        parts += [item.text for item in messages(reply)]
        for item in listed(mapped(reply).get("spec_downloads")):
            parts.append(text_of(mapped(item).get("local")))
    parts.append(text_of(mapped(record.get("iErr")).get("message")))
    return "\n".join(parts)
