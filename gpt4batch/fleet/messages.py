"""The messages of a fleet: what coordinator and workers say to each other over NSQ.

A message is a line of JSON; what must stay verbatim, a record or an answer, follows in lines of its
own. Everything else on a topic of ours is refused by `read`, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

from gpt4batch import errors
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import usage_in
from gpt4batch.service.conversation import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.errors import CallError
    from gpt4batch.lines.parse import Line

VERSION = 1
COLLECT, RUN, OVER = "collect", "run", "over"
"""The phases of a batch: a new coordinator looks round, hands lines out, wants no more calls."""
PART, FINAL, BACK = "part", "final", "back"
"""What a result is: half of a line, the end of it, or the line given back unfinished."""

T = TypeVar("T")


class ForeignError(ValueError):
    """A message is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How every line of a batch is asked."""

    options: dict[str, Any]
    retries: int
    timeout: float
    downloads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """What the coordinator says to all workers, again and again.

    Args:
        batch: The batch.
        epoch: Counts the coordinators that the batch has had.
        seq: The newest task that was handed out before.
        phase: What the coordinator is at.
        manner: How to ask.
        lines: Of each line that is out: its newest task, and the worker that has it.
        rate: Calls a second of all workers; 0 is no limit.
        workers: The workers that slots are given to.
        slots: Runs of slots: the first one's number, then whose each is; -1 is nobody's.
        permits: Chats that a worker may make in all; None is no limit.
        echo: When a worker sent its last report, by its clock, and when it came, by this one.
        now: The clock of the coordinator.
    """

    batch: str
    epoch: int
    seq: int
    phase: str
    manner: dict[str, Any]
    lines: dict[str, list[Any]]
    rate: float
    workers: list[str]
    slots: list[list[int]]
    permits: dict[str, int] | None
    echo: dict[str, list[float]]
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says to the coordinator, again and again.

    Args:
        batch: The batch.
        worker: Who speaks.
        places: Lines that it can run at a time.
        free: Places that are free.
        lines: The lines it runs, or has the results of: key and run of each.
        waiting: Calls that wait for a slot.
        chats: Chats sent in all.
        succeeded: Calls that were answered in all.
        limited: 429s in all.
        errors: Failed attempts in all, by kind.
        longest: Seconds that its oldest call in flight has been waiting.
        trouble: Why it takes no more lines: the kind of error, and its text.
        leaving: It is the last report.
        now: The clock of the worker.
    """

    batch: str
    worker: str
    places: int
    free: int
    lines: dict[str, list[str]]
    waiting: int
    chats: int
    succeeded: int
    limited: int
    errors: dict[str, int]
    longest: float = 0.0
    trouble: list[str]
    leaving: bool
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A line to run.

    Args:
        batch: The batch.
        epoch: Of the coordinator that handed it out.
        seq: Counts the tasks of the epoch.
        line: The line's place in the input, from 0.
        key: What it is recognised by, in hexadecimal.
        number: The line's number in the file.
        fresh: What the record says of an earlier run does not count.
        files: Attachments that travel with the line.
        record: The line, or its newest record.
    """

    batch: str
    epoch: int
    seq: int
    line: int
    key: str
    number: int
    fresh: bool
    files: list[list[Any]]
    record: bytes = field(default=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a task, or of a part of it.

    Args:
        batch: The batch.
        line: The line's place in the input.
        key: What it is recognised by.
        worker: Who ran it.
        run: Names this one go at the line.
        kind: `part`, `final` or `back`.
        chats: Chats that this go has sent so far.
        retries: Its failed attempts that were tried again.
        counts: What else the worker did for the batch since its last result, by `COUNTED`.
        outcome: How far the line came, for `packed` and `unpacked`.
        texts: Its answers and what was superseded, verbatim.
    """

    batch: str
    line: int
    key: str
    worker: str
    run: str
    kind: str
    chats: int
    retries: int
    counts: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any]
    texts: list[bytes] = field(default_factory=list)


VERBATIM = {"record", "texts"}
ADDED = {"counts", "longest"}
"""What workers and spools of earlier releases do not tell."""
COUNTED = ("uploads", "unanswered", "downloads", "download_bytes")
"""What a worker counts besides chats, named as in `CallStats`."""


def written(message: Beacon | Report | Task | Result) -> bytes:
    """Return a message as it is published."""
    head = {
        item.name: getattr(message, item.name)
        for item in fields(message)
        if item.name not in VERBATIM
    }
    lines = [rawjson.dumps({"v": VERSION, "is": type(message).__name__, **head})]
    if isinstance(message, Task):
        lines.append(message.record)
    elif isinstance(message, Result):
        lines += message.texts
    return b"\n".join(lines)


def read(kind: type[T], body: bytes) -> T:
    """Read a message that has to be of one kind.

    Raises:
        ForeignError: It is something else.
    """
    head, *texts = body.split(b"\n")
    try:
        doc = rawjson.loads(head)
    except rawjson.JSONError as error:
        raise ForeignError(str(error)) from None
    if not isinstance(doc, dict) or (doc.get("v"), doc.get("is")) != (VERSION, kind.__name__):
        raise ForeignError(f"no {kind.__name__} of version {VERSION}")
    told = {name: shape for name, shape in SHAPES[kind].items() if name in doc or name not in ADDED}
    values = {name: _value(doc, name, shape) for name, shape in told.items()}
    if kind is Task:
        values["record"] = texts[0] if texts else b""
    elif kind is Result:
        values["texts"] = texts
    return kind(**values)


def _shapes_of(kind: type) -> dict[str, tuple[type, ...]]:
    """Return the types that each value in a message's first line may have."""
    shapes: dict[str, tuple[type, ...]] = {}
    for name, hint in get_type_hints(kind).items():
        if name in VERBATIM:
            continue
        parts = getattr(hint, "__args__", ())
        kinds = [get_origin(part) or part for part in (parts if NoneType in parts else (hint,))]
        shapes[name] = (*kinds, int) if float in kinds else tuple(kinds)
    return shapes


SHAPES: dict[type[Any], dict[str, tuple[type, ...]]] = {
    kind: _shapes_of(kind) for kind in (Beacon, Report, Task, Result)
}


def _value(doc: dict[str, Any], name: str, shape: tuple[type, ...]) -> Any:
    value = doc.get(name)
    if not isinstance(value, shape):
        raise ForeignError(f"{name} is not as it should be")
    return value


# -- outcomes ------------------------------------------------------------------------------------


def packed(outcome: Outcome) -> tuple[dict[str, Any], list[bytes]]:
    """Return an outcome as JSON can carry it, and apart what must stay verbatim."""
    superseded = [rawjson.dumps(item) for item in outcome.superseded]
    doc: dict[str, Any] = {
        "answers": len(outcome.answers),
        "superseded": len(superseded),
        "uploads": outcome.uploads,
        "timings": outcome.timings,
        "calls": outcome.calls,
        "vain": {"tokens": list(outcome.vain)},
        "refused_anew": outcome.refused_anew,
        "started": outcome.started.isoformat(),
        "anew": outcome.line.answered < 0,
    }
    texts = [*outcome.answers, *superseded]
    if outcome.error is not None:
        doc["error"] = _packed_error(outcome.error)
        texts.append(getattr(outcome.error, "reply", b""))
    return doc, texts


def _packed_error(error: CallError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "code": error.code,
        "stage": error.stage,
        "attempts": error.attempts,
        "tokens": list(getattr(error, "usage", None) or ()),
    }


def unpacked(line: Line, doc: dict[str, Any], texts: Sequence[bytes]) -> Outcome:
    """Return the outcome of a line.

    Raises:
        ForeignError: It is none.
    """
    try:
        answers, superseded = int(doc["answers"]), int(doc["superseded"])
        if len(texts) != answers + superseded + ("error" in doc) or answers > len(line.asks):
            raise ForeignError("texts are missing")
        outcome = Outcome(line, list(texts[:answers]), published=line.answered)
        outcome.superseded = [rawjson.Fragment(text) for text in texts[answers:][:superseded]]
        outcome.uploads, outcome.timings = list(doc["uploads"]), list(doc["timings"])
        outcome.calls = int(doc["calls"])
        outcome.vain = usage_in(doc.get("vain"))
        outcome.refused_anew = str(doc.get("refused_anew", ""))
        outcome.started = datetime.fromisoformat(doc["started"])
        if doc["anew"]:
            line.answered, outcome.published = -1, 0
        if "error" in doc:
            outcome.error = _error(doc["error"], texts[-1])
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignError(f"no outcome: {error!r}") from None
    return outcome


def _error(doc: dict[str, Any], reply: bytes) -> CallError:
    kind = getattr(errors, doc["kind"], errors.CallError)
    if kind is errors.ReplyError:
        no_answer = errors.ReplyError(doc["message"], reply, code=doc["code"])
        no_answer.stage, no_answer.usage = doc["stage"], usage_in(doc)
        error: CallError = no_answer
    elif isinstance(kind, type) and issubclass(kind, errors.CallError):
        error = kind(doc["message"], code=doc["code"], stage=doc["stage"])
    else:
        raise ForeignError(f"{doc['kind']} is no error of a line")
    error.attempts = doc["attempts"]
    return error
