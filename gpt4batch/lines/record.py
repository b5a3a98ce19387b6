"""A record: a line as it is written into an output, and how far it says that the line is."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from gpt4batch.errors import NOT_READY, CallError, ReplyError
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BATCH, MANNER, NOT_RUN, OWN_KEYS, Ask, key_of, parse_line
from gpt4batch.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.lines.parse import Line

LOG_MARK = b"\t \t"
"""How a record of the log begins; an ordered line begins with its brace.

It is white space to every JSON reader, and nobody's indentation. It tells a record that replaces an
earlier one of the same line from an equal line that the user wrote twice. It stands first: a torn
record has it too.
"""

NOT_DOWNLOADED = {**NOT_RUN, "stage": "download"}
ORDER = (b"id", b"asks", b"answers", b"iErr", b"extra", b"meta")
BAD_LINE = "input"

META = b',"meta":{"started":'
ROW_META = b',"meta":{"key":'
"""How what a row of a batch output tells is read back."""
CALLS = re.compile(rb'"calls":(\d+)')
TOKENS = re.compile(rb'"tokens":\[(\d+),(\d+),(\d+),(\d+)\]')
ATTEMPTS = re.compile(rb'"attempts":(\d+)')


INDEX = "index"
"""The key in `meta` of the line's place in the input: what comes late of a fleet says that too."""


class State(IntEnum):
    """How far a line is."""

    NEW = 0
    PARTIAL = 1  # begun: some asks are answered, files are up or steps follow; nothing failed
    FAILED = 2
    DONE = 3


def state_of(line: Line) -> State:
    """Return how far a line says it is."""
    if line.done:
        return State.DONE
    if line.error and not line.waiting:
        return State.FAILED
    begun = line.answered or line.meta.get("uploads") or line.meta.get("go")
    return State.PARTIAL if begun else State.NEW


def says_done(doc: dict[str, Any], line: Line) -> bool:
    """Return whether a decoded record is plainly that of a line, and done.

    It is a short cut for the record that nearly every line has: of a single ask, without
    attachments. Any other one gets False here and is read by `parse_line`.
    """
    try:
        (ask,), (answer,) = doc["asks"], doc["answers"]
        (known,) = line.asks
        return (
            ask == {"id": known.id, "content": known.content}
            and doc["id"] == line.id
            and type(answer) is dict
            and type(ask["id"]) is type(known.id)
            and type(doc["id"]) is type(line.id)
            and not (known.images or known.files)
            and doc.get("system") == line.options.get("system")
            and "params" not in doc
            and "params" not in line.options
            and BATCH not in line.options
            and "iErr" not in doc
        )
    except (KeyError, TypeError, ValueError):
        return False


def key_if_done(doc: dict[str, Any]) -> bytes | None:
    """Return the key of a decoded record that is plainly done; None is no verdict.

    The same short cut where it is not known yet whose record it is. It has to be that of one ask
    with ids that are text.
    """
    try:
        (ask,), (answer,) = doc["asks"], doc["answers"]
        line_id, ask_id, content, meta = doc["id"], ask["id"], ask["content"], doc["meta"]
    except (KeyError, TypeError, ValueError):
        return None
    plain = (
        len(ask) == 2
        and type(answer) is dict
        and type(line_id) is type(ask_id) is type(content) is str
        and "iErr" not in doc
        and type(meta) is dict
        and "go" not in meta
        and not any(name in doc for name in MANNER)
    )
    return key_of(line_id, (Ask(ask_id, content),)) if plain else None


def render(
    raw: bytes,
    answers: Sequence[bytes],
    error: dict[str, Any] | rawjson.Fragment | None = None,
    meta: dict[str, Any] | rawjson.Fragment | None = None,
) -> bytes:
    """Write a line of output, without its newline.

    Args:
        raw: The line of the input, whose own values are passed on as they stand.
        answers: The text of each reply.
        error: The `iErr` of a line that failed.
        meta: What this tool notes about the run of the line.
    """
    given = rawjson.members(raw)
    known = dict(given)
    parts = [b'"%s":%s' % (name.encode(), known[name]) for name in ("id", "asks") if name in known]
    parts.append(b'"answers":[%s]' % b",".join(answers) if answers else b'"answers":null')
    if error:
        parts.append(b'"iErr":' + rawjson.dumps(error))
    if "extra" in known:
        parts.append(b'"extra":' + known["extra"])
    if meta:
        parts.append(b'"meta":' + rawjson.dumps(meta))
    parts += [rawjson.dumps(name) + b":" + value for name, value in given if name not in OWN_KEYS]
    return rawjson.one_line(b"{" + b",".join(parts) + b"}")


def gone_on(raw: bytes, record: bytes) -> bytes:
    """Return a line of input with what an earlier run knew of it, and nothing else of its record.

    So what was edited since then (`model`, `extra`, unknown keys) is what the input says.
    """
    answers = parse_line(record).answers()
    known = dict(rawjson.members(record))
    error, meta = (
        rawjson.Fragment(known[name]) if known.get(name, b"null") != b"null" else None
        for name in ("iErr", "meta")
    )
    return render(raw, answers, error, meta)


def in_key_order(raw: bytes) -> bool:
    """Return whether the known keys of a line stand in the order of an output.

    A look at where they first stand, nested ones included: what it doubts is written anew.
    """
    places = [raw.find(b'"%s":' % name) for name in ORDER]
    found = [place for place in places if place >= 0]
    return found == sorted(found) and raw.startswith((b'{"id":', b'{"asks":'))


def render_bad(raw: bytes, reason: str) -> bytes:
    """Write a line of output for a bad line of the input, whose text is kept in the `iErr`."""
    if is_bad_record(raw):
        return raw
    error = {
        "code": NOT_READY,
        "message": reason,
        "stage": BAD_LINE,
        "line": raw.decode(errors="backslashreplace"),
    }
    try:
        whole = isinstance(rawjson.loads(raw), dict)
    except rawjson.JSONError:
        whole = False
    return render(raw if whole else b"{}", [], error)


def is_bad_record(raw: bytes) -> bool:
    """Return whether a line of an output stands for a bad line of the input."""
    if b'"stage":"input"' not in raw:
        return False
    try:
        doc = rawjson.loads(raw)
    except rawjson.JSONError:
        return False
    error = doc.get("iErr") if isinstance(doc, dict) else None
    return isinstance(error, dict) and error.get("stage") == BAD_LINE and "line" in error


def superseded(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the answers in whose place a line has others."""
    found = meta.get("superseded")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def calls_before(meta: dict[str, Any]) -> int:
    """Return how many chat calls earlier runs made for a line, as far as its `meta` tells."""
    calls = meta.get("calls")
    if isinstance(calls, int):
        return calls
    asks = meta.get("asks")
    items = asks if isinstance(asks, list) else []
    attempts = [ask.get("attempts") for ask in items if isinstance(ask, dict)]
    return sum(number for number in attempts if isinstance(number, int))


def calls_noted(record: bytes) -> int:
    """Return how many chat calls a line of output tells of; at least one where it has an answer.

    Read from the text: decoding a million lines for it would take longer than writing them.
    """
    start = record.rfind(META)
    if start < 0:
        return b'"answers":[{' in record
    found = CALLS.search(record, start)
    return int(found[1]) if found else sum(map(int, ATTEMPTS.findall(record, start)))


def usage_noted(record: bytes) -> Usage:
    """Return the tokens that a line of output tells of in its `meta`."""
    start = max(record.rfind(META), record.rfind(ROW_META))
    found = TOKENS.findall(record, start) if start >= 0 else ()
    if not found:
        return NO_USAGE
    return Usage(*(sum(map(int, column)) for column in zip(*found, strict=True)))


def usage_in(note: Any) -> Usage:
    """Return the tokens that a note of `meta` tells of; none where it is no such note."""
    tokens = note.get("tokens") if isinstance(note, dict) else None
    told = isinstance(tokens, list) and [type(count) for count in tokens] == [int] * len(NO_USAGE)
    return Usage(*tokens) if told and tokens else NO_USAGE


def error_record(error: CallError) -> dict[str, Any]:
    """Return the `iErr` that tells of an error; a reply that was no answer is kept verbatim."""
    record: dict[str, Any] = {
        "code": error.code,
        "message": str(error),
        "stage": error.stage,
        "attempts": error.attempts,
    }
    if isinstance(error, ReplyError):
        record["reply"] = rawjson.Fragment(error.reply)
    return record
