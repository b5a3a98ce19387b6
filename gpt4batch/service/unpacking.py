"""What a compressed file holds, read in pieces of a bounded size."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 16
UNPACKED = {"gzip": 31, "deflate": zlib.MAX_WBITS}
"""The compressions that can be read, and what zlib calls them."""

UNREADABLE = {"br", "zstd", "compress", "dcb", "dcz"}
BEGINNINGS = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "compress": b"\x1f\x9d",
    "dcb": b"\xffDCB",
    "dcz": b"\x5e\x2a\x4d\x18",
}
"""How the files begin that are compressed in a way; deflate and br have no mark of their own."""


def unpacked(file: IO[bytes], coding: str) -> Iterator[bytes]:
    """Yield what a compressed file holds.

    Raises:
        EOFError: The file is cut short.
        zlib.error: It is damaged.
    """
    data = file.read(CHUNK)
    bits = UNPACKED[coding]
    if coding == "deflate" and not _has_header(data):  # it often lacks the one it should have
        bits = -bits
    while data:  # gzip may have several members
        inflate = zlib.decompressobj(bits)
        while not inflate.eof:
            data = data or file.read(CHUNK)
            piece = inflate.decompress(data, CHUNK)
            if not data and not piece:
                raise EOFError
            yield piece
            data = inflate.unconsumed_tail
        data = inflate.unused_data or file.read(CHUNK)


def is_marked(beginning: bytes, coding: str) -> bool | None:
    """Return whether bytes begin a compressed file; None where only reading it all can tell."""
    if coding == "deflate":
        return True if _has_header(beginning) else None
    return beginning.startswith(BEGINNINGS.get(coding, b""))


def _has_header(data: bytes) -> bool:
    """Return whether bytes begin as RFC 1950 has it."""
    return data[:1] != b"" and data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
