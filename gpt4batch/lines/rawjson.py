"""JSON as bytes: decoded to look at, passed on as it came.

What this tool does not have to understand (a reply, `extra`, unknown keys) is cut out of the text
and put back unread: a number of 30 digits or a key that stands twice comes back as it went in.
"""

from __future__ import annotations

import json  # noqa: TID251 - the only place: what orjson refuses may still be JSON
import re
from math import isinf
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from gpt4batch.lines.steering import STEERING
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Fragment = orjson.Fragment
"""A value that is JSON text already and goes into the output as it is."""

TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:]')
BETWEEN: Callable[[str, int], re.Match[str]] = re.compile(r"[ \t\n\r,:]*+").match  # type: ignore[assignment]
"""What may stand before a value, in JSON that is known to be valid."""
SCAN: Callable[[str, int], tuple[Any, int]] = json.scanner.make_scanner(  # type: ignore[attr-defined]
    json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)
)
"""Finds the end of a value, twice as fast as by its tokens; of numbers it takes the length."""
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1
MOST_DIGITS = 4300
"""Of an integer: Python refuses to read a longer one."""

WIDE = re.compile(rb"\xff\xfe|\xfe\xff|\0{0,3}[^\0]\0|\0{1,3}[^\0]", re.DOTALL)
"""How a text begins whose characters take two bytes or four, or a line that was cut out of it."""

MOST_BEGINNINGS = 1000
"""Of objects in a text that is not JSON."""

QUOTE = ord('"')
WHAT_IS_WRONG = (
    tr("invalid UTF-8 encoding in string"),
    tr("invalid escape in string"),
    tr("invalid escaped sequence in string"),
    tr("invalid high surrogate in string"),
    tr("invalid literal, expected 'false'"),
    tr("invalid literal, expected 'null'"),
    tr("invalid literal, expected 'true'"),
    tr("invalid low surrogate in string"),
    tr("trailing comma is not allowed"),
    tr("unexpected character, expected ',' or ']'"),
    tr("unexpected character, expected ',' or '}'"),
    tr("unexpected character, expected ':' after key"),
    tr("unexpected character, expected a JSON value"),
    tr("unexpected character, expected a string key"),
    tr("unexpected content after document"),
    tr("unexpected control character in string"),
    tr("unexpected end of data"),
)
"""The words in which orjson says what is wrong with a text."""

OPENING, CLOSING, SEPARATING = b"[{", b"]}", b":,"


class JSONError(ValueError):
    """A text is not JSON; the message says why."""


class UntakenError(JSONError):
    """A text is whole, but cannot be taken: nested too deeply, not UTF-8, or with a NaN in it."""


class _ConstantError(ValueError):
    """A NaN or an Infinity."""


def loads(raw: bytes) -> Any:
    """Decode JSON.

    Lone surrogates and numbers without end, which orjson refuses, are taken: services cut emoji in
    half. A number is the same whichever of the two decoders reads it.

    Raises:
        JSONError: The text is not JSON.
        UntakenError: It is whole all the same.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = _reason(raw, error)
    try:
        return json.loads(raw.decode(), parse_int=_integer, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        wide = WIDE.match(raw)
        reason = reason if wide else tr("not UTF-8 (byte {number})", number=error.start + 1)
        raise _kind(raw)(reason) from None
    except _ConstantError as error:
        raise _kind(raw)(tr("not JSON ({error})", error=error)) from None
    except ValueError:
        raise JSONError(reason) from None
    except RecursionError:
        raise UntakenError(tr("nested too deeply")) from None


def objects_in(raw: bytes) -> int:
    """Return how many whole objects stand one after the other from the beginning of a text on."""
    text = raw.decode(errors="replace")
    decoder, place, count = json.JSONDecoder(strict=False), 0, 0
    try:
        while (start := text.find("{", place)) >= 0 and not text[place:start].strip(" \t\r\n,"):
            _, place = decoder.raw_decode(text, start)
            count += 1
    except (ValueError, RecursionError):
        pass
    return count


def objects_within(raw: bytes) -> Iterator[dict[str, Any]]:
    """Yield the whole objects in a text that is not JSON, wherever they begin.

    A text with very many beginnings is a program or a page, and is not looked at to its end.
    """
    text = raw.decode(errors="replace")
    decoder, place = json.JSONDecoder(strict=False), 0
    for _ in range(MOST_BEGINNINGS):
        if (place := text.find("{", place)) < 0:
            return
        try:
            found, place = decoder.raw_decode(text, place)
            yield found
        except (ValueError, RecursionError):
            place += 1


def _kind(raw: bytes) -> type[JSONError]:
    """Return the kind of error that a text deserves which would be JSON with other characters."""
    try:
        json.loads(raw.decode(errors="replace"))
    except ValueError:
        return JSONError
    except RecursionError:
        pass
    return UntakenError


def exact(raw: bytes) -> Any:
    """Decode JSON that `loads` takes, with every integer exact, up to 4300 digits.

    A float beyond 64 bits is an integer too: what is left of its kind has no end or a fraction.

    Raises:
        UntakenError: It is nested too deeply for this decoder.
    """
    try:
        return json.loads(raw.decode(), parse_int=_exact_integer, parse_float=_exact_float)
    except RecursionError:
        raise UntakenError(tr("nested too deeply")) from None


def decoded(raw: bytes, *, number: Callable[[str], Any]) -> Any:
    """Decode JSON that `loads` takes; what its numbers are is made from their text."""
    return json.loads(raw.decode(), parse_int=number, parse_float=number)


def _exact_integer(text: str) -> int | float:
    return int(text) if len(text) <= MOST_DIGITS else float(text)


def _exact_float(text: str) -> int | float:
    number = float(text)
    return int(number) if abs(number) >= -SMALLEST and number.is_integer() else number


def _integer(text: str) -> int | float:
    """Return an integer; beyond 64 bits it is a float, as orjson has it, where a float reaches."""
    if len(text) > MOST_DIGITS:
        return float(text)
    number, near = int(text), float(text)
    return number if isinf(near) or SMALLEST <= number <= LARGEST else near


def _refuse(name: str) -> NoReturn:
    raise _ConstantError(name)


def _reason(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return tr("empty")
    if WIDE.match(raw):
        return tr("in UTF-16 or UTF-32: save it as UTF-8")
    text = error.msg.partition(": line ")[0]
    return tr("not JSON ({text}, character {place})", text=tr(text), place=error.pos + 1)


def dumps(value: Any) -> bytes:
    """Encode to JSON in one line; lone surrogates become escapes."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _escaped(value)


def in_order(value: Any) -> bytes | None:
    """Encode to JSON with the keys of objects in order; None where that takes a slower way."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


def _escaped(value: Any) -> bytes:
    """Encode what orjson refuses piece by piece, since it may hold fragments and dates too.

    Not by calling itself: it may be nested more deeply than calls can be.
    """
    parts: list[bytes] = []
    left: list[Any] = [value]  # bytes are text that is ready
    while left:
        item = left.pop()
        if isinstance(item, dict):
            texts = [(json.dumps(str(key)).encode() + b":", one) for key, one in item.items()]
            left += [b"}", *_reversed(texts), b"{"]
        elif isinstance(item, list | tuple):
            left += [b"]", *_reversed([(b"", one) for one in item]), b"["]
        else:
            parts.append(item if isinstance(item, bytes) else json.dumps(item).encode())
    return b"".join(parts)


def _reversed(items: list[tuple[bytes, Any]]) -> Iterator[Any]:
    """Yield names and values last first, with commas; what orjson takes comes as text."""
    for place in range(len(items) - 1, -1, -1):
        name, value = items[place]
        try:
            yield orjson.dumps(value)
        except TypeError:
            yield value
        yield b"," * (place > 0) + name


def pretty(value: Any) -> bytes:
    """Encode to indented JSON with a newline at the end, for files that people read."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return json.dumps(exact(dumps(value)), indent=2).encode() + b"\n"


def escaped_controls(raw: bytes) -> bytes:
    """Return the same JSON with the characters escaped that could steer a terminal."""
    text = raw.decode(errors="surrogateescape")
    shown = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return shown.encode(errors="surrogateescape")


def one_line(raw: bytes) -> bytes:
    """Return valid JSON without line breaks, which can only stand between its tokens."""
    if b"\n" in raw or b"\r" in raw:
        raw = raw.replace(b"\r", b" ").replace(b"\n", b" ")
    return raw.strip()


def members(raw: bytes, before: str = "") -> list[tuple[str, bytes]]:
    """Cut a JSON object into its keys and the text of their values; `raw` must be valid.

    Args:
        raw: The text.
        before: A key that is wanted no more, nor what follows it.
    """
    try:
        cut = _cut(raw, before)
    except RecursionError:
        texts = list(_cut_by_tokens(raw))
        return [(loads(key), value) for key, value in zip(texts[::2], texts[1::2], strict=True)]
    return [(key, text) for (key, _), (_, text) in zip(cut[::2], cut[1::2], strict=True)]


def elements(raw: bytes) -> list[bytes]:
    """Cut a JSON array into the texts of its values; `raw` must be valid."""
    try:
        return [text for _, text in _cut(raw)]
    except RecursionError:
        return list(_cut_by_tokens(raw))


def _cut(raw: bytes, before: str = "") -> list[tuple[Any, bytes]]:
    """Return what stands between the outermost brackets, colons and commas, decoded and as text.

    Numbers are not decoded.
    """
    text = raw.decode(errors="surrogatepass")
    found: list[tuple[Any, bytes]] = []
    place = BETWEEN(text, BETWEEN(text, 0).end() + 1).end()
    while text[place : place + 1] not in "]}":  # nor is nothing
        try:
            value, end = SCAN(text, place)
        except StopIteration:
            raise JSONError(tr("not JSON")) from None
        if before and value == before and len(found) % 2 == 0:
            return found
        found.append((value, text[place:end].encode(errors="surrogatepass")))
        place = BETWEEN(text, end).end()
    return found


def _cut_by_tokens(raw: bytes) -> Iterator[bytes]:
    """Yield the same where values are nested too deeply for the decoder."""
    depth = start = 0
    for token in TOKEN.finditer(raw):
        place = token.start()
        kind = raw[place]
        if kind == QUOTE:
            continue
        if kind in OPENING:
            depth += 1
            if depth == 1:
                start = place + 1
            continue
        if kind in CLOSING:
            depth -= 1
        if depth == 0 or (depth == 1 and kind in SEPARATING):
            if text := raw[start:place].strip():
                yield text
            start = place + 1
