"""The pictures and files of a line: whether they can be sent, and what they are."""

from __future__ import annotations

import re
import stat
import unicodedata
from typing import TYPE_CHECKING

from gpt4batch.dialects.base import Kind
from gpt4batch.errors import AttachmentError
from gpt4batch.lines import pictures
from gpt4batch.settings import MIB
from gpt4batch.words import because, joined, tr

if TYPE_CHECKING:
    from pathlib import Path

    from gpt4batch.lines.parse import Ask

LONGEST = 200
"""Characters of a path that a message shows: some inputs hold whole pictures as `data:` there."""


def files_of(ask: Ask) -> list[tuple[Kind, str]]:
    """Return the paths of an ask's attachments, pictures first."""
    pictures = [(Kind.PICTURE, path) for path in ask.images]
    return pictures + [(Kind.FILE, path) for path in ask.files]


def shown(path: str) -> str:
    """Return a path as messages show it."""
    if len(path) <= LONGEST:
        return path
    return tr("{start}… ({count:,} characters)", start=path[: LONGEST // 2], count=len(path))


HINTS = (
    (r"data:", tr("attachments are files: save it as one and give its path")),
    (r"file:", tr("give the path alone, without file://")),
    (r"\w+://", tr("attachments are files: download it and give its path")),
    (r"~", tr("~ is not expanded here: write the whole path")),
    (r"[A-Za-z]:[\\/]", tr("that is a path of Windows: in WSL, drive C: is /mnt/c")),
)
"""How paths begin that are no paths here, and what to do."""


def hint(folder: Path, path: str) -> str:
    """Return what may be wrong with the path of an attachment that is not there."""
    for beginning, advice in HINTS:
        if re.match(beginning, path):
            return joined("", ("; ", advice))
    if "\\" in path and _is_file(folder / path.replace("\\", "/")):
        return tr("; with / instead of \\ it is there")
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, path)) != path and _is_file(folder / other):
            return tr(
                "; the same name is there, written in another Unicode form ({form})", form=form
            )
    return ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def measure(folder: Path, path: str, most: int = 0) -> list[int]:
    """Return size and time of change of an attachment that can be sent.

    Args:
        folder: Where a relative path starts from.
        path: The path of the attachment.
        most: The most bytes that it may have; 0 is no limit.

    Raises:
        AttachmentError: It is not there, cannot be read or is too large.
    """
    try:
        found = (folder / path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise AttachmentError(tr("the attachment {path} is not a file", path=shown(path)))
        with (folder / path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        text = tr(
            "cannot read the attachment {path}: {reason} (looked in {folder})",
            path=shown(path),
            reason=because(error) if isinstance(error, OSError) else error,
            folder=folder,
        )
        raise AttachmentError(text + hint(folder, path)) from error
    if most and found.st_size > most:
        raise AttachmentError(
            tr(
                "the attachment {path} has {size} bytes, more than the {most} MiB that "
                "the service takes",
                path=shown(path),
                size=found.st_size,
                most=most // MIB,
            )
        )
    return [found.st_size, found.st_mtime_ns]


def beginning(path: Path) -> bytes:
    """Return the first bytes of a file, by which pictures are told."""
    with path.open("rb") as file:
        return file.read(pictures.HEAD)


def picture_format(path: Path) -> str:
    """Return the format of a picture file, or an empty text for any other file."""
    return pictures.picture_format(beginning(path))
