"""Small attachments that travel with their line, for workers that share no folder."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.dialects.openai import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpt4batch.lines.parse import Line


def packed(folder: Path, line: Line, limit: int) -> list[list[Any]]:
    """Return path, time of change and content of a line's attachments, or nothing.

    Nothing where there are none, or one cannot be read, lies outside of the folder, or they are
    more than `limit` bytes together: then the worker looks for them in a folder of its own.
    """
    pictures = [path for ask in line.asks for path in ask.images if not is_address(path)]
    paths = dict.fromkeys((*pictures, *(path for ask in line.asks for path in ask.files)))
    found: list[list[Any]] = []
    try:
        for path in paths:
            file = inside(folder, path)
            status = file.stat()
            limit -= status.st_size
            if limit < 0:
                return []
            found.append([path, status.st_mtime_ns, b64encode(file.read_bytes()).decode()])
    except (OSError, ValueError):
        return []
    return found


def unpacked(folder: Path, parcels: Iterable[list[Any]]) -> None:
    """Write what was packed into a folder.

    Raises:
        ValueError: It is no parcel, or would lie outside of the folder.
        OSError: It cannot be written.
    """
    for parcel in parcels:
        path, changed, content = parcel
        file = inside(folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.new")
        data = b64decode(content, validate=True)
        with disk.replacing(file, beside, synced=False) as new:
            new.write(data)
        os.utime(file, ns=(changed, changed))  # by size and time an upload is known again


def inside(folder: Path, path: str) -> Path:
    """Return a file in a folder, or refuse a path that leads out of it."""
    root = folder.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root) or file == root:
        raise ValueError(f"{path} does not lie in the folder")
    return file
