"""Secrets are taken out of every text that is shown or kept, however they are spelled."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from bisect import bisect_right
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import unquote

from gpt4batch.words import Message

HIDDEN = "***"
DEEPEST = 3
"""Encodings within each other that are looked through."""

SHORTEST = 6
"""A shorter secret is a word of every message: it is looked for as it stands and no further."""

MOST = 1 << 20
"""Characters of a text whose encodings are looked through; what is not encoded is found in any."""

ESCAPED = re.compile(
    r"(?:\\+u[0-9a-f]{4})+|(?:%(?:25)*[0-9a-f]{2})+|&(?:amp;)*#(?:\d{1,7}|x[0-9a-f]{1,6});|\\+(?!u)",
    re.IGNORECASE,
)
"""Characters as JSON, an address and HTML escape them; one backslash or more in the first."""

URL_SAFE = str.maketrans("-_", "+/")


class Piece(NamedTuple):
    """A part of a text and where it stands once it is unescaped."""

    at: int
    start: int
    end: int
    escaped: bool


class Secrets:
    """Texts that must not be shown."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Hide one more text from now on."""
        if text and text not in self._texts:
            self._texts.append(text)
            self._texts.sort(key=len, reverse=True)  # one may be a part of another

    def scrub(self, text: str) -> str:
        """Return a text without any secret in it; of a message, its values are looked through."""
        if isinstance(text, Message):
            return text.without(self.scrub)
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        long = [secret for secret in self._texts if len(secret) >= SHORTEST]
        return _without(long, text, DEEPEST) if long and len(text) <= MOST else text


def _without(secrets: list[str], text: str, depth: int) -> str:
    """Return a text without secrets that are escaped, encoded, or both, so many times at most."""
    plain = ESCAPED.sub(lambda escape: _meant(escape.group()), text)
    if spans := _found(secrets, plain, depth):
        pieces = _pieces(text)
        for start, end in reversed(spans):
            first, last = _piece(pieces, start), _piece(pieces, end - 1)
            begin = first.start if first.escaped else first.start + start - first.at
            after = last.end if last.escaped else last.start + end - last.at
            text = text[:begin] + HIDDEN + text[max(begin, after) :]
        plain = ESCAPED.sub(lambda escape: _meant(escape.group()), text)
    if depth and plain != text and _without(secrets, plain, depth - 1) != plain:
        return HIDDEN  # escaped more than once: where it begins is not worth finding out
    return text


def _found(secrets: list[str], plain: str, depth: int) -> list[tuple[int, int]]:
    """Return where secrets stand in a text, as such or encoded, without those inside another."""
    spans: list[tuple[int, int]] = []
    for secret in secrets:
        spans += [found.span() for found in re.finditer(re.escape(secret), plain)]
    if depth:
        shortest = min(map(len, secrets)) * 4 // 3
        for run in re.finditer(rf"[A-Za-z0-9+/_-]{{{shortest},}}=*", plain):
            if _holds(secrets, run.group(), depth):
                spans.append(run.span())
    apart: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if apart and start < apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((start, end))
    return apart


def _holds(secrets: list[str], run: str, depth: int) -> bool:
    """Return whether a secret is in what a run of letters stands for, in base64 or hexadecimal."""
    letters = run.rstrip("=").translate(URL_SAFE)
    decoded = []
    for start in range(4):  # what precedes it may have run into it
        piece = letters[start:]
        piece = piece[: len(piece) - (len(piece) % 4 == 1)]
        with suppress(binascii.Error, ValueError):
            decoded.append(b64decode(piece + "=" * (-len(piece) % 4)))
    with suppress(ValueError):
        decoded.append(bytes.fromhex(run))
    for raw in decoded:
        if any(secret.encode() in raw for secret in secrets):
            return True
        with suppress(UnicodeDecodeError):
            text = raw.decode()
            if _without(secrets, text, depth - 1) != text:
                return True
    return False


def _pieces(text: str) -> list[Piece]:
    """Return the pieces that a text is made of when its escapes are resolved."""
    pieces, at, done = [], 0, 0
    for escape in ESCAPED.finditer(text):
        start, end = escape.span()
        if start > done:
            pieces.append(Piece(at, done, start, escaped=False))
            at += start - done
        if meant := _meant(escape.group()):
            pieces.append(Piece(at, start, end, escaped=True))
            at += len(meant)
        done = end
    pieces.append(Piece(at, done, len(text), escaped=False))
    return pieces


def _meant(escape: str) -> str:
    """Return the characters that an escape stands for, if it does stand for any."""
    if escape.startswith("\\") and len(escape) < 6:
        return ""
    if escape.startswith("%"):
        return unquote(re.sub("%(?:25)+", "%", escape))
    if escape.startswith("&"):
        digits = escape[escape.index("#") + 1 : -1]
        number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
        return chr(number) if number <= 0x10FFFF else ""
    units = re.findall("[0-9a-fA-F]{4}", escape)
    return bytes.fromhex("".join(units)).decode("utf-16-be", "replace")


def _piece(pieces: list[Piece], place: int) -> Piece:
    return pieces[bisect_right(pieces, place, key=lambda piece: piece.at) - 1]
