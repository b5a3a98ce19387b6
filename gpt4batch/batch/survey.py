"""The lines that a run would run, looked at one by one: what they cost, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gpt4batch.batch.estimates import Estimate
from gpt4batch.dialects.base import Kind, Upload
from gpt4batch.dialects.openai import is_address
from gpt4batch.errors import AttachmentError
from gpt4batch.lines import rawjson
from gpt4batch.lines.blank import blank_ask
from gpt4batch.lines.parse import BATCH, OWN_KEYS
from gpt4batch.service.attachments import beginning, measure, picture_format, shown
from gpt4batch.settings import MIB
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.dialects.base import Dialect
    from gpt4batch.journal.source import Source
    from gpt4batch.lines.parse import Line

ASSUMED_SECONDS = 30.0
"""How long an answer is taken to need where no earlier run tells."""
ASK_KEYS = {"id", "content", "images", "image", "files", "file", "params"}

Level = Literal["refused", "fails", "note"]


@dataclass(slots=True)
class Plan:
    """What a run would do; sizes in bytes, times in seconds."""

    lines: int = 0
    bad_lines: int = 0
    done: int = 0
    to_run: int = 0
    to_fail: int = 0
    chats: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    call_seconds: float = ASSUMED_SECONDS
    call_seconds_from: Literal["assumed", "output"] = "assumed"
    seconds: float = 0.0
    output_bytes: int = 0
    free_bytes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_from: Literal["assumed", "output"] = "assumed"
    cost: float | None = None


class Survey:
    """Look at the lines to run: their attachments, keys and ids, and what they cost."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        note: Callable[[Level, str, str], None],
        dialect: Dialect,
    ) -> None:
        self._dialect = dialect
        self._known = {*OWN_KEYS, *dialect.options, BATCH}
        self._source = source
        self._plan = plan
        self._note = note
        self._sizes: dict[str, int] = {}
        self._ids: dict[int, int] = {}
        self._equal: list[tuple[int, int]] = []
        self._unknown: dict[str, int] = {}
        self.estimate = Estimate()

    def take(self, line: Line) -> None:
        """Count one line."""
        plan = self._plan
        plan.to_run += 1
        self._look_at_keys(line)
        if line.id is not None:
            first = self._ids.setdefault(hash(line.id), line.number)
            if first != line.number:
                self._equal.append((line.number, first))
        if reason := blank_ask(line):
            self._note(
                "fails",
                "input",
                tr(
                    "{path}:{number}: {reason}",
                    path=self._source.path,
                    number=line.number,
                    reason=reason,
                ),
            )
            plan.to_fail += 1
            return
        if self._dialect.takes_requests:
            self.estimate.take(line)
        inside = 0
        for ask in line.asks[line.answered :]:
            sizes = [self._size(line, path, picture=True) for path in ask.images]
            sizes += [self._size(line, path, picture=False) for path in ask.files]
            if -1 in sizes:
                plan.to_fail += 1
                return
            plan.chats += 1
            inside += sum(sizes)
            if self._dialect.upload_scope == "thread":
                plan.uploads += len(sizes)
                plan.upload_bytes += sum(sizes)
        self._look_at_body(line, inside)

    def _look_at_body(self, line: Line, inside: int) -> None:
        """Note attachments that make the last request of a line too large, which has them all."""
        size, most = inside * 4 // 3, self._dialect.largest_file
        if self._dialect.upload_scope == "inline" and size > most:
            where = f"{self._source.path}:{line.number}"
            text = tr(
                "{where}: its attachments take {size:.0f} MiB inside one request; OpenAI takes "
                "{most:.0f} MiB",
                where=where,
                size=size / MIB,
                most=most / MIB,
            )
            self._note("note", "attachments", text)

    def _size(self, line: Line, path: str, *, picture: bool) -> int:
        """Return the size of an attachment, or -1 for one that cannot be sent."""
        where = f"{self._source.path}:{line.number}"
        if picture and self._dialect.upload_scope == "inline" and is_address(path):
            return 0
        if path in self._sizes:
            size = self._sizes[path]
            if size < 0:
                self._note(
                    "fails",
                    "attachments",
                    tr("{where}: {path} cannot be sent either", where=where, path=shown(path)),
                )
            return size
        try:
            size = measure(self._source.folder, path, self._dialect.largest_file)[0]
        except AttachmentError as error:
            self._note("fails", "attachments", tr("{where}: {error}", where=where, error=error))
            size = -1
        else:
            if not self._look_at_content(where, path, size, picture=picture):
                size = -1
        self._sizes[path] = size
        return size

    def _look_at_content(self, where: str, path: str, size: int, *, picture: bool) -> bool:
        """Return whether a file can be sent as what it is."""
        if picture and self._dialect.upload_scope == "inline":
            note = {"head": beginning(self._source.folder / path)}
            if wrong := self._dialect.unfit(Upload(Kind.PICTURE, note)):
                self._note(
                    "fails",
                    "attachments",
                    tr("{where}: {path} {wrong}", where=where, path=shown(path), wrong=wrong),
                )
                return False
        if not size:
            self._note(
                "note",
                "attachments",
                tr("{where}: {path} is empty", where=where, path=shown(path)),
            )
        elif picture and not picture_format(self._source.folder / path):
            text = tr(
                "{where}: {path} is sent as a picture, but does not begin like one; other files "
                "belong in files",
                where=where,
                path=shown(path),
            )
            self._note("note", "attachments", text)
        return True

    def _look_at_keys(self, line: Line) -> None:
        doc = rawjson.loads(line.raw)
        for ask in doc["asks"]:
            for name in ask.keys() - ASK_KEYS:
                self._unknown.setdefault(f"asks[].{name}", line.number)
        for name in doc.keys() - self._known:
            self._unknown.setdefault(name, line.number)

    def tell(self) -> None:
        """Note what holds for the input as a whole."""
        path = self._source.path
        for name, number in sorted(self._unknown.items()):
            where = f"{path}:{number}"
            if name.startswith("asks[]."):
                text = tr(
                    "{where}: the key {key} is not known here: it is not sent",
                    where=where,
                    key=name,
                )
            else:
                text = tr(
                    "{where}: the key {key} is not known here: it comes back unchanged",
                    where=where,
                    key=name,
                )
            self._note("note", "keys", text)
        if self._equal:
            number, first = self._equal[0]
            where, more = f"{path}:{number}", len(self._equal) - 1
            text = tr("{where}: line {first} has the same id", where=where, first=first)
            if more:
                text += tr(", and {count} more such", count=more)
            text += tr("; results are told apart by their asks and order")
            self._note("note", "ids", text)
