"""Write the map of the modules in both architecture pages, from the first line of each module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gpt4batch"
PAGES = (ROOT / "docs/architecture.md", ROOT / "docs/zh/architecture.md")
HEADS = ("| module | what it is |", "| 模块 | 说明（取自代码） |")
MARKED = re.compile(r"(<!-- map of (?P<room>[\w/]+) -->\n).*?(<!-- end of map -->)", re.DOTALL)


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def modules(room: str) -> list[Path]:
    """Return the modules of a room and of the rooms in it, or those that stand at the top."""
    found = PACKAGE.glob("*.py") if room == "top" else (PACKAGE / room).rglob("*.py")
    return [path for path in sorted(found) if path.name != "__init__.py"]


def rooms() -> list[str]:
    """Return the names of all rooms, that of the top included."""
    return ["top", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))]


def table(room: str, head: str) -> str:
    """Return the table of a room's modules."""
    rows = [head, "| --- | --- |"]
    for path in modules(room):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        rows.append(f"| `{name}` | {first_line(path)} |")
    return "\n".join(rows) + "\n"


def filled(text: str, head: str) -> str:
    """Return a page with its maps made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found['room'], head)}{found[3]}", text)


def main() -> None:
    """Write the maps."""
    for page, head in zip(PAGES, HEADS, strict=True):
        page.write_text(filled(page.read_text(), head))


if __name__ == "__main__":
    main()
