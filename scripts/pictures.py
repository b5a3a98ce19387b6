"""Take the pictures in docs/pictures: the real tool, in a terminal (as SVG) and a browser."""

from __future__ import annotations

import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from fcntl import ioctl
from itertools import count
from math import sin
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import compress, crc32

import pyte
import screenshots
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/pictures"
TOOL = Path(sys.executable).with_name("gpt4batch")
WIDTH, HEIGHT = 100, 40
LINES = 120
LOST = 40
"""The line whose picture is missing."""
QUIET = 0.1
"""Seconds without output that tell a whole frame from a half one."""
LONGEST = 120
SHOWN_FOLDER = "/home/you/batch"

FAULTS = {
    "GPT4BATCH_ASSET_RATE": "0",
    "GPT4BATCH_CONTENT_ERROR_RATE": "0.035",
    "GPT4BATCH_RATE_LIMIT_RATE": "0.02",
    "GPT4BATCH_ERROR_RATE": "0.03",
    "GPT4BATCH_LATENCY": "1",
    "GPT4BATCH_RETRY_AFTER": "0.5",
}

FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace;
font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own frame asks a server for its font; this one asks nobody."""

THEME = TerminalTheme(
    (24, 26, 32),
    (214, 217, 224),
    [
        (52, 56, 66),
        (232, 98, 110),
        (138, 196, 110),
        (229, 188, 108),
        (102, 166, 240),
        (194, 126, 226),
        (86, 186, 200),
        (196, 200, 208),
    ],
)


@dataclass(frozen=True)
class Shot:
    """A command in a terminal: the picture of its end, and perhaps one while it runs."""

    end: str
    command: str
    running: str = ""
    after: float = 0
    """Seconds after which the picture of the running command is taken."""
    key: bytes = b""
    """What is typed then."""


BATCH = "gpt4batch batchsvc --mock -i prompts.jsonl -o out.jsonl -d pictures -q 12 -g 30"
SHOTS = (
    Shot("check", BATCH.replace("batchsvc", "check")),
    Shot("interrupted", BATCH, running="running", after=7, key=b"\x03"),
    Shot("finished", f"{BATCH} -f=true", running="resumed", after=3),
)
LANGUAGES = {"": "C.UTF-8", ".zh-CN": "zh_CN.UTF-8"}
"""How the names of pictures end, and the locale they are taken in."""


def photo(number: int) -> bytes:
    """Return a PNG of a sun over hills, in colours of its own."""
    rows = bytearray()
    for y in range(120):
        rows.append(0)  # the row's filter: none
        for x in range(160):
            rows += bytes(_pixel(number, x, y))
    head = struct.pack(">IIBBBBB", 160, 120, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", compress(rows, 9)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _pixel(number: int, x: int, y: int) -> tuple[int, int, int]:
    hue = number * 0.381966 % 1  # the golden section: no two neighbours are alike
    hill = 78 + 14 * sin(x / 23 + number) + 8 * sin(x / 9 + 2 * number)
    sun = (x - 30 - number * 37 % 100) ** 2 + (y - 34) ** 2 < 190
    light = (0.35, 0.6, 0.45) if y > hill else (0.1, 0.9, 1) if sun else (0, 0.45, 0.7 + y / 400)
    red, green, blue = hsv_to_rgb(hue + light[0] if not sun or y > hill else 0.14, *light[1:])
    return int(red * 255), int(green * 255), int(blue * 255)


def write_input(path: Path) -> None:
    """Write a batch: pictures to describe, and one that is not there."""
    hue = count()
    with path.open("wb") as file:
        for number in range(1, LINES + 1):
            asks: list[dict[str, object]] = [{"id": "a-1", "content": f"Describe photo {number}"}]
            if number % 8 == 0:
                name = f"photo-{number}.png"
                asks[0]["images"] = [name]
                if number != LOST:
                    (path.parent / name).write_bytes(photo(next(hue)))
                asks.append({"id": "a-2", "content": "Now in one sentence"})
            file.write(rawjson.dumps({"id": f"photo-{number}", "asks": asks}) + b"\n")


class Screen(pyte.Screen):
    """A screen that begins a new row for a wide character which half a cell is left for."""

    def draw(self, data: str) -> None:
        """Write characters where the cursor is."""
        for char in data:
            if self.cursor.x == self.columns - 1 and cell_len(char) == 2:
                self.carriage_return()
                self.linefeed()
            super().draw(char)


class Terminal:
    """A terminal in which one command runs."""

    def __init__(self, command: str, folder: Path, lang: str) -> None:
        self.screen = Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self.screen)
        self._folder = str(folder).encode()
        words = [str(TOOL), *command.split()[1:]]
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.chdir(folder)
            more = {"TERM": "xterm-256color", "LC_ALL": lang}
            os.execve(words[0], words, {**kept, **FAULTS, **more})
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))

    def watch(self, seconds: float) -> None:
        """Follow the screen for so long, or until the command has ended."""
        deadline = time.monotonic() + seconds
        while select.select([self._terminal], [], [], max(deadline - time.monotonic(), QUIET))[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # how Linux tells that the other side has gone
                break
            self._stream.feed(data.replace(self._folder, SHOWN_FOLDER.encode()))

    def press(self, key: bytes) -> None:
        """Type something."""
        os.write(self._terminal, key)

    def close(self) -> None:
        """Wait for the command to end."""
        os.close(self._terminal)
        os.waitpid(self._child, 0)


def take(shot: Shot, folder: Path, lang: str) -> Iterator[tuple[str, str]]:
    """Run a command in a terminal and yield its pictures: their names, and the SVG."""
    terminal = Terminal(shot.command, folder, lang)
    if shot.running:
        terminal.watch(shot.after)
        yield shot.running, draw(shot.running, shot.command, terminal.screen)
        terminal.press(shot.key)
    terminal.watch(LONGEST)
    terminal.close()
    yield shot.end, draw(shot.end, shot.command, terminal.screen)


def line_of(screen: pyte.Screen, row: int) -> Text:
    """Return one row of a screen with its colours."""
    text = Text()
    for column in range(screen.columns):
        char = screen.buffer[row][column]
        text.append(char.data, Style(color=_colour(char.fg), bold=char.bold, reverse=char.reverse))
    text.rstrip()
    return text


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    names = {"brown": "yellow", "brightbrown": "bright_yellow"}
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    return names.get(name, name.replace("bright", "bright_", 1))


def draw(name: str, command: str, screen: pyte.Screen) -> str:
    """Return a screen as SVG, under the command line that made it."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        console.print(Text.assemble(("$ ", "bold green"), command))
        rows = [line_of(screen, row) for row in range(screen.lines)]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        for row in rows:
            assert cell_len(row.plain) <= WIDTH, row.plain
            console.print(row, overflow="ignore", crop=False, no_wrap=True)
        return console.export_svg(
            title="gpt4batch", theme=THEME, code_format=FORMAT, unique_id=name
        )


def main() -> None:
    """Take every picture, in the order in which a user would see them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for ending, lang in LANGUAGES.items():
        with tempfile.TemporaryDirectory(prefix="b") as temporary:
            folder = Path(temporary)  # a short name: causes are cut after 100 characters
            write_input(folder / "prompts.jsonl")
            for shot in SHOTS:
                for name, text in take(shot, folder, lang):
                    (FOLDER / f"{name}{ending}.svg").write_text(text)
                    print(f"docs/pictures/{name}{ending}.svg")
            output = folder / "out.jsonl"
            output.write_text(output.read_text().replace(temporary, SHOWN_FOLDER))
            for path in screenshots.take(folder, FOLDER, ending, lang):
                print(f"docs/pictures/{path.name}")


if __name__ == "__main__":
    main()
