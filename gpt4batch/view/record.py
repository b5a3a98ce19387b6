"""What one line of an output says: state, cause of failure, key, calls, pictures and text."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.dialects.base import Answer
from gpt4batch.dialects.known import answer_text, messages, told_by
from gpt4batch.lines import causes, rawjson
from gpt4batch.lines.formats.known import parse
from gpt4batch.lines.parse import BOM, BadLine, LongNumber, line_of, parse_line
from gpt4batch.lines.reading import (
    attached,
    listed,
    mapped,
    text_of,
)
from gpt4batch.lines.record import State as Progress
from gpt4batch.lines.record import is_bad_record, state_of
from gpt4batch.lines.steps import is_step
from gpt4batch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE_NAMES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
MOST_PICTURES = 255
UNREADABLE = "unreadable"
STOP = "stop"
"""The word of most services for an answer that is whole."""
_KEY_BITS = (1 << 64) - 1


class State(IntEnum):
    """Where a line stands."""

    DONE = 0
    FAILED = 1
    NOT_RUN = 2
    PARTLY = 3


STATES = {
    Progress.NEW: State.NOT_RUN,
    Progress.PARTIAL: State.PARTLY,
    Progress.FAILED: State.FAILED,
    Progress.DONE: State.DONE,
}
"""What the page calls the states of a run."""


class Cause(NamedTuple):
    """Why a line failed: code, stage and what messages have in common tell causes apart."""

    code: int
    stage: str
    message: str

    @property
    def name(self) -> tuple[int, str, str]:
        """Return what lines that failed for the same cause have in common, as a run counts them."""
        return self.code, causes.cause_of(self.stage), causes.cause_of(self.message)


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
    made: int
    finish: str = ""
    usage: Usage = Usage()
    length: int = 0
    """Characters of its answers."""


def examine(line: bytes) -> Facts:
    """Return what the index keeps of a line; what a run cannot read counts as failed."""
    record = parse(line)
    if record is None:
        cause = cause_of({"stage": UNREADABLE, "message": "not a JSON object"})
        return Facts(hash(line) & _KEY_BITS, 0, State.FAILED, cause, 0, [], 0)
    asks, replies = listed(record.get("asks")), listed(record.get("answers"))
    key, state, error = _standing(record, line)
    told = [told_by(mapped(reply)) for reply in replies]
    texts = tuple(answer_text(reply) for reply in replies)
    meta = mapped(record.get("meta"))
    calls = calls_of(meta)
    return Facts(
        key,
        hash(texts) & 0xFFFFFFFF,
        state,
        cause_of(error) if state is State.FAILED else None,
        min(sum(1 for _ in picture_names(asks, replies)), MOST_PICTURES),
        calls,
        calls_made(meta, calls),
        finish_of(told),
        Usage(*map(sum, zip(*(item.usage for item in told if item.usage), strict=True))),
        sum(map(len, texts)),
    )


def finish_of(told: list[Answer]) -> str:
    """Return why a line's answers end: the first reason that is not the usual one, if any."""
    reasons = [item.finish for item in told if item.finish]
    return next((reason for reason in reasons if reason != STOP), reasons[0] if reasons else "")


def _standing(record: dict[str, Any], raw: bytes) -> tuple[int, State, Any]:
    """Return key, state and error of a record, as a run reads it."""
    try:
        line = line_of(record, raw)
    except LongNumber:
        try:
            line = parse_line(raw.removeprefix(BOM))
        except BadLine:  # a row, whose own form is the record
            line = parse_line(rawjson.dumps(record))
    except BadLine as error:
        told = record.get("iErr") if is_bad_record(raw) else None
        reason = told or {"stage": UNREADABLE, "message": str(error)}
        return hash(raw) & _KEY_BITS, State.FAILED, reason
    return int.from_bytes(line.key[:8]), STATES[state_of(line)], line.error


def go_of_step(line: bytes) -> str:
    """Return which half-way line a record of the log goes on with; empty for a whole record."""
    record = parse(line) if b'"step":' in line else None
    return str(record["go"]) if record is not None and is_step(record) else ""


def go_of_whole(line: bytes) -> str:
    """Return the name by which steps go on from a whole record of the log, if any do."""
    meta = mapped((parse(line) or {}).get("meta")) if b'"go":' in line else {}
    return text_of(meta.get("go"))


def cause_of(error: Any) -> Cause:
    """Return the cause of a failure."""
    fields = mapped(error)
    code = fields.get("code")
    message = text_of(fields.get("message") if fields else error)
    stage = fields.get("stage")
    if not isinstance(stage, str) or not stage:
        stage = message
    return Cause(code if isinstance(code, int) else 0, stage[:80], message[:500])


def calls_of(meta: dict[str, Any]) -> list[Call]:
    """Return the calls that a line's meta tells of; an end is reckoned back from the line's."""
    entries = [mapped(item) for item in listed(meta.get("asks"))]
    if not entries:
        return []
    ended = moment(meta.get("finished"))
    calls = []
    for entry in reversed(entries):
        seconds = number(entry.get("seconds"))
        if seconds is None:
            continue
        calls.append(Call(ended, seconds, int(number(entry.get("attempts")) or 1)))
        ended = max(ended - seconds, 0.0)
    return calls


def calls_made(meta: dict[str, Any], calls: list[Call]) -> int:
    """Return how many calls a line took, those without an answer too, as a run counts them."""
    told = number(meta.get("calls"))
    return sum(call.attempts for call in calls) if told is None else int(told)


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
    """Return all that is searched in a line: id, system, asks, attachments, messages, error."""
    parts = [text_of(record.get("id")), text_of(record.get("system"))]
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
