"""The rows of a table of results: one an ask, out of an output as the tool itself reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpt4batch.dialects.known import answer_text, is_answer, model_of, told_by
from gpt4batch.errors import UsageError
from gpt4batch.journal.resume import Resume
from gpt4batch.journal.source import Source
from gpt4batch.lines.formats.known import form_of_output, parse
from gpt4batch.lines.reading import attached, listed, mapped, text_of
from gpt4batch.lines.record import State, is_bad_record
from gpt4batch.usage import NO_USAGE
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.errors import InputError

STATES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.PARTIAL: "partly",
    State.NEW: "not-run",
}
COLUMNS = (
    "line", "id", "ask_id", "ask", "attachments", "answer", "files", "model", "finish",
    "tokens_in", "tokens_out", "seconds", "attempts", "state", "stage", "code", "error", "extra",
)  # fmt: skip
ALIASES = {"question": "ask", "downloads": "files"}
EXTRA = "extra."
SEPARATOR = ";"
LARGEST = 1e15
"""A spreadsheet keeps 15 digits."""


def columns_of(text: str) -> list[str]:
    """Return the columns that `--columns` names.

    Raises:
        UsageError: There is no such column.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in COLUMNS and name not in ALIASES and not name.startswith(EXTRA):
            known = ", ".join(COLUMNS)
            raise UsageError(
                tr(
                    "--columns: {name!r} is not one of {known}, {extra}NAME",
                    name=name,
                    known=known,
                    extra=EXTRA,
                )
            )
    if not names:
        raise UsageError(
            tr(
                "--columns: name at least one of {columns}, {extra}NAME",
                columns=", ".join(COLUMNS),
                extra=EXTRA,
            )
        )
    return names


class Result(NamedTuple):
    """The newest record of a line: its number in the file, its state, its content."""

    number: int
    state: str
    record: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        """The `iErr` of a line that failed."""
        return mapped(self.record.get("iErr")) if self.state == "failed" else {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the cells of each ask by their columns; a line without asks has one row, too."""
        asks = [mapped(ask) for ask in listed(self.record.get("asks"))] or [{}]
        replies = [mapped(reply) for reply in listed(self.record.get("answers"))]
        calls = [mapped(call) for call in listed(mapped(self.record.get("meta")).get("asks"))]
        failed = {min(len(replies), len(asks) - 1)}
        if self.error.get("stage") == "download":  # it belongs to the asks that lack a file
            failed = {
                turn
                for turn, reply in enumerate(replies)
                if any(mapped(item).get("error") for item in listed(reply.get("spec_downloads")))
            } or failed
        for turn, ask in enumerate(asks):
            reply = replies[turn] if turn < len(replies) else {}
            call = calls[turn] if turn < len(calls) else {}
            error = self.error if turn in failed else {}
            yield {
                **self._own(ask),
                **_answered(reply),
                "model": model_of(reply)
                or text_of(reply.get("model"))
                or text_of(self.record.get("model")),
                "seconds": _number(call.get("seconds")),
                "attempts": _number(call.get("attempts")),
                "stage": text_of(error.get("stage")),
                "code": _number(error.get("code")),
                "error": text_of(error.get("message")),
            }

    def _own(self, ask: dict[str, Any]) -> dict[str, Any]:
        extra = self.record.get("extra")
        if isinstance(extra, dict):
            extra = extra | mapped(ask.get("extra"))
        named = {f"{EXTRA}{name}": text_of(value) for name, value in mapped(extra).items()}
        return {
            "line": self.number,
            "id": text_of(self.record.get("id")),
            "ask_id": text_of(ask.get("id")),
            "ask": text_of(ask.get("content")),
            "attachments": SEPARATOR.join(text_of(name) for part in attached(ask) for name in part),
            "state": self.state,
            "extra": text_of(extra),
            **named,
        }


def _answered(reply: dict[str, Any]) -> dict[str, Any]:
    """Return what a reply says; one that is no conversation's, such as embeddings, as JSON."""
    told = told_by(reply)
    usage = told.usage or NO_USAGE
    text = answer_text(reply)
    names = [mapped(item).get("local") for item in listed(reply.get("spec_downloads"))]
    return {
        "answer": text if text or is_answer(reply) else text_of(reply or None),
        "finish": told.finish,
        "tokens_in": usage.input or "",
        "tokens_out": usage.output or "",
        "files": SEPARATOR.join(text_of(name) for name in names if name),
    }


def _number(value: Any) -> Any:
    """Return a number that any table can hold, and anything else as text."""
    is_plain = isinstance(value, int | float) and abs(value) < LARGEST
    return value if is_plain and not isinstance(value, bool) else text_of(value)


class Results:
    """An output, opened.

    Raises:
        UsageError: It cannot be read, or nothing in it is a result.
    """

    def __init__(self, path: str) -> None:
        self._source = Source(path, form_of=form_of_output)
        resume = Resume(self._source, fix=True)
        resume.read(None)
        self._ledger = resume.ledger
        self.is_log = self._source.is_log
        self.damaged: list[InputError] = self._source.bad
        if self.damaged and len(self.damaged) == len(self._source):
            self.close()
            raise UsageError(
                tr("this is not an output of a run: {problem}", problem=self.damaged[0])
            )

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __iter__(self) -> Iterator[Result]:
        """Yield the newest record of each line in the order of the file."""
        source = self._source
        for index in range(len(source)):
            number = source.number(index)
            if source.bad_reason(index) is not None:
                raw, state = source.raw(index), "failed"
                if not is_bad_record(raw):
                    continue
            else:
                found = self._ledger.place(index)
                raw = (
                    self._ledger.read(index, source.descriptor, -1) if found else source.raw(index)
                )
                state = STATES[State(self._ledger.states[index])]
            record = parse(raw)
            if record is not None:
                yield Result(number, state, record)


def kept(result: Result, only: str) -> bool:
    """Tell whether a line is among those that `--only` names."""
    wanted = {"all": STATES.values(), "not-run": ("not-run", "partly")}
    return result.state in wanted.get(only, (only,))


def cells_of(row: dict[str, Any], columns: list[str]) -> list[Any]:
    """Return the cells of a row in the order of the columns."""
    return [row.get(ALIASES.get(name, name), "") for name in columns]
