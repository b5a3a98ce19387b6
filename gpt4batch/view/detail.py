"""A line as the page shows it: one row of the list, the whole conversation, its JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.known import answer_text, is_answer, messages, model_of, told_by
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.known import parse
from gpt4batch.lines.reading import (
    attached,
    listed,
    mapped,
    text_of,
)
from gpt4batch.usage import Usage
from gpt4batch.view.query import LONGEST_SEARCHED, Query
from gpt4batch.view.questions import record_of
from gpt4batch.view.record import number, picture_names, shown_text

if TYPE_CHECKING:
    from gpt4batch.view.files import Folders
    from gpt4batch.view.index import Index

SNIPPET = 240
BEFORE = 24
"""Characters that are shown before a text that was found."""

_MARKS = re.compile(r"\*\*|`+|^#+ ", re.MULTILINE)
LONGEST_TEXT = 256 * 1024
LONGEST_RAW = 512 * 1024
MOST_TURNS = 500
MOST_EXTRAS = 6
ANY = Query()
MOST_MESSAGES = 200
DEEPEST = 16
"""Of indented JSON: what is nested deeper moves no further to the right."""

_WORD = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:]|[^\s\[\]{},:"]+')
_OPENING, _CLOSING = frozenset("[{"), frozenset("]}")
_CONTINUING = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that begin no character."""


def snippet(text: str) -> str:
    """Return the beginning of a text on one line, without marks of emphasis, code and headings."""
    return " ".join(_MARKS.sub("", text[: SNIPPET * 2]).split())[:SNIPPET]


def summary(index: Index, row: int, query: Query = ANY) -> dict[str, Any]:
    """Return a line as one row of the list, with the place that holds what was looked for."""
    line = index.read(row)
    record = record_of(index, row)
    entry = {
        "row": row,
        "state": index.rows.state[row],
        "cause": index.rows.cause[row],
        "pictures": index.rows.pictures[row],
        "key": f"{index.rows.key[row]:x}",
    }
    if index.rows.finish[row]:
        entry["finish"] = index.rows.finish[row]
    if record is None:
        return {**entry, "id": "", "ask": snippet(line[:1024].decode(errors="replace"))}
    asks, replies = listed(record.get("asks")), listed(record.get("answers"))
    error = mapped(record.get("iErr"))
    calls = [mapped(call) for call in listed(mapped(record.get("meta")).get("asks"))]
    seconds = [number(call.get("seconds")) for call in calls]
    if query.text:
        entry["hit"] = excerpt(shown_text(record), query.pattern())
    if extra := mapped(record.get("extra")):
        entry["extra"] = {name: text_of(extra[name])[:80] for name in list(extra)[:MOST_EXTRAS]}
    for name in ("attempts", "length", "tokens"):
        entry[name] = index.rows.number(name, row)
    return {
        **entry,
        "id": text_of(record.get("id"))[:SNIPPET],
        "ask": snippet(text_of(mapped(asks[0]).get("content")) if asks else ""),
        "answer": snippet(answer_text(replies[-1]) if replies else ""),
        "asks": len(asks),
        "answers": len(replies),
        "error": snippet(text_of(error.get("message"))),
        "seconds": sum(item for item in seconds if item is not None) if calls else None,
    }


def excerpt(shown: str, wanted: re.Pattern[str]) -> list[str] | None:
    """Return what stands before a text where it is first shown, the text itself, what follows."""
    found = wanted.search(shown, 0, LONGEST_SEARCHED)
    if found is None:
        return None
    place, end = found.span()
    before = ("…" if place > BEFORE else "") + shown[max(0, place - BEFORE) : place]
    return [before, shown[place:end][:SNIPPET], shown[end : end + SNIPPET]]


class Budget:
    """How much text of one line is still sent to the page."""

    def __init__(self, longest: int = LONGEST_TEXT) -> None:
        self.longest = longest
        self.left = 4 * longest

    def text(self, text: str) -> dict[str, Any]:
        """Return a text, cut where it is too long to be shown at once, and its full length."""
        kept = text[: min(self.longest, self.left)]
        self.left -= len(kept)
        return {"text": kept, "length": len(text)}


def conversation(
    index: Index, row: int, folders: Folders, budget: Budget | None = None
) -> dict[str, Any]:
    """Return a line with everything that the page shows of it."""
    budget = budget or Budget()
    line = index.read(row)
    record = record_of(index, row)
    entry = {
        "row": row,
        "generation": index.generation,
        "key": f"{index.rows.key[row]:x}",
        "state": index.rows.state[row],
        "size": len(line.strip()),
    }
    if record is None:
        return {**entry, "id": "", "turns": [], **unreadable(line, budget)}
    system, shown = text_of(record.get("system")), turns(record, folders, budget)
    if price := index.figures.price:
        for reply in filter(None, (turn["answer"] for turn in shown)):
            if tokens := reply.get("tokens"):
                reply["cost"] = price.of(Usage(**tokens))
    return {
        **entry,
        "id": text_of(record.get("id")),
        **({"system": budget.text(system)} if system else {}),
        "turns": shown,
        "error": error_of(record.get("iErr"), folders, budget),
        "more": more_of(record, budget),
    }


def unreadable(line: bytes, budget: Budget) -> dict[str, Any]:
    """Return what is shown of a line that is no JSON object."""
    text = line[:LONGEST_TEXT].decode(errors="replace")
    return {"error": {"message": budget.text("not a JSON object")}, "more": budget.text(text)}


def turns(record: dict[str, Any], folders: Folders, budget: Budget) -> list[dict[str, Any]]:
    """Return the asks of a line, each with its answer where there is one."""
    asks, replies = listed(record.get("asks")), listed(record.get("answers"))
    calls = listed(mapped(record.get("meta")).get("asks"))
    shown = []
    for turn in range(min(max(len(asks), len(replies)), MOST_TURNS)):
        ask = mapped(asks[turn]) if turn < len(asks) else {}
        call = mapped(calls[turn]) if turn < len(calls) else {}
        pictures, files = attached(ask)
        shown.append(
            {
                "id": text_of(ask.get("id")),
                "ask": budget.text(text_of(ask.get("content"))),
                "assets": [folders.asset("in", name) for name in [*pictures, *files]],
                "answer": answer(replies[turn], folders, budget) if turn < len(replies) else None,
                "seconds": number(call.get("seconds")),
                "attempts": number(call.get("attempts")),
            }
        )
    return shown


def answer(reply: Any, folders: Folders, budget: Budget) -> dict[str, Any]:
    """Return a reply as its messages and downloaded files; an unknown shape as JSON."""
    fields = mapped(reply)
    shown = [
        {**item._asdict(), **budget.text(item.text)}
        for item, _ in zip(messages(reply), range(MOST_MESSAGES), strict=False)
    ]
    if not shown and not is_answer(fields):
        shown = [{"role": "assistant", "kind": "json", **budget.text(pretty(reply))}]
    told = told_by(fields)
    return {
        "messages": shown,
        "model": model_of(reply)[:SNIPPET],
        **({"finish": told.finish[:SNIPPET]} if told.finish else {}),
        **({"tokens": told.usage._asdict()} if told.usage else {}),
        "downloads": [download(item, folders) for item in listed(fields.get("spec_downloads"))],
    }


def download(item: Any, folders: Folders) -> dict[str, Any]:
    """Return one downloaded file, or why it is not there."""
    fields = mapped(item)
    name = fields.get("local")
    asset = folders.asset("dl", name) if name else {"name": "", "kind": "missing"}
    return {
        **asset,
        "origin": text_of(fields.get("origin"))[:2048],
        "error": text_of(fields.get("error"))[:2048],
    }


def error_of(error: Any, folders: Folders, budget: Budget) -> dict[str, Any] | None:
    """Return why a line failed, with the reply that was no answer where it was kept."""
    if not error:
        return None
    fields = mapped(error)
    reply = fields.get("reply")
    return {
        "code": fields.get("code"),
        "stage": text_of(fields.get("stage")),
        "attempts": number(fields.get("attempts")),
        "message": budget.text(text_of(fields.get("message") if fields else error)),
        **({"reply": answer(reply, folders, budget)} if isinstance(reply, dict) else {}),
    }


def more_of(record: dict[str, Any], budget: Budget) -> dict[str, Any] | None:
    """Return what else a line carries: extra, meta and unknown keys."""
    shown = {"id", "asks", "answers", "iErr", "system"}
    rest = {key: value for key, value in record.items() if key not in shown and value is not None}
    return budget.text(pretty(rest)) if rest else None


def pretty(value: Any) -> str:
    """Return a value as indented JSON."""
    return rawjson.pretty(value).decode().rstrip()


def raw(index: Index, row: int) -> dict[str, Any]:
    """Return a line's JSON, indented, and cut where it is too long to be shown at once.

    Only white space is added: numbers of any length and keys that stand twice stay as they are.
    """
    line = index.read(row).strip()
    if len(line) > 4 * LONGEST_RAW:
        shown = line[: 4 * LONGEST_RAW].decode(errors="replace")
        return {"text": shown[:LONGEST_RAW], "length": len(line.translate(None, _CONTINUING))}
    text = line.decode(errors="replace")
    text = text if parse(line) is None else indented(text)
    return {"text": text[:LONGEST_RAW], "length": len(text)}


def indented(text: str) -> str:
    """Return valid JSON with each member and element on a row of its own."""
    shown = []
    depth, last = 0, ""
    for word in _WORD.findall(text):
        depth -= word in _CLOSING
        if last == "," or (last in _OPENING) != (word in _CLOSING):
            shown.append("\n" + "  " * min(depth, DEEPEST))
        shown.append(": " if word == ":" else word)
        depth += word in _OPENING
        last = word
    return "".join(shown)


def pictures(index: Index, folders: Folders, start: int, count: int) -> list[dict[str, Any]]:
    """Return some of all pictures, counted over the lines in order."""
    found: list[dict[str, Any]] = []
    row, skip = picture_row(index, start)
    while row < len(index.rows) and len(found) < count:
        if index.rows.pictures[row]:
            found += row_pictures(index, folders, row)[skip:]
            skip = 0
        row += 1
    return found[:count]


def picture_row(index: Index, start: int, block: int = 4096) -> tuple[int, int]:
    """Return the row that holds the picture of this number, and how many come before it there."""
    counts = index.rows.pictures
    row = 0
    while row < len(counts) and (held := sum(counts[row : row + block])) <= start:
        start -= held
        row += block
    while row < len(counts) and counts[row] <= start:
        start -= counts[row]
        row += 1
    return row, start


def row_pictures(index: Index, folders: Folders, row: int) -> list[dict[str, Any]]:
    """Return the pictures of one line."""
    record = record_of(index, row) or {}
    names = picture_names(listed(record.get("asks")), listed(record.get("answers")))
    found = []
    for (side, turn, name), _ in zip(names, range(index.rows.pictures[row]), strict=False):
        asset = folders.asset("in" if side == "ask" else "dl", name)
        entry = {"row": row, "id": text_of(record.get("id"))[:SNIPPET], "side": side, "turn": turn}
        found.append({**asset, **entry})
    return found
