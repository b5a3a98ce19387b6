"""The file host: files whose bytes follow from their name and size, under links that are signed."""

from __future__ import annotations

import struct
import time
import zlib
from functools import lru_cache
from hashlib import blake2b, shake_128
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

from aiohttp import web

from gpt4batch.mock.digests import digest
from gpt4batch.mock.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.web_request import BaseRequest

BLOCK = 64 * 1024
NAMES = ("chart-{}.png", "结果 {}.csv", "report-{}.pdf", "data {}.zip")
TYPES = {".png": "image/png", ".csv": "text/csv", ".pdf": "application/pdf"}


def asset_bytes(name: str, size: int, start: int = 0) -> bytes:
    """Return the bytes of a file, as a function of its name and size alone."""
    return b"".join(asset_blocks(name, size, start, size))


def asset_blocks(name: str, size: int, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes from `start` to before `stop`, at most 64 KiB at a time."""
    base = shake_128(f"{size} {name}".encode()).digest(min(size, BLOCK))
    head = _chart(name) if name.endswith(".png") else b""
    while start < stop:
        number, offset = divmod(start, BLOCK)
        # Each block starts with its own number, so that none can stand in for another.
        block = (b"%08x" % number)[: len(base)] + base[8:]
        if number == 0 and len(head) <= len(base):
            block = head + block[len(head) :]
        piece = block[offset : offset + stop - start]
        yield piece
        start += len(piece)


@lru_cache(maxsize=256)
def _chart(name: str) -> bytes:
    """Return a small picture that shows as a PNG, whatever bytes follow it."""
    heights = shake_128(name.encode()).digest(8)
    rows = (
        bytes([0, *(level * 4 < 255 - heights[place // 12] for place in range(96))])
        for level in range(64)
    )
    header = struct.pack(">IIBBBBB", 96, 64, 8, 3, 0, 0, 0)
    return png(
        (b"IHDR", header),
        (b"PLTE", bytes((31, 111, 97, 244, 244, 240))),
        (b"IDAT", zlib.compress(b"".join(rows), 9)),
    )


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return the PNG of some chunks, each a kind and its data; the end is added."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


def asset_names(key: bytes, number: int) -> list[str]:
    """Return the names of the files that an answer links to."""
    first = key[0]
    return [
        NAMES[(first + place) % len(NAMES)].format(f"{key[1:5].hex()}{place}")
        for place in range(number)
    ]


def link(origin: str, seed: int, name: str, size: int, expires_at: float) -> str:
    """Return the address of a file, valid until a time; 0 is for ever."""
    until = f"{expires_at:.3f}" if expires_at else ""
    safe = quote(name, safe="")
    return (
        f"{origin}/files/{safe}?se={until}&size={size}&sig={_signature(seed, name, size, until)}"
        f"&rscd=attachment%3B%20filename%3D{safe}"
    )


def _signature(seed: int, name: str, size: int, until: str) -> str:
    return digest(seed, "link", name, size, until).hex()[:32]


class Asset:
    """One request for a file: what it is, and which part of it was asked for."""

    def __init__(self, request: BaseRequest, seed: int, *, ranges: bool) -> None:
        path, _, query = request.raw_path.partition("?")
        self.name = unquote(path.removeprefix("/files/"))
        values = {key: found[0] for key, found in parse_qs(query, keep_blank_values=True).items()}
        size, until = values.get("size", ""), values.get("se", "")
        if values.get("sig") != _signature(
            seed, self.name, int(size or -1) if size.isdigit() else -1, until
        ):
            raise Refusal(403, f"the link to {self.name!r} is not signed by this service")
        if until and time.time() > float(until):
            raise Refusal(403, f"the link to {self.name!r} has expired")
        self.size = int(size)
        self.etag = f'"{blake2b(f"{self.size} {self.name}".encode(), digest_size=12).hexdigest()}"'
        self.ranges = ranges
        self.start, self.stop = self._wanted(request) if ranges else (0, self.size)

    @property
    def partial(self) -> bool:
        """Tell whether only a part is wanted."""
        return self.stop - self.start < self.size

    def _wanted(self, request: BaseRequest) -> tuple[int, int]:
        whole = 0, self.size
        if "Range" not in request.headers:
            return whole
        if request.headers.get("If-Range", self.etag) != self.etag:
            return whole
        try:
            start, stop, _ = request.http_range.indices(self.size)
        except ValueError:
            return whole
        if start >= stop:
            raise Refusal(
                416,
                f"{self.name!r} has {self.size} bytes",
                {"Content-Range": f"bytes */{self.size}"},
            )
        return start, stop

    def response(self) -> web.StreamResponse:
        """Return the head of the answer; `asset_blocks` gives its body."""
        response = web.StreamResponse(status=206 if self.partial else 200)
        response.content_length = self.stop - self.start
        response.content_type = TYPES.get(self.name[-4:], "application/octet-stream")
        response.headers["ETag"] = self.etag
        response.headers["Content-Disposition"] = (
            f"attachment; filename*=UTF-8''{quote(self.name, safe='')}"
        )
        if self.ranges:
            response.headers["Accept-Ranges"] = "bytes"
        if self.partial:
            response.headers["Content-Range"] = f"bytes {self.start}-{self.stop - 1}/{self.size}"
        return response
