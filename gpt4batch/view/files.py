"""The files a page may show: inside the given folders only, pictures by their content only."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpt4batch.lines.pictures import HEAD, media_type

ADDRESSES = ("http://", "https://", "data:")
"""How pictures begin that are no files: nothing is fetched to be shown."""
LONGEST_ADDRESS = 60


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file, none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


class Folders:
    """The folders whose files may be read, symbolic links followed before that is decided."""

    def __init__(self, attachments: Path, downloads: Path) -> None:
        self.homes = {"in": attachments.resolve(), "dl": downloads.resolve()}

    def find(self, home: str, name: str) -> Path | None:
        """Return the real path of a file inside one of the folders, None for any other."""
        if home not in self.homes or "\0" in name:
            return None
        try:
            path = (self.homes[home] / name).resolve(strict=True)
            inside = any(path.is_relative_to(folder) for folder in self.homes.values())
            return path if inside and path.is_file() else None
        except (OSError, RuntimeError, ValueError):
            return None

    def asset(self, home: str, name: Any) -> dict[str, Any]:
        """Return what the page needs to show an attached or downloaded file."""
        text = name if isinstance(name, str) else str(name)
        if text.startswith(ADDRESSES):
            return {"name": text[:LONGEST_ADDRESS], "kind": "address"}
        asset: dict[str, Any] = {"name": text, "kind": "missing"}
        path = self.find(home, text)
        if path is not None:
            asset["kind"] = "picture" if media_type(head_of(path)) else "file"
            asset["size"] = path.stat().st_size
            asset["url"] = f"file?home={home}&name={quote(text, safe='')}"
        return asset
