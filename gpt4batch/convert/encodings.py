"""The text of a file in whatever encoding it was saved, and the name of that encoding."""

from __future__ import annotations

import codecs

from gpt4batch.errors import InputError, UsageError
from gpt4batch.words import tr

UTF8 = "utf-8"
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
USUAL = ("gb18030", "big5", "cp932", "euc-jp", "cp949", "cp1252", "cp1251")
"""What spreadsheets still save besides Unicode; fewer candidates are told apart more surely."""

SAMPLE = 4096


def decoded(raw: bytes, path: str, encoding: str = "") -> tuple[str, str]:
    """Return the text of a file and its encoding, which is the one given or is found out.

    Raises:
        UsageError: The encoding is unknown or cannot be found out.
        InputError: A row does not fit the encoding.
    """
    name = encoding or found(raw, path)
    try:
        return raw.decode(name).removeprefix("\ufeff"), name
    except LookupError:
        raise UsageError(
            tr(
                "--encoding {encoding!r}: unknown; common ones are utf-8, utf-16, gb18030, "
                "big5, shift_jis and cp1252",
                encoding=encoding,
            )
        ) from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        reason = tr("byte {place:,} of the file is not {name}", place=start + 1, name=name)
        row = 1 + raw.count(b"\n", 0, start)
        raise InputError(
            path, row, tr("{reason}; name its encoding with --encoding", reason=reason)
        ) from None


def found(raw: bytes, path: str) -> str:
    """Find out the encoding: by its mark, as UTF-8 or UTF-16, else by the characters in it."""
    for mark, name in BOMS:
        if raw.startswith(mark):
            return name
    # A text in UTF-16 without a mark: every other byte of ASCII is a NUL.
    sample = raw[:SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if (even + odd) * 10 >= len(sample):
        return "utf-16-le" if odd > even else "utf-16-be"
    try:
        raw.decode(UTF8)
    except UnicodeDecodeError:
        # It may be UTF-8 that was damaged: another encoding hardly ever looks like it.
        text = raw.decode(UTF8, errors="replace")
        damaged = sum(not char.isascii() for char in text) > 2 * text.count("\ufffd")
        return UTF8 if damaged else _guessed(raw, path)
    return UTF8


def _guessed(raw: bytes, path: str) -> str:
    try:
        import chardet
    except ImportError:
        raise UsageError(
            tr(
                "{path} is not UTF-8: name its encoding (--encoding gb18030), or let it be "
                "found out after: pip install 'gpt4batch[tables]'",
                path=path,
            )
        ) from None
    # Rows without a foreign character tell nothing, and would fill the sample.
    telling = b"\n".join(row for row in raw.splitlines() if not row.isascii())
    result = chardet.detect(
        telling,
        include_encodings=USUAL,
        prefer_superset=True,
        compat_names=False,
        no_match_encoding=USUAL[0],
    )
    return result["encoding"] or USUAL[0]
