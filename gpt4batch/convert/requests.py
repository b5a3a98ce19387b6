"""Lines of asks as lines of an OpenAI batch file, and back, where both ask the service the same.

Keys that are never sent, such as `extra`, have no place in the other form.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.base import Kind, Turn, Upload
from gpt4batch.dialects.openai import COMPLETIONS, OURS, OpenAI
from gpt4batch.errors import AttachmentError
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.asks import Asks
from gpt4batch.lines.formats.batch import CHAT, Batch
from gpt4batch.lines.formats.known import form_of
from gpt4batch.lines.parse import BATCH, BOM, BadLine, Id, parse_line
from gpt4batch.lines.reading import listed, mapped, text_of
from gpt4batch.service.attachments import files_of
from gpt4batch.service.inline import InlineFiles
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.convert.problems import Problems
    from gpt4batch.lines.parse import Line

ANY_MODEL = "-"
"""Stands for the model that a run names by -m."""

KEPT = {
    "asks": frozenset({"id", "asks", "model", "system", "params"}),
    "batch": frozenset({"custom_id", "method", "url", "body"}),
}
"""The keys of a line, by its format, that stand in the other one as well."""


class Reader:
    """Makes the one of the other.

    Args:
        path: The file, for messages; its folder is where the paths in it start.
        problems: Takes in what is wrong with a line.
        lossy: Leave out what has no place, instead of refusing it.
    """

    def __init__(self, path: str, problems: Problems, *, lossy: bool) -> None:
        self._path = path
        self._problems = problems
        self._lossy = lossy
        self._files = InlineFiles(Path(path).parent, OpenAI())
        self._lost: Counter[str] = Counter()

    async def lines(self, raw: bytes) -> list[tuple[int, bytes, Id]]:
        """Return the number, the text and the id of each line that was made."""
        rows = enumerate(raw.removeprefix(BOM).split(b"\n"), 1)
        texts = [(number, text) for number, text in rows if text.strip()]
        form = form_of(texts[0][1], Asks(), Batch(ANY_MODEL))
        found: list[tuple[int, bytes, Id]] = []
        for number, text in texts:
            try:
                line = form.parse(text, number=number)
                self._lose(number, rawjson.loads(text), KEPT[form.name])
                line.raw = form.own(text)
                if line.id is None:
                    line.id = f"line-{number}"
                line.id = str(line.id)  # as other readers of batch files want it
                made = asks_of(line) if BATCH in line.options else await self._request_of(line)
            except (BadLine, AttachmentError) as error:
                self._problems.add(self._path, number, str(error))
            else:
                found.append((number, made, line.id))
        for name, count in self._lost.items():
            self._problems.notes.append(
                tr(
                    "{path}: {name} left out ({count:,} times)",
                    path=self._path,
                    name=name,
                    count=count,
                )
            )
        return found

    def _lose(self, number: int, doc: dict[str, Any], kept: frozenset[str]) -> None:
        names = [name for name, value in doc.items() if value and name not in kept]
        if self._lossy:
            self._lost.update(names)
        elif names:
            reason = tr("{names} would be lost; --lossy leaves it out", names=", ".join(names))
            self._problems.add(self._path, number, reason)

    async def _request_of(self, line: Line) -> bytes:
        """Return a line of asks as a line of a batch file, its attachments in it.

        Raises:
            BadLine: No single request says the same.
            AttachmentError: A file cannot be read, or is of no type that is taken.
        """
        if len(line.asks) > 1:
            raise BadLine(
                tr(
                    "a conversation of {count} asks; a line of a batch file is one request",
                    count=len(line.asks),
                )
            )
        sent = KEPT["asks"] & line.options.keys()
        line.options = {name: line.options[name] for name in sent}
        if wrong := OpenAI().wrong(line, {"model": ANY_MODEL}):
            raise BadLine(wrong)
        uploads = [await self._files.read(kind, path) for kind, path in files_of(line.asks[0])]
        body = _body(line, uploads)
        request = {"custom_id": line.id, "method": "POST", "url": CHAT, "body": body}
        return rawjson.dumps(request)


def asks_of(line: Line) -> bytes:
    """Return a line of a batch file as a line of asks.

    Raises:
        BadLine: No ask says the same.
    """
    url, text = line.request() or ("", b"")
    if not url.endswith(COMPLETIONS):
        raise BadLine(tr("url {url!r}: only chat completions can be asks", url=url))
    body = rawjson.loads(text)
    *before, last = listed(body.get("messages")) or [None]
    record: dict[str, Any] = {"id": line.id, "asks": [_ask(mapped(last).get("content"))]}
    if body.get("model"):
        record["model"] = body["model"]
    if before:
        record["system"] = text_of(mapped(before[0]).get("content"))
    own = ("model", *OURS)
    given = {name: value for name, value in rawjson.members(text) if name not in own}
    if given:
        record["params"] = {name: rawjson.Fragment(value) for name, value in given.items()}
    made = rawjson.dumps(record)
    again = parse_line(made)
    uploads = [Upload(Kind.PICTURE, {"path": path}) for path in again.asks[0].images]
    sent = rawjson.loads(rawjson.dumps(_body(again, uploads)))
    if place := _difference(sent, body, "body"):
        raise BadLine(tr("{place} has no place in a line of asks", place=place))
    return made


def _ask(content: Any) -> dict[str, Any]:
    """Return the ask that a message of the user is, as far as one can be that."""
    if isinstance(content, str):
        return {"content": content}
    parts = [mapped(part) for part in listed(content)]
    texts = [text_of(part.get("text")) for part in parts if part.get("type") == "text"]
    urls = [text_of(mapped(part.get("image_url")).get("url")) for part in parts]
    return {"content": "".join(texts), "images": [url for url in urls if url]}


def _body(line: Line, uploads: list[Upload]) -> dict[str, Any]:
    """Return the body of the request that a line of one ask is sent as."""
    turn = Turn(line.asks, (), line.options, uploads=uploads, params=line.params(0))
    fields = OpenAI().chat(turn).fields
    return {name: value for name, value in fields.items() if value is not None}


def _difference(mine: Any, theirs: Any, place: str) -> str:
    """Return where two values are not the same, or nothing."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        names = sorted(mine.keys() | theirs.keys())
        inner = [(f"{place}.{name}", mine.get(name), theirs.get(name)) for name in names]
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = enumerate(zip(mine, theirs, strict=True))
        inner = [(f"{place}[{n}]", *pair) for n, pair in pairs]
    else:
        return "" if mine == theirs else place
    return next((found for where, a, b in inner if (found := _difference(a, b, where))), "")
