"""What is new of a line: the log grows by that alone, and a reader puts the line together again.

The first record of a half-way line is whole and has a `go` in its `meta`. Each further one is a
step: the same `go`, its number, and only the answers, downloads and uploads that were added. Notes
of downloads follow those of the answer, or take the place of them from number `at` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from gpt4batch.lines import rawjson
from gpt4batch.lines.links import notes_in, with_downloads
from gpt4batch.lines.record import render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpt4batch.lines.parse import Line

LISTS = ("asks", "uploads")
"""The parts of `meta` that grow; all else of it is small, and is told anew."""


NOTED = b',"spec_downloads":['


@dataclass(slots=True)
class Standing:
    """How far a line is, as it is written down."""

    line: Line
    answers: list[bytes]
    error: dict[str, Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def whole(self, go: str = "") -> bytes:
        """Return the record that tells all of it."""
        mark = {"go": go} if go else {}
        return render(self.line.raw, self.answers, self.error, self.meta | mark)


def step(before: Standing, now: Standing, go: str, number: int) -> bytes | None:
    """Return the record of what was added, or None where something else was changed."""
    links = _links(before.answers, now.answers)
    added = now.answers[len(before.answers) :]
    meta = _meta(before.meta, now.meta, answered=bool(added))
    if links is None or meta is None:
        return None
    place = len(before.answers) if added else links[0]["answer"] if links else len(now.answers)
    record: dict[str, Any] = {"id": now.line.id, "go": go, "step": number}
    if place < len(now.line.asks):
        ask_id = now.line.asks[place].id
        record["ask"] = place + 1 if ask_id is None else ask_id
    if added:
        record["answers"] = [rawjson.Fragment(answer) for answer in added]
    if links:
        record["downloads"] = links
    if now.error:
        record["iErr"] = now.error
    return rawjson.one_line(rawjson.dumps(record | {"meta": meta}))


def _links(before: list[bytes], now: list[bytes]) -> list[dict[str, Any]] | None:
    """Return the notes of downloads that were added to earlier answers."""
    if len(now) < len(before):
        return None
    found = []
    for place, (old, new) in enumerate(zip(before, now, strict=False)):
        if old == new:
            continue
        if (items := _appended(old, new)) is not None:
            found.append({"answer": place, "spec_downloads": items})
            continue
        one, other = rawjson.loads(old), rawjson.loads(new)
        known, noted = notes_in(one), notes_in(other)
        if one | {"spec_downloads": 0} != other | {"spec_downloads": 0}:
            return None
        if not _origins(known) <= _origins(noted):
            return None
        pairs = zip(known, noted, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        found.append({"answer": place, "at": same, "spec_downloads": noted[same:]})
    return found


def _origins(notes: list[dict[str, Any]]) -> set[Any]:
    return {item.get("origin") for item in notes}


def _appended(old: bytes, new: bytes) -> list[Any] | None:
    """Return the notes at the end of a reply's text that follow those it had; None if unsure.

    A reply with a thousand links is not decoded a thousand times.
    """
    start = len(old) - 2
    if NOTED not in old or not old.endswith(b"]}") or new[:start] != old[:start]:
        return None
    try:
        items = rawjson.loads(b"[" + new[start:-2].removeprefix(b",") + b"]")
    except rawjson.JSONError:
        return None
    return items if all(isinstance(item, dict) for item in items) else None


def _meta(before: dict[str, Any], now: dict[str, Any], *, answered: bool) -> dict[str, Any] | None:
    """Return what is new in `meta`; an answer makes an end of the uploads for its ask."""
    if not before.keys() - {"uploads"} <= now.keys():
        return None
    new = {
        name: value
        for name, value in now.items()
        if name not in LISTS and rawjson.dumps(before.get(name)) != rawjson.dumps(value)
    }
    for name in LISTS:
        old = [] if answered and name == "uploads" else before.get(name) or []
        items = now.get(name) or []
        if items[: len(old)] != old:
            return None
        if items[len(old) :]:
            new[name] = items[len(old) :]
    return new


def is_step(doc: dict[str, Any]) -> bool:
    """Return whether a decoded record is a step, as far as its shape goes."""
    answers, links = doc.get("answers", []), doc.get("downloads", [])
    return (
        "asks" not in doc
        and isinstance(doc.get("go"), str)
        and type(doc.get("step")) is int
        and isinstance(doc.get("meta"), dict)
        and (doc.get("iErr") is None or isinstance(doc["iErr"], dict))
        and isinstance(answers, list)
        and all(isinstance(answer, dict) for answer in answers)
        and isinstance(links, list)
        and all(_is_note(note) for note in links)
    )


def _is_note(note: Any) -> bool:
    items = note.get("spec_downloads") if isinstance(note, dict) else None
    return (
        isinstance(items, list)
        and type(note.get("answer")) is int
        and type(note.get("at", 0)) is int
        and all(isinstance(item, dict) for item in items)
    )


def folded(texts: Iterable[bytes]) -> bytes:
    """Put a line together: its whole record, then each step, in their order."""
    first, *steps = texts
    if not steps:
        return first
    known = dict(rawjson.members(first))
    answers = _elements(known.get("answers"))
    meta = dict(rawjson.members(known.get("meta", b"{}")))
    meta.pop("go", None)
    error = known.get("iErr")
    noted: dict[int, list[Any]] = {}
    for text in steps:
        parts = dict(rawjson.members(text))
        more = dict(rawjson.members(parts["meta"]))
        error, added = parts.get("iErr"), _elements(parts.get("answers"))
        if added:
            answers += added
            meta.pop("uploads", None)
        for name in more.keys() & LISTS:  # lists go on where the earlier ones end
            all_of_it = _elements(meta.get(name)) + _elements(more[name])
            more[name] = b"[" + b",".join(all_of_it) + b"]"
        meta |= more
        for note in rawjson.loads(parts.get("downloads", b"[]")):
            if 0 <= note["answer"] < len(answers):
                _add_notes(noted, answers, note)
    for place, items in noted.items():
        answers[place] = with_downloads(answers[place], items)
    told = None if error in (None, b"null") else rawjson.Fragment(error)
    text = b"{" + b",".join(rawjson.dumps(k) + b":" + v for k, v in meta.items()) + b"}"
    return render(first, answers, told, rawjson.Fragment(text))


def _add_notes(noted: dict[int, list[Any]], answers: list[bytes], note: dict[str, Any]) -> None:
    """Add what a step tells of the downloads of one answer to what is known of them."""
    place = note["answer"]
    if place not in noted:
        noted[place] = notes_in(rawjson.loads(answers[place]))
    if "at" in note:
        del noted[place][note["at"] :]
    noted[place] += note["spec_downloads"]


def _elements(text: bytes | None) -> list[bytes]:
    return rawjson.elements(text) if text and text != b"null" else []
