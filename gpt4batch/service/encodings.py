"""From the bytes of a reply to UTF-8 text: compression and character sets.

What the bytes are decides, not their label alone: servers label plain bodies as gzip, name one
compression twice, or compress what they do not label.
"""

from __future__ import annotations

import codecs
import zlib
from email.message import Message

from gpt4batch.words import tr

MOST = 1 << 28
"""Bytes that one reply may unpack to: a small reply can claim to hold any number of them."""

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
LAYERS = 4
JSON_STARTS = (b"{", b"[", b'"')
UNDECODED = (b"br", b"zstd", b"compress", b"x-compress", b"dcb", b"dcz", b"exi", b"pack200-gzip")


class UnreadableError(Exception):
    """The body of a reply cannot be unpacked; the text says why."""


class CutShortError(UnreadableError):
    """The compressed data end too early."""


def unpacked(body: bytes, codings: list[bytes]) -> bytes:
    """Return a body without its compression.

    Raises:
        UnreadableError: It cannot be unpacked.
    """
    for coding in reversed(codings):
        coding = coding.strip(b"\"' ")
        if coding == b"deflate":
            body = _deflated(body)
        elif coding in UNDECODED and not body.lstrip().startswith(JSON_STARTS):
            raise UnreadableError(
                tr("Content-Encoding {coding} was not asked for", coding=coding.decode())
            )
    for _ in range(LAYERS):
        if not body.startswith(GZIP):
            break
        body = _inflated(body, 16 + zlib.MAX_WBITS)
    return body


def _deflated(body: bytes) -> bytes:
    """Unpack deflate with the header that it should have, or without it, or leave plain text."""
    try:
        return _inflated(body, zlib.MAX_WBITS)
    except CutShortError:
        raise
    except UnreadableError as error:
        if body.lstrip().startswith(JSON_STARTS) or body.startswith(GZIP):
            return body
        try:
            return _inflated(body, -zlib.MAX_WBITS)
        except UnreadableError:
            raise error from None


def _inflated(body: bytes, bits: int) -> bytes:
    """Unpack zlib's kinds; gzip may have several members, one after the other."""
    pieces: list[bytes] = []
    size = 0
    rest = body
    while True:
        inflate = zlib.decompressobj(bits)
        try:
            piece = inflate.decompress(rest, MOST - size + 1)
        except zlib.error as error:
            raise UnreadableError(tr("it cannot be unpacked: {error}", error=error)) from None
        pieces.append(piece)
        size += len(piece)
        if size > MOST:
            raise UnreadableError(tr("it unpacks to more than {most} MiB", most=MOST >> 20))
        if not inflate.eof:
            raise CutShortError(tr("its compressed data end too early"))
        rest = inflate.unused_data
        if bits < 16 or not rest.startswith(GZIP):
            return b"".join(pieces)


def as_utf8(body: bytes, content_type: bytes) -> bytes:
    """Return a text in UTF-8; one whose character set is not known stays as it is."""
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _recoded(body, "utf-16")
    if b"charset" not in content_type or b"utf-8" in content_type:
        return body
    header = Message()
    header["content-type"] = content_type.decode("latin-1")
    try:
        codec = codecs.lookup(str(header.get_param("charset", "utf-8"))).name
    except (LookupError, ValueError):
        return body
    return body if _is_utf8(body, codec) else _recoded(body, codec)


def _is_utf8(body: bytes, codec: str) -> bool:
    """Return whether a text is UTF-8 whatever its label says.

    A few characters of GBK may look like UTF-8 of two bytes a character, not of three; the sets of
    one byte a character decode anything.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    try:
        "\u4e2d".encode(codec)
    except (LookupError, ValueError):
        return True
    return max(text, default="") >= "\u0800"


def _recoded(body: bytes, codec: str) -> bytes:
    try:
        text = body.decode(codec).encode()
    except (LookupError, TypeError, ValueError):  # a codec may be none of texts
        return body
    if body.lstrip().startswith(JSON_STARTS) and not text.lstrip().startswith(JSON_STARTS):
        return body  # the label is wrong
    return text
