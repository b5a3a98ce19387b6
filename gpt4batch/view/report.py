"""The report: the page and its data as one file that needs no server and no network."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.pictures import media_type
from gpt4batch.view import detail
from gpt4batch.view.files import head_of
from gpt4batch.view.index import same_file
from gpt4batch.view.record import State
from gpt4batch.view.server import PAGE
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpt4batch.view.files import Folders
    from gpt4batch.view.index import Index, Output
    from gpt4batch.view.server import Show

LIBRARIES = ("chart.js", "markdown-it.js", "dompurify.js", "highlight.js")
MATH = "temml.js"
"""What makes formulas: an eighth of a report, so only one with formulas has it."""

FORMULA = re.compile(r"\\\\[(\[]|\$\$")
LONGEST_TEXT = 24 * 1024
LONGEST_RAW = 8 * 1024
LARGEST_PICTURE = 1024 * 1024
MOST_LINES = 5000
MOST_CAUSES = 50
ROOM_FOR_HEAD = 2048
FAILED_SHARE, LINES_SHARE = 0.5, 0.75
"""How much of the room failed lines, then all lines may take; pictures get the rest."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


@dataclass(slots=True)
class Part:
    """What the report holds of one output."""

    room: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    taken: int = 0
    failed: int = 0
    cut: int = 0

    def fits(self, size: int, share: float) -> bool:
        """Tell whether so many bytes more stay within a share of the room."""
        return self.taken + size <= self.room * share


def export(show: Show, path: Path, size: int) -> str:
    """Write the report and return what it holds, in words; `size` bytes are never exceeded."""
    for output in show.outputs:
        if any(file is not None and same_file(path, file) for file in (output.path, output.source)):
            raise UsageError(
                tr("--export {path}: the report would replace what it is made from", path=path)
            )
    shell = page({}, "")
    room = size - len(shell.encode()) - ROOM_FOR_HEAD
    if room < 64 * 1024:
        needed = (size - room) / 1024 / 1024 + 0.1
        raise UsageError(
            tr("--export-size: the page alone takes {needed:.1f} MiB; give more", needed=needed)
        )
    parts = []
    for output in show.outputs:
        output.index.follow()
        output.index.follow()  # a last line without an end counts once it no longer grows
        parts.append(part_of(output, show.folders, room // len(show.outputs)))
    facts = facts_of(show.outputs, parts)
    text = page(data_of(show.outputs, parts, facts), show.outputs[0].path.name)
    write(path, text.encode())
    return tr(
        "{path}: {size:.1f} MiB, {lines_shown} of {lines} lines ({failed_shown} of {failed} "
        "failed), {pictures_shown} of {pictures} pictures",
        path=path,
        size=len(text.encode()) / 1024 / 1024,
        **facts,
    )


def facts_of(outputs: list[Output], parts: list[Part]) -> dict[str, Any]:
    """Return what the report holds and what was left out."""
    figures = [output.index.figures for output in outputs]
    return {
        "made": time.time(),
        "lines": sum(len(output.index.rows) for output in outputs),
        "lines_shown": sum(len(part.lines) for part in parts),
        "failed": sum(item.states[State.FAILED] for item in figures),
        "failed_shown": sum(part.failed for part in parts),
        "pictures": sum(item.pictures for item in figures),
        "pictures_shown": sum(len(part.pictures) for part in parts),
        "cut": sum(part.cut for part in parts),
    }


def data_of(outputs: list[Output], parts: list[Part], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the data that the page reads."""
    runs = []
    for output, part in zip(outputs, parts, strict=True):
        overview = output.public()
        overview["causes"] = overview["causes"][:MOST_CAUSES]
        runs.append({"overview": overview, "lines": part.lines, "pictures": part.pictures})
    files = {url: data for part in parts for url, data in part.files.items()}
    return {"report": facts, "runs": runs, "files": files}


def part_of(output: Output, folders: Folders, room: int) -> Part:
    """Choose what the report holds of an output: failed lines, a sample of others, pictures."""
    index = output.index
    overview = output.public()
    overview["causes"] = overview["causes"][:MOST_CAUSES]
    part = Part(room, taken=len(embedded(overview)))
    failed = [row for row in range(len(index.rows)) if index.rows.state[row] == State.FAILED]
    others = [row for row in range(len(index.rows)) if index.rows.state[row] != State.FAILED]
    part.failed = add_lines(part, index, folders, failed, FAILED_SHARE)
    add_lines(part, index, folders, spread(others), LINES_SHARE)
    part.lines[part.failed :] = sorted(part.lines[part.failed :], key=row_of)
    for line in part.lines:
        add_pictures(part, index, folders, row_of(line))
    return part


def row_of(line: dict[str, Any]) -> int:
    """Return the row of a line of the report."""
    row: int = line["summary"]["row"]
    return row


def spread(rows: list[int]) -> Iterator[int]:
    """Yield the rows so that any first few of them are spread evenly over all."""
    bits = max(len(rows) - 1, 0).bit_length()
    for place in range(1 << bits):
        mirrored = int(f"{place:0{bits}b}"[::-1], 2) if bits else 0
        if mirrored < len(rows):
            yield rows[mirrored]


def add_lines(part: Part, index: Index, folders: Folders, rows: Iterable[int], share: float) -> int:
    """Add lines while there is room, and return how many."""
    added = 0
    for row in rows:
        line = line_of(index, folders, row)
        size = len(embedded(line))
        if not part.fits(size, share) or len(part.lines) >= MOST_LINES:
            break
        part.lines.append(line)
        part.taken += size
        part.cut += cuts(line["line"])
        added += 1
    return added


def line_of(index: Index, folders: Folders, row: int) -> dict[str, Any]:
    """Return a line as the report holds it; failed ones with their JSON."""
    line = detail.conversation(index, row, folders, detail.Budget(LONGEST_TEXT))
    raw = None
    if index.rows.state[row] == State.FAILED:
        raw = detail.raw(index, row)
        raw["text"] = raw["text"][:LONGEST_RAW]
        line["has_raw"] = True
    return {"summary": detail.summary(index, row), "line": line, "raw": raw}


def cuts(value: Any) -> int:
    """Count the texts that were cut."""
    if isinstance(value, list):
        return sum(cuts(item) for item in value)
    if not isinstance(value, dict):
        return 0
    own = "text" in value and value.get("length", 0) > len(value["text"])
    return own + sum(cuts(item) for item in value.values())


def add_pictures(part: Part, index: Index, folders: Folders, row: int) -> None:
    """Add the pictures of a line while there is room."""
    for picture in detail.row_pictures(index, folders, row) if index.rows.pictures[row] else []:
        url: str = picture.get("url", "")
        if picture["kind"] != "picture" or picture["size"] > LARGEST_PICTURE:
            continue
        home = "in" if picture["side"] == "ask" else "dl"
        path = folders.find(home, picture["name"])
        size = picture["size"] * 4 // 3 + len(embedded(picture)) + 2 * len(url) + 64
        if path is None or not part.fits(size, 1.0):
            continue
        if url not in part.files:
            data = base64.b64encode(path.read_bytes()).decode()
            part.files[url] = f"data:{media_type(head_of(path))};base64,{data}"
            part.taken += size
        part.pictures.append(picture)


def embedded(value: Any) -> str:
    """Return a value as JSON that can stand inside a script element."""
    return rawjson.dumps(value).decode().replace("<", "\\u003c")


def page(data: dict[str, Any], name: str) -> str:
    """Return the page with its style, its scripts and the data inside."""
    style = (PAGE / "style.css").read_text()
    shown = embedded(data)
    names = [*LIBRARIES, MATH] if FORMULA.search(shown) else LIBRARIES
    scripts = [library(item) for item in names]
    program = bundle()
    policy = (
        f"default-src 'none'; img-src data:; style-src {digest(style)}; "
        f"script-src {' '.join(digest(item) for item in [*scripts, program])}; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    )
    title = name.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="referrer" content="no-referrer">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            f"<title>{title} · gpt4batch</title>\n",
            f"<!-- Third-party parts and their licences:\n{notices()}\n-->\n",
            f"<style>{style}</style>\n",
            *[f"<script>{item}</script>\n" for item in scripts],
            '</head>\n<body>\n<div id="app"></div>\n',
            f'<script type="application/json" id="report-data">{shown}</script>\n',
            f'<script type="module">{program}</script>\n</body>\n</html>\n',
        ]
    )


def digest(text: str) -> str:
    """Return the source expression that allows one inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def library(name: str) -> str:
    """Return a third-party script as it can stand inside a page."""
    text = _SOURCE_MAP.sub("", (PAGE / "vendor" / name).read_text())
    return text.replace("</script", r"\x3c/script").replace("<!--", r"\x3c!--")


def notices() -> str:
    """Return the licences of the scripts inside the page."""
    files = sorted((PAGE / "vendor").glob("*LICENSE.txt"))
    texts = [f"{item.name.removesuffix('.LICENSE.txt')}\n\n{item.read_text()}" for item in files]
    return "\n\n".join(texts).replace("--", "- -")


def bundle(entry: str = "main.js") -> str:
    """Return the page's modules as one, each after those it imports.

    They share one scope then: their names differ, and a test sees to it.
    """
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in texts:
            return
        text = (PAGE / name).read_text()
        texts[name] = ""
        for needed in _IMPORT.findall(text):
            add(needed)
        del texts[name]
        texts[name] = re.sub(r"^export ", "", _IMPORT.sub("", text), flags=re.MULTILINE)

    add(entry)
    return "\n".join(texts.values())


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or pipe takes it, and stays what it is
        else:
            path = Path(os.path.realpath(path))
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            with disk.replacing(path, part, synced=False) as file:
                file.write(data)
    except OSError as error:
        raise OutputError(
            tr("{path}: cannot be written: {reason}", path=path, reason=because(error))
        ) from None
