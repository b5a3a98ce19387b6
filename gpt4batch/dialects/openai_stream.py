"""A stream of chat completions, folded into the one object that a plain call would have brought.

Source: `CreateChatCompletionStreamResponse` in OpenAI's openapi.yaml, and the stream format of
server-sent events in the HTML standard. What is folded is told by its name only where it has to be:
texts are joined, lists grow by `index` or at their end, objects are folded again, and of all else
the last value that is not null counts, as it was written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpt4batch.lines import rawjson
from gpt4batch.words import tr

DONE = b"[DONE]"
FIELDS = (b"data", b"event", b"id", b"retry", b"")
"""How a line of a stream of events begins; a comment has no name."""
WHOLE = frozenset({"id", "type", "name", "role", "object", "format"})
"""Texts that come in one piece, however often they are repeated."""
PLAIN_CHOICE = frozenset({"index", "delta", "finish_reason", "logprobs"})


PADDING = "obfuscation"
"""A field of chunks that says nothing: it hides their length."""


class _Text(list[str]):
    """A text that comes in pieces."""


class _Number(NamedTuple):
    """A number as it was written."""

    text: str


class Fold:
    """Folds a stream as it comes.

    `count` is the number of events so far: comments that keep a connection open are none. `damage`
    says what of it cannot be read.
    """

    def __init__(self) -> None:
        self.count = 0
        self.error: Any = None
        self.damage = ""
        self._rest = b""
        self._data: list[bytes] = []
        self._reply: dict[str, Any] = {}
        self._alike: dict[str, Any] = {}
        """What the last chunk had beside its choices."""
        self._choices: dict[int, dict[str, Any]] = {}
        self._done = False
        self._damaged = False
        self._unread: list[bytes] = []
        """Events that are whole, and cannot be read."""
        self._after_return = False
        self._began = False
        self._plain: bytearray | None = None
        """Another text than a stream, which came as one."""

    def feed(self, piece: bytes) -> None:
        """Take the bytes that have come."""
        if not self._began:
            piece = piece.lstrip(b"\xef\xbb\xbf \t\r\n")
            self._began = bool(piece)
            if piece.startswith((b"{", b"[", b"<")):
                self._plain = bytearray()
        if self._plain is not None:
            self._plain += piece
            self.count += 1
            return
        *lines, self._rest = (self._rest + self._with_newlines(piece)).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                self._take(data)

    def _with_newlines(self, piece: bytes) -> bytes:
        """Return a piece whose lines all end alike: a return, or both, ends one as well."""
        if self._after_return:
            piece = piece.removeprefix(b"\n")
        self._after_return = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def close(self) -> None:
        """Take what has come without the end of its line."""
        if self._plain is None:
            self.feed(b"\n\n")

    @property
    def ended(self) -> bool:
        """Return whether the stream has come to its end, by its own word."""
        if self._plain is not None or self.error is not None:
            return True
        finished = [choice.get("finish_reason") for choice in self._choices.values()]
        return self._done and not self._damaged and bool(finished) and all(finished)

    def reply(self) -> bytes:
        """Return the object that the stream amounts to; other text than a stream as it is.

        Events that cannot be read stand behind it, each in a line.
        """
        if self._plain is not None:
            return bytes(self._plain)
        choices = [_joined(self._choices[index]) for index in sorted(self._choices)]
        for choice in choices:
            message = choice["message"] = {"role": "assistant", "content": None} | choice["message"]
            calls = message.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    call.pop("index", None)  # the place of its pieces
        reply = _joined(self._reply) | {"object": "chat.completion", "choices": choices}
        if self.error is not None:
            reply["error"] = self.error
        return b"\n".join([rawjson.dumps(reply), *self._unread])

    # -- events ------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self.count += 1
        if data.strip() == DONE:
            self._done = True
            return
        if not data.strip():
            return
        try:
            chunk = rawjson.loads(data)
        except rawjson.UntakenError as error:  # another stream would be no better
            self.damage = tr("an event of the stream is {error}", error=error)
            self._unread.append(data)
            return
        except rawjson.JSONError:
            self._damaged = True
            return
        if isinstance(chunk, dict) and not self._take_text(chunk):
            self._take_chunk(rawjson.decoded(data, number=_Number))

    def _take_text(self, chunk: dict[str, Any]) -> bool:
        """Take a chunk that only adds to the text of a message, as nearly all do."""
        try:
            (choice,) = chunk.pop("choices")
            ((name, text),) = choice["delta"].items()
            pieces = self._choices[choice["index"]]["message"][name]
        except (KeyError, TypeError, ValueError, AttributeError):
            chunk.pop(PADDING, None)
            self._alike = chunk
            return False
        chunk.pop(PADDING, None)
        if chunk != self._alike or choice.keys() - PLAIN_CHOICE:
            self._alike = chunk
            return False
        if choice.get("finish_reason") or choice.get("logprobs"):
            return False
        if type(text) is not str or type(pieces) is not _Text:
            return False
        pieces.append(text)
        return True

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        error = chunk.pop("error", None)
        # Some services send an error that stands for itself.
        bare = "choices" not in chunk and "usage" not in chunk and "message" in chunk
        if chunk.get("object") == "error" or (error is None and bare):
            error, chunk = chunk, {}
        if error:
            self.error = _joined(error)
        chunk.pop(PADDING, None)
        choices = chunk.pop("choices", None)
        _fold(self._reply, chunk, pieces=False)
        self._reply.setdefault("choices", None)  # its place among the keys
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        index = _index(choice)
        known = self._choices.setdefault(index, {"index": index, "message": {}})
        delta, whole = choice.pop("delta", None), choice.pop("message", None)
        if isinstance(delta, dict) and delta:
            _fold(known["message"], delta)
        elif isinstance(whole, dict) and not known["message"].get("content"):
            _fold(known["message"], whole)  # some say it all again at the end
        if finish := choice.pop("finish_reason", None):
            known["finish_reason"] = finish
        logprobs = choice.pop("logprobs", None)
        if isinstance(logprobs, dict):
            _fold(known.setdefault("logprobs", {}), logprobs)
        choice.pop("index", None)
        _fold(known, choice, pieces=False)
        known.setdefault("finish_reason", None)


def looks_like_events(body: bytes) -> bool:
    """Return whether a body is a stream of events, whatever its headers say."""
    line = body.lstrip()[:16].partition(b"\n")[0]
    name, colon, _ = line.partition(b":")
    return bool(colon) and name in FIELDS


def _fold(known: dict[str, Any], more: dict[str, Any], *, pieces: bool = True) -> None:
    """Add what came to what is known.

    Args:
        known: Is changed.
        more: What came.
        pieces: Texts and lists are pieces of longer ones.
    """
    for name, value in more.items():
        old = known.get(name)
        if value is None:
            known.setdefault(name, None)
        elif isinstance(value, str) and pieces and name not in WHOLE:
            known[name] = _longer(old, value)
        elif isinstance(value, str) and pieces:
            known[name] = old or value
        elif isinstance(value, dict) and pieces:
            inner = old if isinstance(old, dict) else {}
            _fold(inner, value)
            known[name] = inner
        elif isinstance(value, list) and pieces:
            known[name] = _grown(_parts(old), value)
        else:
            known[name] = value


def _grown(known: list[Any], more: list[Any]) -> list[Any]:
    """Return a list with further items: those with an index are pieces of the item there."""
    for item in more:
        if not isinstance(item, dict) or "index" not in item:
            known.append(item)
            continue
        place = next((one for one in reversed(known) if _at(one) == _at(item)), None)
        if place is None or _is_another(place, item):
            place = {"index": item["index"]}
            known.append(place)
        _fold(place, {name: value for name, value in item.items() if name != "index"})
    return known


def _longer(known: Any, text: str) -> list[Any]:
    """Return a text, or the parts of a message, with a further piece of text."""
    if isinstance(known, _Text):
        known.append(text)
        return known
    if not isinstance(known, list):
        return _Text([text])
    last = known[-1] if known else None
    if isinstance(last, dict) and isinstance(last.get("text"), _Text):
        last["text"].append(text)
    elif text:
        known.append({"type": "text", "text": _Text([text])})
    return known


def _parts(known: Any) -> list[Any]:
    """Return the parts of a message; a text that came before them is one."""
    if isinstance(known, _Text):
        return [{"type": "text", "text": known}] if any(known) else []
    return known if isinstance(known, list) else []


def _is_another(known: dict[str, Any], item: dict[str, Any]) -> bool:
    """Tell whether a call of a tool is a new one, though some services give all the same index."""
    function = item.get("function")
    named = isinstance(function, dict) and function.get("name")
    return bool(named and item.get("id") and known.get("id") and item["id"] != known["id"])


def _at(item: Any) -> int | None:
    return _index(item) if isinstance(item, dict) and "index" in item else None


def _index(item: dict[str, Any]) -> int:
    value = item.get("index")
    return int(value.text) if isinstance(value, _Number) and value.text.isdigit() else 0


def _joined(value: Any) -> Any:
    """Return what was folded as it is in a reply: texts in one, numbers as they were written."""
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, _Number):
        return rawjson.Fragment(value.text.encode())
    if isinstance(value, dict):
        return {name: _joined(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_joined(item) for item in value]
    return value
