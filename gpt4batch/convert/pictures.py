"""Pictures to lines: one line a picture, the same questions for each."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch.errors import AttachmentError
from gpt4batch.service.attachments import measure, picture_format
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.convert.problems import Problems

TAKEN = ("PNG", "JPEG", "GIF", "WebP")
ENDINGS = {
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif",
}  # fmt: skip


def is_picture(path: Path) -> bool:
    """Tell whether a file holds a picture, whatever its name."""
    return path.is_file() and picture_format(path) != ""


def reason_against(path: Path) -> str:
    """Return why a picture cannot be sent, or an empty text."""
    if path.is_dir():
        return tr("is a folder, not a picture")
    try:
        measure(path.parent, path.name)
        kind = picture_format(path)
    except AttachmentError as error:
        return tr("cannot be sent: {error}", error=error)
    except OSError as error:
        return tr("cannot be read: {reason}", reason=because(error))
    if path.name.startswith("._") and not kind:
        return tr(
            "is macOS's note about a picture; find FOLDER -name '._*' -delete removes such notes"
        )
    if not kind:
        return tr("is not a picture: it does not begin like one")
    return (
        ""
        if kind in TAKEN
        else tr("is {kind}, which is not taken: save it as JPEG or PNG", kind=kind)
    )


def lines_of(
    paths: Sequence[str], batch: Path, questions: Sequence[str], problems: Problems
) -> list[tuple[str, dict[str, Any]]]:
    """Return a line for each picture of files and folders, with its path, in their order.

    Args:
        paths: Pictures, and folders whose pictures are taken at any depth.
        batch: The folder of the batch, from which the paths of the lines start.
        questions: What is asked about each picture, in one conversation.
        problems: Takes in what looks like a picture and cannot be sent.
    """
    found = [Path(file) for path in paths for file in _files(path, problems)]
    for path in found:
        if reason := reason_against(path):
            problems.found.append(tr("{path}: {reason}", path=readable(path), reason=reason))
        elif not _is_unicode(path):
            problems.found.append(
                tr("{path}: the name is not UTF-8: rename it", path=readable(path))
            )
    stems = Counter(path.stem for path in found)
    lines = []
    for path in found:
        place = os.path.relpath(path.resolve().parent / path.name, batch.resolve())
        name = path.stem if stems[path.stem] == 1 else Path(place).as_posix()
        asks: list[dict[str, Any]] = [
            {"id": f"a-{number}", "content": text} for number, text in enumerate(questions, 1)
        ]
        asks[0]["images"] = [place]
        lines.append((str(path), {"id": name, "asks": asks}))
    return lines


def _files(path: str, problems: Problems) -> list[Path]:
    if not os.path.isdir(path):  # noqa: PTH112
        return [Path(path)]

    def refused(error: OSError) -> None:
        problems.found.append(
            tr(
                "{path}: cannot be read: {reason}",
                path=readable(error.filename),
                reason=because(error),
            )
        )

    found = []
    for folder, folders, names in os.walk(path, onerror=refused):
        found += [Path(folder, name) for name in (*names, *folders)]
    found = sorted(file for file in found if file.suffix.lower() in ENDINGS)
    if not found:
        problems.found.append(tr("{path}: there are no pictures in it", path=readable(path)))
    return found


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(path: str | Path) -> str:
    """Return a path as it can be shown, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")
