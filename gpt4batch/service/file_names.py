"""Names of downloaded files: what an address and its reply suggest, made legal on every system."""

from __future__ import annotations

import re
import time
from email.errors import HeaderParseError
from email.header import decode_header
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from pathvalidate import sanitize_filename

from gpt4batch import disk

if TYPE_CHECKING:
    from collections.abc import Mapping
from gpt4batch.lines.steering import CONTROLS, DIRECTIONS

LONGEST_NAME = 255
PART = ".part"

ASCII = "".join(map(chr, range(128)))
CHARSETS = ("utf-8", "gb18030", "latin-1")
"""The charsets tried for bytes whose charset is not given; the last one can read any bytes."""

PARAMETER = re.compile(r'(?<![^\s;,"])([^\s;,="]++)\s*+=\s*+("(?:\\.|[^"\\])*+"|[^;]*+)', re.DOTALL)
"""A name and its value in a Content-Disposition; a quoted value may hold anything."""

SECTION = re.compile(r"filename\*(\d{1,3})(\*?)")
"""A piece of a long name, as RFC 2231 divides it."""

STEERING = re.compile(
    rf"[{CONTROLS}{DIRECTIONS}\u061c\u200e\u200f\u2028\u2029\ufeff\U000e0000-\U000e007f]"
)
"""Characters that steer a terminal or turn the direction of a name: `exe.txt` for `txt.exe`."""


def suggested_name(url: str, headers: Mapping[str, str]) -> str:
    """Return the file name that an address or its reply suggests.

    The `filename=` in the query's `rscd` or `response-content-disposition` comes first, then the
    Content-Disposition header, then the path's last part.
    """
    parts = urlsplit(quote(plain(url), safe=ASCII, errors="replace"))
    query = parse_qs(parts.query, keep_blank_values=True, encoding="latin-1")
    for key in ("rscd", "response-content-disposition"):
        for value in query.get(key, ()):
            if name := _disposition_name(value):
                return name
    if name := _disposition_name(headers.get("content-disposition", "")):
        return name
    return _decoded(parts.path.rpartition("/")[2])


def plain(text: str) -> str:
    """Return a text without the one escape of HTML that services leave in addresses.

    Others are not undone: HTML has them without a semicolon too, and `&times` begins `&timestamp=`.
    """
    return text.replace("&amp;", "&")


def _disposition_name(text: str) -> str:
    """Return the file name in a Content-Disposition; `filename*` knows more than `filename`."""
    found = reversed(PARAMETER.findall(plain(text)))  # of equal ones the first counts
    given = {name.lower(): _unquoted(value) for name, value in found}
    extended = given.get("filename*")
    if not extended:  # it may be given in pieces: `filename*0*`, `filename*1`, and so on
        sections = ((SECTION.fullmatch(name), value) for name, value in given.items())
        pieces = sorted((int(section[1]), value) for section, value in sections if section)
        extended = "".join(piece for _, piece in pieces)
    # charset'language'text; some leave out all but the text
    charset, _, value = extended.split("'", 2) if extended.count("'") > 1 else ("", "", extended)
    name = _decoded(_unquoted(value), charset)
    return name or _encoded_words(_decoded(given.get("filename", "")))


def _unquoted(value: str) -> str:
    # Other backslashes are those of a path of Windows.
    return re.sub(r'\\(["\\])', r"\1", value.strip().removeprefix('"').removesuffix('"'))


def _encoded_words(text: str) -> str:
    """Return a text with the words of RFC 2047 in it read: `=?UTF-8?B?5oql?=`."""
    if "=?" not in text:
        return text
    try:
        words = decode_header(text)
    except (HeaderParseError, ValueError):
        return text
    return "".join(
        word if isinstance(word, str) else _text(word, charset or "") for word, charset in words
    )


def _decoded(text: str, charset: str = "") -> str:
    """Undo percent-encoding, and read the bytes that a header was made of.

    Headers and queries come with one character for each byte; a text that has others is decoded
    already.
    """
    try:
        octets = text.encode("latin-1")
    except UnicodeEncodeError:
        octets = text.encode("utf-8", "replace")
    return _text(unquote_to_bytes(octets), charset)


def _text(octets: bytes, charset: str = "") -> str:
    """Return bytes as a text: in the charset that is told, else in the first that can be."""
    for name in (charset, *CHARSETS):
        try:
            return octets.decode(name)
        except (LookupError, ValueError):  # no such charset, or not in it
            continue
    raise AssertionError("unreachable: latin-1 reads every byte")


def local_name(
    prefix: str, line_id: str, ask_id: str, suggested: str, ns: int | None = None
) -> str:
    """Return `PREFIX_<id>_<ask id>_<unix ns>_<file name>`, legal on every system.

    It has 250 bytes at most, which leaves five for `.part`.
    """
    words = [_legal(word, 60) for word in (prefix, line_id, ask_id)]
    head = "_".join([word for word in words if word] + [str(time.time_ns() if ns is None else ns)])
    room = LONGEST_NAME - len(PART) - len(head.encode()) - 1
    name = _legal(suggested.replace("\\", "/").rpartition("/")[2], room, keep_ending=True)
    return disk.encodable(f"{head}_{name or 'file'}".lstrip(".-"))


def _legal(text: str, room: int, *, keep_ending: bool = False) -> str:
    text = STEERING.sub("_", text.encode("utf-8", "replace").decode()).strip()
    ending = Path(text.replace("\0", "_")).suffix if keep_ending else ""
    stem = _sanitized(text[: len(text) - len(ending)])
    ending = _sanitized(ending).rstrip(" .")
    if len(ending.encode()) > 20:
        stem, ending = stem + ending, ""
    return cut(stem, room - len(ending.encode())).strip(" .") + ending


def _sanitized(text: str) -> str:
    # The library cuts to 255 bytes, which is the end of an ending: endings go in alone.
    return str(sanitize_filename(text, replacement_text="_", platform="universal"))


def cut(text: str, size: int) -> str:
    """Return the beginning of a text that fits into so many bytes."""
    return text.encode()[: max(size, 0)].decode(errors="ignore")
