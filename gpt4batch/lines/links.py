"""The notes in a reply of what became of the files that it links to: `spec_downloads`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Sequence


def notes_in(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the notes that stand in a reply."""
    found = reply.get("spec_downloads")
    return [item for item in (found if isinstance(found, list) else ()) if isinstance(item, dict)]


def with_downloads(answer: bytes, downloads: Sequence[dict[str, str]]) -> bytes:
    """Return a reply's text with `spec_downloads` as its last key, replacing an older one."""
    if b'"spec_downloads"' in answer:
        kept = [(name, text) for name, text in rawjson.members(answer) if name != "spec_downloads"]
        answer = b"{" + b",".join(rawjson.dumps(name) + b":" + text for name, text in kept) + b"}"
    head = answer.rstrip()[:-1].rstrip()
    comma = b"" if head == b"{" else b","
    return head + comma + b'"spec_downloads":' + rawjson.dumps(downloads) + b"}"
