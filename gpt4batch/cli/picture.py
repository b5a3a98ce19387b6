"""A run drawn on a terminal, a few times a second, under its log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
from rich.cells import cell_len
from rich.console import Group, RenderHook
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn
from rich.progress import Progress as Bar
from rich.text import Text

from gpt4batch.cli.display import GOOD, View

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable, RenderableType

    from gpt4batch.batch.progress import Progress

REFRESH = 0.25
WIDEST = 100
SPARE = 2
"""Columns that stay empty: a key that is typed at the end of a full row would fold it."""

KEEP_TITLE, OLD_TITLE = "\x1b[22;0t", "\x1b[23;0t"
"""Let a terminal remember its title, and take it up again."""


class Picture(RenderHook):
    """The run on a terminal, drawn a few times a second under the log."""

    def __init__(self, console: Console, progress: Progress, view: View) -> None:
        self._console = console
        self._progress = progress
        self._view = view
        self._width = console.width
        self._drawn: RenderableType = ""
        self._title = ""
        self._bar = _bar()
        self._task = self._bar.add_task("", total=max(progress.done_before + progress.to_run, 1))

    async def draw(self) -> None:
        """Draw until cancelled, then leave the terminal as it was."""
        self._console.push_render_hook(self)
        self._console.file.write(KEEP_TITLE)
        try:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while True:
                    self._view.look()
                    picture = self.now()
                    live.update(picture, refresh=True)
                    self._drawn = picture
                    # The terminal's title tells how far the run is, as one sees it in another tab.
                    title = f"{int(self._bar.tasks[0].percentage)}% {self._view.name}"
                    if title != self._title:
                        self._title = title
                        self._console.set_window_title(title)
                    await anyio.sleep(REFRESH)
        finally:
            self._console.pop_render_hook()
            self._console.file.write(OLD_TITLE)
            self._console.file.flush()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Remove what a narrower terminal has made of the picture: its rows, each now several.

        It has to happen before anything is written, be it the picture or the log.
        """
        width, before = self._console.width, self._width
        self._width = width
        if width >= before or "XTERM_VERSION" in os.environ:  # xterm cuts rows, all others fold
            return renderables
        rows = self._console.render_lines(
            self._drawn, self._console.options.update(width=before), pad=False
        )
        used = [sum(part.cell_length for part in row) for row in rows]
        folded = sum((max(cells, 1) - 1) // width for cells in used)
        if folded:
            self._console.file.write(f"\x1b[{folded}A\r\x1b[J")
        return renderables

    def now(self) -> RenderableType:
        """Return the picture of this moment."""
        progress, view = self._progress, self._view
        width = min(self._console.width - SPARE, WIDEST)
        finished = progress.done_before + progress.done + progress.failed
        self._bar.update(self._task, completed=finished)
        rows: list[RenderableType] = [Constrain(self._bar.get_renderable(), width)]
        for facts in (view.lines(), view.speed(), view.trouble(), view.files()):
            rows += packed(facts, width)
        error, style = view.error()
        if error:
            text = Text(error, style=style)
            text.truncate(width, overflow="ellipsis")
            rows.append(text)
        return Group(*rows[: max(self._console.height - 1, 2)])


def _bar() -> Bar:
    column = BarColumn(bar_width=None, complete_style=GOOD, finished_style=GOOD)
    return Bar(column, TaskProgressColumn(style=""), expand=True, auto_refresh=False)


def packed(facts: list[tuple[str, str]], width: int) -> list[Text]:
    """Return rows of facts, none of which is broken where it fits into a row at all."""
    rows: list[Text] = []
    for fact, style in facts:
        if rows and rows[-1].cell_len + 3 + cell_len(fact) <= width:
            rows[-1].append(" · ").append(fact, style)
        else:
            rows.append(Text(overflow="ellipsis", no_wrap=True).append(fact, style))
    return rows
