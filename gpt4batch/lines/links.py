"""What a reply links to, and the note of what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Sequence

LINK = ("url", "download_url", "href")
"""Where an item of `downloads` that is no text has its address."""


def downloads_of(reply: dict[str, Any]) -> list[str]:
    """Return the addresses of a reply's `downloads`."""
    return [address for item in _links(reply) if (address := _address(item))]


def unread_downloads(reply: dict[str, Any]) -> list[Any]:
    """Return what stands in a reply's `downloads` and is not read as an address."""
    return [item for item in _links(reply) if item and not _address(item)]


def _links(reply: dict[str, Any]) -> list[Any]:
    found = reply.get("downloads")
    if isinstance(found, list):
        return found
    if isinstance(found, str) and found.lower().startswith(("http://", "https://")):
        return [found]
    # What is neither a list nor an address is kept as an item that is none.
    return [[found]] if found else []


def _address(item: Any) -> str:
    """Return the address that an item of `downloads` is, or names; or an empty text."""
    named = [item.get(name) for name in LINK] if isinstance(item, dict) else [item]
    return next((text for text in named if isinstance(text, str) and text), "")


def with_downloads(answer: bytes, downloads: Sequence[dict[str, str]]) -> bytes:
    """Return a reply's text with `spec_downloads` as its last key, replacing an older one."""
    if b'"spec_downloads"' in answer:
        kept = [(name, text) for name, text in rawjson.members(answer) if name != "spec_downloads"]
        answer = b"{" + b",".join(rawjson.dumps(name) + b":" + text for name, text in kept) + b"}"
    head = answer.rstrip()[:-1].rstrip()
    comma = b"" if head == b"{" else b","
    return head + comma + b'"spec_downloads":' + rawjson.dumps(downloads) + b"}"


def with_noted(answer: bytes, items: Sequence[dict[str, str]]) -> bytes:
    """Return a reply's text with more notes in its `spec_downloads`, in the order of its links."""
    reply = rawjson.loads(answer)
    noted = reply.get("spec_downloads")
    known = [item for item in (noted if isinstance(noted, list) else ()) if isinstance(item, dict)]
    found = {item.get("origin"): item for item in [*known, *items]}
    links = downloads_of(reply)
    return with_downloads(answer, [found[link] for link in links if link in found])
