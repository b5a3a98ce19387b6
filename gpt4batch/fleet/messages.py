"""The messages of a fleet: what coordinator and workers say to each other over NSQ.

A message is a line of JSON; the record of a line, which must stay verbatim, follows in a line of
its own. Everything else on a topic of ours is refused by `read`, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_origin, get_type_hints

from gpt4batch.errors import CallError, ReplyError
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import calls_before, usage_in
from gpt4batch.service.conversation import Outcome
from gpt4batch.words import heard, tr

if TYPE_CHECKING:
    from gpt4batch.lines.parse import Line

VERSION = 3
PART, FINAL, BACK = "part", "final", "back"
"""What a result is: half of a line, the end of it, or the line given back unfinished."""
ASKS, CALLS, RESTS, ENDED = "asks", "calls", "rests", "ended"
"""What a line is at: it waits for a permit, for a reply, for something else, or for its Drop."""
OK, LIMITED, CROWDED, CUT, LOST = "ok", "limited", "crowded", "cut", "lost"
SENT, UNUSED, OVERDUE = "sent", "unused", "overdue"
"""How a call went, where that matters. One that is `ok` has an answer, one that is `sent` was no
chat. Some never left, perhaps as their permit came too late.
Nobody will learn the end of one that was cut off, or lost with its worker."""
COUNTED = ("chats", "retries", "uploads", "unanswered", "downloads", "download_bytes")
"""What a worker counts of a batch, in all."""

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
class Hello:
    """What a coordinator says to all workers, again and again: that there is a batch.

    Args:
        batch: The batch.
        epoch: Counts the coordinators that the batch has had.
        life: Names this coordinator.
        manner: How to ask.
        over: It is the last word: no more calls are wanted.
    """

    batch: str
    epoch: int
    life: str
    manner: dict[str, Any]
    over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A line for one worker, to hold and to ask for its calls.

    Args:
        batch: The batch.
        worker: Who shall have it.
        seq: Counts the tasks for this worker.
        line: The line's place in the input, from 0.
        key: What it is recognised by, in hexadecimal.
        run: Names this go at the line.
        number: The line's number in the file.
        fresh: What the record says of an earlier run does not count.
        files: Attachments that travel with the line.
        record: The line, or its newest record.
    """

    batch: str
    worker: str
    seq: int
    line: int
    key: str
    run: str
    number: int
    fresh: bool
    files: list[list[Any]]
    record: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """One call may leave, at once.

    Args:
        batch: The batch.
        worker: Whose call.
        line: Of which line.
        run: Of which go at it.
        call: Which call of the go.
        buffer: Seconds after the soonest moment that a permit may come at which the call leaves.
        said: When the worker said its newest news, by its own clock.
        since: Seconds that have passed between the coming of those news and this.
        now: The clock of the coordinator.
    """

    batch: str
    worker: str
    line: int
    run: str
    call: int
    buffer: float
    said: float
    since: float
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A worker is to forget a line: its end is in the log, or another has it."""

    batch: str
    worker: str
    line: int
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a worker says to a coordinator: all it has each half second, changes at once.

    Args:
        batch: The batch.
        worker: Who speaks.
        topic: Where it listens.
        places: Lines that it can run at a time.
        elsewhere: Places that lines of other batches take.
        got: The newest task that it has had.
        whole: These are all the lines that it has.
        leaving: It takes no more lines.
        trouble: Why, where that is not its own wish: a message as `words.told`, or nothing.
        lines: What each line is at, as `Word`.
        tally: What was done here for the batch in all, by `COUNTED`; of chats those that ended.
        errors: Failed attempts in all, by their code.
        limits: What the newest headers of the service say of its limits.
        longest: Seconds that its oldest call has been waiting.
        said: The clock of the worker.
    """

    batch: str
    worker: str
    topic: str
    places: int
    elsewhere: int
    got: int
    whole: bool
    leaving: bool
    trouble: list[Any]
    lines: dict[str, list[Any]]
    tally: dict[str, int]
    errors: dict[str, int]
    limits: list[list[list[float]]]
    longest: float
    said: float


class Word(NamedTuple):
    """What a worker says of a line.

    Args:
        run: Names the go at it.
        key: What the line is recognised by.
        step: The results of this go so far.
        acked: How many of them the coordinator is known to have.
        call: The calls that were asked for so far.
        state: What the line is at.
        how: How the call before went.
        after: The Retry-After of that call, in seconds; -1 where there was none.
        begun: It has a place.
        answers: The answers that it has of the line.
    """

    run: str
    key: str
    step: int
    acked: int
    call: int
    state: str
    how: str
    after: float
    begun: bool
    answers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a line, or of a part of it.

    Args:
        batch: The batch.
        worker: Who ran it.
        line: The line's place in the input.
        key: What it is recognised by.
        run: Names the go at the line.
        step: Counts the results of the go.
        call: The newest call that the go asked for.
        kind: `part`, `final` or `back`.
        how: How that call went.
        added: Answers that are new in this result.
        tally: What was done by the worker for the batch in all.
        error: Why the line failed, in the same way.
        record: The line's record, as the log has it.
    """

    batch: str
    worker: str
    line: int
    key: str
    run: str
    step: int
    call: int
    kind: str
    how: str
    added: int
    tally: dict[str, int]
    error: list[Any]
    record: bytes = field(default=b"")


Message = Hello | Task | Permit | Drop | News | Result


def written(message: Message) -> bytes:
    """Return a message as it is published."""
    names = [item.name for item in fields(message) if item.name != "record"]
    head = {name: getattr(message, name) for name in names}
    text = rawjson.dumps({"v": VERSION, "is": type(message).__name__.lower(), **head})
    record: bytes | None = getattr(message, "record", None)
    return text if record is None else text + b"\n" + record


def read(body: bytes, *kinds: type[T]) -> T:
    """Read a message that has to be of one of some kinds.

    Raises:
        ForeignError: It is something else.
    """
    head, _, record = body.partition(b"\n")
    try:
        doc = rawjson.loads(head)
    except rawjson.JSONError as error:
        raise ForeignError(str(error)) from None
    named = {kind.__name__.lower(): kind for kind in kinds}
    told = doc if isinstance(doc, dict) and doc.get("v") == VERSION else {}
    if (kind := named.get(str(told.get("is")))) is None:
        raise ForeignError(
            tr("it is no {names} of version {version}", names=" or ".join(named), version=VERSION)
        )
    values = {name: told.get(name) for name in SHAPES[kind]}
    for name, shape in SHAPES[kind].items():
        if not isinstance(values[name], shape):
            raise ForeignError(tr("{name} is not as it should be", name=name))
    return kind(**values, **({"record": record} if kind in (Task, Result) else {}))


def word(entry: list[Any]) -> Word:
    """Read what a worker says of a line.

    Raises:
        ForeignError: It is something else.
    """
    if len(entry) != len(WORD) or not all(map(isinstance, entry, WORD)):
        raise ForeignError(tr("what it says of a line is not as it should be"))
    return Word(*entry)


def _shapes_of(kind: type) -> dict[str, tuple[type, ...]]:
    """Return the types that each value in a message's first line may have."""
    hints = {name: get_origin(hint) or hint for name, hint in get_type_hints(kind).items()}
    hints.pop("record", None)
    return {name: (float, int) if hint is float else (hint,) for name, hint in hints.items()}


SHAPES: dict[type[Any], dict[str, tuple[type, ...]]] = {
    kind: _shapes_of(kind) for kind in (Hello, Task, Permit, Drop, News, Result)
}
WORD = tuple(_shapes_of(Word).values())


# -- records -------------------------------------------------------------------------------------


def outcome_of(line: Line, record: bytes, said: list[Any]) -> Outcome:
    """Return the outcome of a line that its record tells; `said` is its error as a message.

    Raises:
        ForeignError: It is no record of the line.
    """
    try:
        known = dict(rawjson.members(record))
        meta, error = (rawjson.loads(known.get(name, b"null")) for name in ("meta", "iErr"))
        before = dict(rawjson.members(known["meta"])).get("superseded", b"[]")
        outcome = Outcome(line, _elements(known.get("answers")), published=line.answered)
        outcome.timings, outcome.uploads = list(meta.get("asks", ())), list(meta.get("uploads", ()))
        outcome.superseded = [rawjson.Fragment(text) for text in _elements(before)]
        outcome.refused_anew = str(meta.get("refused_anew", ""))
        outcome.calls, outcome.vain = calls_before(meta), usage_in(meta.get("vain"))
        outcome.started = datetime.fromisoformat(meta["started"])
        if error:
            reply = dict(rawjson.members(known["iErr"])).get("reply")
            outcome.error = _error_of(error, reply, said)
    except (rawjson.JSONError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ForeignError(tr("no record: {error!r}", error=error)) from None
    if len(outcome.answers) > len(line.asks):
        raise ForeignError(tr("more answers than asks"))
    return outcome


def _elements(text: bytes | None) -> list[bytes]:
    return rawjson.elements(text) if text and text != b"null" else []


def _error_of(doc: dict[str, Any], reply: bytes | None, said: list[Any]) -> CallError:
    text, code, stage = str(doc["message"]), int(doc["code"]), str(doc.get("stage", "chat"))
    if said and (message := heard(said[0])) == text:
        text = message
    error = CallError(text, code=code) if reply is None else ReplyError(text, reply, code=code)
    error.stage, error.attempts = stage, int(doc.get("attempts", 0))
    return error
