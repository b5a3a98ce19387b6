"""A line read: what it asks, and what it carries of an earlier run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gpt4batch.errors import NOT_READY
from gpt4batch.lines import rawjson
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable

Id: TypeAlias = str | int | None

BOM = b"\xef\xbb\xbf"
OWN_KEYS = frozenset({"id", "asks", "answers", "iErr", "extra", "meta"})
PLAIN = frozenset({"id", "asks", "extra"})
"""The keys of most lines of an input."""
BATCH = "openai_batch"
"""The key under which our own form has the request of a line of a batch file."""
MANNER = ("system", "params", BATCH)
"""The keys that say how to answer: where they are present, a line is recognised by them too."""
NO_ASKS = tr("asks is missing")
ELSEWHERE = ("messages", "prompt", "question", "instruction", "custom_id")
"""Keys under which other tools have what is asked."""
NOT_RUN = {"code": NOT_READY, "message": "resource is not ready"}

DIGITS = bytes.maketrans(b"123456789", b"000000000")
LARGE = b"0e+"
"""What a large number looks like whose digits are all 0; some text looks like it, too."""

KEY = re.compile(r"[0-9a-f]{32}")

EXACT = 1 << 63
"""The size from which on an integer comes out of the decoder as a float."""


class BadLine(ValueError):
    """A line of the input is not of the right shape; the message says what is wrong."""


class LongNumber(Exception):
    """An id is an integer beyond 64 bits, of which decoding has left only the first digits."""


class Ask(NamedTuple):
    """One question of a conversation with the paths of its attachments.

    `params` is what the ask adds to the body of its call, decoded; `Line.params` has its text.
    """

    id: Id
    content: str
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    params: Any = None


@dataclass(slots=True)
class Line:
    """One line of the input: a conversation to hold, and what is known of it already.

    `answered` is the number of answers that stand in `raw`, `error` the `iErr` it carries, and
    `options` has its other keys: a dialect knows which of them the service is told. `manner` is
    what those say of how to answer, as far as a line is recognised by it. `cut` is the request of a
    line of a batch file, where it was cut out of the text already.
    """

    raw: bytes
    asks: tuple[Ask, ...]
    id: Id = None
    options: dict[str, Any] = field(default_factory=dict)
    manner: bytes = b""
    answered: int = 0
    error: dict[str, Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    number: int = 0
    cut: tuple[str, bytes] | None = None
    anew: bool = False
    """Whether it is to be asked from its beginning, whatever is answered."""

    @property
    def done(self) -> bool:
        """Return whether every ask has its answer and nothing failed."""
        return self.answered == len(self.asks) and not self.error

    @property
    def waiting(self) -> bool:
        """Return whether the line only says that it was not run yet."""
        return self.error is not None and {**self.error, **NOT_RUN} == self.error

    def forget(self) -> None:
        """Drop what the line knows of an earlier run."""
        self.answered, self.error, self.meta = 0, None, {}

    @property
    def key(self) -> bytes:
        """Return the 16 bytes by which the line is recognised.

        The row of a batch output does not say what was asked: its record has the key itself.
        """
        known = self.meta.get("key")
        ours = BATCH in self.options or not self.asks[0].content  # an input may have a key there
        if ours and isinstance(known, str) and KEY.fullmatch(known):
            return bytes.fromhex(known)
        asks = () if BATCH in self.options else self.asks
        return key_of(self.id, asks, self.manner)

    def params(self, place: int) -> dict[str, bytes]:
        """Return the text of what is added to the body of an ask's call, by its keys.

        An ask's own come before those of its line. Their text is passed on as it stands.
        """
        if not self.manner or BATCH in self.options:
            return {}
        known = dict(rawjson.members(self.raw))
        ask = dict(rawjson.members(rawjson.elements(known["asks"])[place]))
        found: dict[str, bytes] = {}
        for text in (known.get("params"), ask.get("params")):
            if text and text != b"null":
                found |= rawjson.members(text)
        return found

    def request(self) -> tuple[str, bytes] | None:
        """Return where the request of a line of a batch file goes, and its body as it stands."""
        if self.cut is not None or BATCH not in self.options:
            return self.cut
        known = dict(rawjson.members(dict(rawjson.members(self.raw))[BATCH]))
        return rawjson.loads(known["url"]), known["body"]

    def answers(self) -> list[bytes]:
        """Return the text of the answers that the line has."""
        if not self.answered:
            return []
        for name, value in reversed(rawjson.members(self.raw)):
            if name == "answers":
                return rawjson.elements(value)[: self.answered]
        return []


def parse_line(raw: bytes, index: int = 0, number: int = 0) -> Line:
    """Read a line of the input, or of an output, whole.

    Raises:
        BadLine: It is not a JSON object, or one of its known keys has the wrong type.
    """
    return parsed(decoded(raw), raw, index, number)


def parsed(doc: dict[str, Any], raw: bytes, index: int = 0, number: int = 0) -> Line:
    """Return the line that an object is, as `parse_line` reads it.

    Raises:
        BadLine: One of its known keys has the wrong type.
    """
    try:
        return line_of(doc, raw, index, number)
    except LongNumber:
        return line_of(decoded(raw, rawjson.exact), raw, index, number)


def line_of(doc: dict[str, Any], raw: bytes, index: int = 0, number: int = 0) -> Line:
    """Return the line that an object is, which was decoded from its text.

    Raises:
        BadLine: One of its known keys has the wrong type.
        LongNumber: An id is to be decoded exactly.
    """
    asks = doc.get("asks")
    if not isinstance(asks, list) or not asks:
        raise BadLine(_why_no_asks(doc))
    if len(asks) == 1:  # most lines: this is the path of every line of a million
        items: tuple[Ask, ...] = (_ask(asks[0], 0),)
        steered = items[0].params
    else:
        items = tuple([_ask(ask, place) for place, ask in enumerate(asks)])
        steered = any(ask.params for ask in items)
    line_id = doc.get("id")
    if not isinstance(line_id, str):
        line_id = _id(line_id, "id")
    line = Line(raw, items, line_id, index=index, number=number)
    if not doc.keys() <= PLAIN:
        _take_optional(line, doc)
    if steered or line.options:
        line.manner = manner_of(line)
    return line


def _why_no_asks(doc: dict[str, Any]) -> str:
    """Return what is said of a line without asks, with a hint where it is of another tool."""
    if "asks" in doc:
        return tr("asks must be a list of at least one ask")
    if (other := next((name for name in ELSEWHERE if name in doc), None)) is None:
        return NO_ASKS
    return tr(
        '{missing}: "{other}" is of another tool; here it is {{"asks": [{{"content": "…"}}]}}',
        missing=NO_ASKS,
        other=other,
    )


def decoded(raw: bytes, decode: Callable[[bytes], Any] = rawjson.loads) -> dict[str, Any]:
    """Return the object that a line is.

    Raises:
        BadLine: It is not a JSON object.
    """
    try:
        doc = decode(raw)
    except rawjson.JSONError as error:
        raise BadLine(str(error)) from None
    if not isinstance(doc, dict):
        raise BadLine(tr("not a JSON object but {kind}", kind=kind_of(doc)))
    return doc


def _take_optional(line: Line, doc: dict[str, Any]) -> None:
    """Read what only some lines of an input have."""
    failure, meta = doc.get("iErr"), doc.get("meta")
    if failure is not None and not isinstance(failure, dict):
        raise BadLine(tr("iErr must be an object, not {kind}", kind=kind_of(failure)))
    line.options = {name: value for name, value in doc.items() if name not in OWN_KEYS}
    line.answered = _answered(doc.get("answers"), len(line.asks))
    line.error = failure or None
    line.meta = meta if isinstance(meta, dict) else {}


def manner_of(line: Line) -> bytes:
    """Return what a line says of how to answer, the same for every order of the same keys.

    Raises:
        LongNumber: A number is to be decoded exactly.
        BadLine: It is nested too deeply.
    """
    told = {name: line.options[name] for name in MANNER if line.options.get(name)}
    own = [ask.params or None for ask in line.asks]
    if any(own):
        told["asks"] = own
    if not told:
        return b""
    text = rawjson.in_order(told)
    if text is None or LARGE in text.translate(DIGITS):
        try:
            return rawjson.dumps(_in_order(told))
        except RecursionError:
            raise BadLine(tr("nested too deeply")) from None
    return text


def _in_order(value: Any) -> Any:
    """Return a value with the keys of its objects in order."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    if isinstance(value, float) and abs(value) >= EXACT and value.is_integer():
        raise LongNumber
    return value


def key_of(line_id: Id, asks: tuple[Ask, ...], manner: bytes = b"") -> bytes:
    """Return the 16 bytes by which lines are recognised: a digest of id, asks and manner."""
    told = rawjson.dumps((line_id, [ask[:4] for ask in asks]))
    return blake2b(told + manner, digest_size=16).digest()


def _ask(ask: Any, place: int) -> Ask:
    if not isinstance(ask, dict):
        raise BadLine(
            tr("asks[{place}] must be an object, not {kind}", place=place, kind=kind_of(ask))
        )
    content = ask.get("content")
    if not isinstance(content, str):
        reason = (
            tr("is missing")
            if content is None
            else tr("must be text, not {kind}", kind=kind_of(content))
        )
        raise BadLine(tr("asks[{place}].content {reason}", place=place, reason=reason))
    ask_id = ask.get("id")
    if not isinstance(ask_id, str):
        ask_id = _id(ask_id, f"asks[{place}].id")
    if len(ask) == 2 and "id" in ask:  # most asks: no attachments
        return Ask(ask_id, content)
    return Ask(
        ask_id,
        content,
        _paths(ask, "images", "image", place),
        _paths(ask, "files", "file", place),
        ask.get("params"),
    )


def _paths(ask: dict[str, Any], many: str, single: str, place: int) -> tuple[str, ...]:
    found: list[str] = []
    for name in (many, single):
        value = ask.get(name)
        if not value and not isinstance(value, dict):
            continue
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
            raise BadLine(
                tr("asks[{place}].{name} must be a list of paths", place=place, name=name)
            )
        found += value
    return tuple(found)


def _answered(answers: Any, asks: int) -> int:
    if answers is None:
        return 0
    if not isinstance(answers, list):
        raise BadLine(tr("answers must be a list, not {kind}", kind=kind_of(answers)))
    if len(answers) > asks:
        raise BadLine(tr("{count} answers to {asks} asks", count=len(answers), asks=asks))
    for place, answer in enumerate(answers):
        if answer is None:
            return place
        if not isinstance(answer, dict):
            raise BadLine(
                tr(
                    "answers[{place}] must be an object, not {kind}",
                    place=place,
                    kind=kind_of(answer),
                )
            )
    return len(answers)


def _id(value: Any, where: str) -> Id:
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= EXACT:
            raise LongNumber
        return int(value)
    raise BadLine(
        tr(
            "{where} must be a string or an integer, not {kind}",
            where=where,
            kind=kind_of(value),
        )
    )


def kind_of(value: Any) -> str:
    """Return what kind of JSON value it is, as a message names it."""
    names = {dict: tr("an object"), list: tr("a list"), str: tr("text"), bool: tr("true or false")}
    return "null" if value is None else names.get(type(value), tr("a number"))
