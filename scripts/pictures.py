"""Take the pictures in docs/pictures: the real tool in a terminal, its screen drawn as SVG."""

from __future__ import annotations

import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import pyte
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from gpt4batch import jsonl

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/pictures"
PICTURE = ROOT / "examples/img/lake.png"
TOOL = Path(sys.executable).with_name("gpt4batch")
WIDTH, HEIGHT = 92, 40
LINES = 120
QUIET = 0.1
"""Seconds without output that tell a whole frame from a half one."""
SHOWN_FOLDER = "/home/you/batch"

FAULTS = {
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
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
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
    """A picture: what is typed, in which language, and after how many seconds it is taken."""

    name: str
    command: str
    lang: str = "C.UTF-8"
    after: float | None = None
    faults: bool = False


BATCH = "gpt4batch batchsvc --mock -i prompts.jsonl -o out.jsonl -d pictures -q 12 -g 30"
SHOTS = (
    Shot("running.svg", BATCH, after=7, faults=True),
    Shot("finished.svg", f"{BATCH} -f=true", faults=True),
    Shot("running.zh-CN.svg", BATCH, lang="zh_CN.UTF-8", after=7, faults=True),
    Shot("finished.zh-CN.svg", f"{BATCH} -f=true", lang="zh_CN.UTF-8", faults=True),
)


def write_input(path: Path) -> None:
    """Write a batch: pictures to describe, and one that is not there."""
    (path.parent / PICTURE.name).write_bytes(PICTURE.read_bytes())
    with path.open("wb") as file:
        for number in range(1, LINES + 1):
            asks: list[dict[str, object]] = [{"id": "a-1", "content": f"Describe photo {number}"}]
            if number % 8 == 0:
                asks[0]["images"] = [PICTURE.name if number != 40 else "lost.png"]
                asks.append({"id": "a-2", "content": "Now in one sentence"})
            file.write(jsonl.dumps({"id": f"photo-{number}", "asks": asks}) + b"\n")


def screen_of(shot: Shot, folder: Path) -> pyte.Screen:
    """Run a command in a terminal and return its screen, at the end or while it runs."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    words = [str(TOOL), *shot.command.split()[1:]]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        faults = FAULTS if shot.faults else {}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        os.execve(
            words[0], words, {**kept, **faults, "TERM": "xterm-256color", "LC_ALL": shot.lang}
        )
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    deadline = time.monotonic() + (shot.after or 120)
    shown = str(folder).encode()
    while select.select([terminal], [], [], max(deadline - time.monotonic(), QUIET))[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the other side has gone
            break
        stream.feed(data.replace(shown, SHOWN_FOLDER.encode()))
    if shot.after is not None:
        os.write(terminal, b"\x03")
        _drain(terminal)
    os.close(terminal)
    os.waitpid(child, 0)
    return screen


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return


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


def draw(shot: Shot, screen: pyte.Screen) -> str:
    """Return a screen as SVG, under the command line that made it."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        console.print(Text.assemble(("$ ", "bold green"), shot.command))
        rows = [line_of(screen, row) for row in range(screen.lines)]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        for row in rows:
            assert cell_len(row.plain) <= WIDTH, row.plain
            console.print(row, overflow="ignore", crop=False, no_wrap=True)
        name = shot.name.partition(".")[0]
        return console.export_svg(
            title="gpt4batch", theme=THEME, code_format=FORMAT, unique_id=name
        )


def main() -> None:
    """Take every picture, in the order in which a user would see them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="b") as temporary:
        for shot in SHOTS:
            folder = Path(temporary) / shot.lang[:2]  # short: causes are cut after 100 characters
            if not folder.exists():
                folder.mkdir()
                write_input(folder / "prompts.jsonl")
            text = draw(shot, screen_of(shot, folder))
            (FOLDER / shot.name).write_text(text)
            print(f"docs/pictures/{shot.name}")


if __name__ == "__main__":
    main()
