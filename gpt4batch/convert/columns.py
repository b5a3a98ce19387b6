"""Which column of a table is what: by the names that were given, else by the usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt4batch.errors import UsageError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL = {
    "id": ("id", "编号"),
    "content": ("content", "prompt", "question", "问题", "内容", "提问"),
    "image": ("images", "image", "图片"),
    "file": ("files", "file", "文件"),
    "model": ("model", "模型"),
    "gizmo-id": ("gizmo_id",),
    "system": (),  # by its flag alone: gpt4api would refuse a line with it
    "conversation": ("conversation", "会话", "对话"),
}
"""What a column can be, which is also the flag that names it, and how it is usually called."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row by the meaning of its cells; `extra` is what has none for this tool."""

    path: str
    number: int
    cells: Mapping[str, str]
    extra: Mapping[str, str]

    def __getitem__(self, meaning: str) -> str:
        """Return a cell without white space around it; empty where there is no such column."""
        return self.cells.get(meaning, "").strip()


class Header:
    """The first row of a table.

    Args:
        path: The file, for messages.
        cells: The names of its columns.
        given: The columns that were named by flags.
    """

    def __init__(self, path: str, cells: list[str], given: Mapping[str, str]) -> None:
        self._path = path
        self.names = [name.strip() for name in cells]
        self.places: dict[str, int] = {}
        for name in self.names:
            if name and self.names.count(name) > 1:
                raise UsageError(
                    tr("{path}: two columns are named {name!r}: rename one", path=path, name=name)
                )
        for meaning, usual in USUAL.items():
            place = self._place(meaning, usual, given.get(meaning, ""))
            if place is not None:
                self.places[meaning] = place
        if "content" not in self.places:
            known = ", ".join(USUAL["content"])
            raise UsageError(
                tr(
                    "{path}: no column is named {known}: name the column of the questions with "
                    "--content; there are: {names}",
                    path=path,
                    known=known,
                    names=self._shown(),
                )
            )

    def _shown(self) -> str:
        return ", ".join(name or "(no name)" for name in self.names)[:300] or "none"

    def _place(self, meaning: str, usual: tuple[str, ...], given: str) -> int | None:
        if given:
            if given.strip() not in self.names:
                raise UsageError(
                    tr(
                        "--{meaning} {given!r}: {path} has no such column; there are: {names}",
                        meaning=meaning,
                        given=given,
                        path=self._path,
                        names=self._shown(),
                    )
                )
            return self.names.index(given.strip())
        found = [place for place, name in enumerate(self.names) if name.casefold() in usual]
        if len(found) > 1:
            both = ", ".join(self.names[place] for place in found)
            raise UsageError(
                tr(
                    "{path}: {both}: which one is it? Name it with --{meaning}",
                    path=self._path,
                    both=both,
                    meaning=meaning,
                )
            )
        return found[0] if found else None

    def row(self, number: int, cells: list[str]) -> Row:
        """Return a row of the table by the meaning of its cells."""
        full = cells + [""] * (len(self.names) - len(cells))
        own = {meaning: full[place] for meaning, place in self.places.items()}
        taken = set(self.places.values())
        extra = {}
        for place, name in enumerate(self.names):
            if place not in taken and (name or full[place].strip()):
                extra[name or f"column {place + 1}"] = full[place]
        return Row(self._path, number, own, extra)
