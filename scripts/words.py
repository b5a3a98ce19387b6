"""Keep the catalogues in step with the code: extract the messages, merge them in, compile.

With `--check` nothing is written; what is not in step is named, and the exit code is 1.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gpt4batch"
SOURCE = PACKAGE / "locale/zh/LC_MESSAGES/gpt4batch.po"
COMPILED = SOURCE.with_suffix(".mo")
HEADER = "# What gpt4batch says, in Chinese; `make words` keeps the file in step with the code.\n#"

SAID = {"tr": (0,), "say": (0,), "joined": (0,), "counted": (0, 1), "tell_once": (0,)}
SAID |= dict.fromkeys(("flag", "_convert", "_results"), (2,))
"""The functions whose arguments are messages, and which of them."""

LOGS = ("log", "logger")
LOGGED = ("debug", "info", "warning", "error", "exception")
"""The methods of a log, whose first argument is a message with `%`."""

NOT_OURS = ("mock",)
"""Rooms whose texts are the service's words, and not a person's to read; but for their flags."""

DATED = (b'"Project', b'"Report', b'"POT', b'"PO-Rev', b'"Last', b'"Language-Team', b'"Generated')
"""Fields of a catalogue's head that change from day to day, or say nothing here."""

PERCENT = re.compile(r"%(?:\(([a-z_]+)\))?[-#0 +]*\d*(?:\.\d+)?([diouxXeEfFgGcrsa])")


def messages_of(path: Path) -> Iterator[str | tuple[str, ...]]:
    """Yield the messages in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            places = SAID.get(function.id, ())
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            logged = function.value.id in LOGS and function.attr in LOGGED
            places = (0,) if logged else SAID.get(function.attr, ())
        else:
            continue
        texts = [node.args[place] for place in places if place < len(node.args)]
        if texts and all(isinstance(text, ast.Constant) for text in texts):
            found = tuple(str(text.value) for text in texts if isinstance(text, ast.Constant))
            if found[0].strip():
                yield found if len(found) > 1 else found[0]


def extracted() -> Catalog:
    """Return the messages of the code."""
    found = Catalog(charset="utf-8")
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        if place.parts[0] in NOT_OURS and path.name != "settings.py":
            continue
        for text in messages_of(path):
            found.add(text, locations=[(f"gpt4batch/{place}", 0)])
    return found


def written() -> Catalog:
    """Return the catalogue as it is in the repository."""
    with SOURCE.open("rb") as file:
        return read_po(file, locale="zh")


def merged() -> Catalog:
    """Return the catalogue with the messages of the code: new ones empty, edited ones fuzzy."""
    catalogue = written()
    catalogue.update(extracted(), update_header_comment=False)
    catalogue.obsolete.clear()
    catalogue.header_comment = HEADER
    for message in catalogue:
        message.flags.discard("python-format")
        message.flags.discard("python-brace-format")
    return catalogue


def po_of(catalogue: Catalog) -> bytes:
    """Return the text of a catalogue, without what changes from day to day."""
    buffer = io.BytesIO()
    write_po(buffer, catalogue, width=100, sort_by_file=True, include_lineno=False)
    head, _, rest = buffer.getvalue().partition(b"\n\n")
    kept = (row for row in head.splitlines() if not row.startswith(DATED))
    return b"\n".join(kept) + b"\n\n" + rest


def mo_of(catalogue: Catalog) -> bytes:
    """Return the compiled catalogue; one of today is the same as one of tomorrow."""
    catalogue.creation_date = catalogue.revision_date = datetime(2026, 1, 1, tzinfo=UTC)
    buffer = io.BytesIO()
    write_mo(buffer, catalogue)
    return buffer.getvalue()


def texts_of(text: str | tuple[str, ...] | list[str]) -> list[str]:
    """Return the forms of a message or of its translation."""
    return [text] if isinstance(text, str) else list(text)


def holes_of(text: str) -> set[str]:
    """Return what is filled into a text, by name or by place, and how it is written."""
    if "{" in text:
        try:
            parts = [part for part in Formatter().parse(text) if part[1] is not None]
        except ValueError:  # JSON, in a message without values
            return set()
        return {f"{name}!{form or 's'}:{spec}" for _, name, spec, form in parts}
    return {f"{name or place}: {kind}" for place, (name, kind) in enumerate(PERCENT.findall(text))}


def faults_of(message: Message) -> Iterator[str]:
    """Yield what is wrong with the translation of a message."""
    originals, translations = texts_of(message.id), texts_of(message.string)
    if message.fuzzy:
        yield "is fuzzy: the English sentence was edited"
    if not all(translations):
        yield "has no translation"
        return
    holes = set().union(*map(holes_of, originals))
    for text in translations:
        if holes_of(text) != holes:
            yield f"is filled with {sorted(holes)}, its translation with {sorted(holes_of(text))}"
        if text.startswith("  ") != originals[0].startswith("  "):
            yield "is indented, or its translation is"


def faults() -> Iterator[str]:
    """Yield what keeps the catalogue from being in step with the code."""
    kept = written()
    code = {message.id for message in extracted() if message.id}
    known = {message.id for message in kept if message.id}
    for text in code - known:
        yield f"{texts_of(text)[0]!r} is not in the catalogue"
    for text in known - code:
        yield f"{texts_of(text)[0]!r} is in the catalogue and not in the code"
    for message in kept.obsolete.values():
        yield f"{texts_of(message.id)[0]!r} is obsolete"
    for message in kept:
        if message.id:
            yield from (f"{texts_of(message.id)[0]!r} {fault}" for fault in faults_of(message))
    if COMPILED.read_bytes() != mo_of(kept):
        yield f"{COMPILED.relative_to(ROOT)} is not what the catalogue compiles to"


def main() -> int:
    """Bring the catalogue in step, and name what is left to translate."""
    if "--check" not in sys.argv[1:]:
        SOURCE.write_bytes(po_of(merged()))
        COMPILED.write_bytes(mo_of(written()))
    found = list(faults())
    print("\n".join(found) or "the catalogue is in step with the code")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
