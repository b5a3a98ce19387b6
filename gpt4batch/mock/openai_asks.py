"""The bodies that OpenAI-compatible services take: read as far as an answer depends on them.

Source of shapes and refusals: https://github.com/openai/openai-openapi (openapi.yaml).
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from gpt4batch.lines.pictures import media_type
from gpt4batch.mock.refusal import Refusal

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEXTS = ("text", "input_text", "output_text", "refusal")
PICTURES = ("image_url", "input_image")
PICTURE_TOKENS = 85
MESSAGE_TOKENS = 4
"""What a message costs besides its text."""
DELIVERY = ("stream", "stream_options")
"""The fields that say how an answer is sent, and nothing of what is asked."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message: who says it, its text, and the digests of its pictures and files."""

    role: str
    text: str
    sha256s: tuple[str, ...] = ()
    calls: bytes = b""

    @property
    def tokens(self) -> int:
        """Return what the message costs."""
        return MESSAGE_TOKENS + tokens_of(self.text) + PICTURE_TOKENS * len(self.sha256s)


@dataclass(frozen=True, slots=True)
class Question:
    """One call: its body, and what it says."""

    body: dict[str, Any]
    model: str
    messages: tuple[Said, ...]

    @property
    def said(self) -> str:
        """Return the text of the last message."""
        return self.messages[-1].text

    @property
    def tokens(self) -> int:
        """Return what the question costs."""
        return sum(message.tokens for message in self.messages)

    @property
    def streamed(self) -> bool:
        """Tell whether the answer is wanted piece by piece."""
        return self.body.get("stream") is True

    @property
    def usage_wanted(self) -> bool:
        """Tell whether a stream is to say at its end what the answer cost."""
        return (self.body.get("stream_options") or {}).get("include_usage") is True

    def asked(self) -> bytes:
        """Return what makes this question this one, however its answer is to be sent."""
        fields = {name: value for name, value in self.body.items() if name not in DELIVERY}
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def tokens_of(text: str) -> int:
    """Return what a text costs: a token for each four bytes begun."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def wrong(message: str, param: str, code: str = "invalid_value") -> Refusal:
    """Return the refusal of a field."""
    return Refusal(400, message, code=code, param=param)


def missing(name: str) -> Refusal:
    """Return the refusal of a body that lacks a field."""
    return wrong(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def parse_body(body: bytes, model: str = "") -> dict[str, Any]:
    """Return a body with its model, which some services have in their addresses; or refuse it."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(given, dict):
        raise Refusal(400, "The JSON body of your request is no object.")
    if model:
        given.setdefault("model", model)
    if not isinstance(given.get("model"), str) or not given["model"]:
        raise Refusal(400, "you must provide a model parameter", param="model")
    for name in ("max_tokens", "max_completion_tokens", "n", "dimensions"):
        value = given.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise wrong(f"Invalid '{name}': expected an integer of at least 1.", name)
    _check_delivery(given)
    return given


def _check_delivery(given: dict[str, Any]) -> None:
    if not isinstance(given.get("stream") or False, bool):
        raise wrong("Invalid type for 'stream': expected a boolean.", "stream", "invalid_type")
    options = given.get("stream_options")
    if options is not None and (not given.get("stream") or not isinstance(options, dict)):
        raise wrong(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )


def chat(body: dict[str, Any]) -> tuple[Said, ...]:
    """Return the messages of a chat, or refuse it."""
    return _messages(body.get("messages"), "messages")


def response(body: dict[str, Any]) -> tuple[Said, ...]:
    """Return what a call of the Responses API says, or refuse it."""
    given = body.get("input")
    said = _messages([{"role": "user", "content": given}] if isinstance(given, str) else given)
    instructions = body.get("instructions")
    return (Said("system", instructions), *said) if isinstance(instructions, str) else said


def completion(body: dict[str, Any]) -> tuple[Said, ...]:
    """Return the prompt of a plain completion, or refuse it."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise missing("prompt")
    return (Said("user", prompt),)


def embedding(body: dict[str, Any]) -> tuple[Said, ...]:
    """Return the texts to embed, one a message, or refuse them; lists of tokens are texts too."""
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    if texts and all(isinstance(item, int) for item in texts):
        texts = [texts]
    if not texts or not all(isinstance(text, str | list) and text for text in texts):
        raise wrong("'input' must be a string or a list of them, none empty.", "input")
    return tuple(Said("user", text if isinstance(text, str) else str(text)) for text in texts)


def _messages(given: Any, name: str = "input") -> tuple[Said, ...]:
    if given is None:
        raise missing(name)
    if not isinstance(given, list) or not given:
        raise wrong(f"Invalid '{name}': expected a list with at least one message.", name)
    return tuple(_message(item, f"{name}[{place}]") for place, item in enumerate(given))


def _message(given: Any, where: str) -> Said:
    role = given.get("role") if isinstance(given, dict) else None
    if role not in ROLES:
        known = ", ".join(f"'{known}'" for known in ROLES)
        raise wrong(f"Invalid value: {role!r}. Supported values are: {known}.", f"{where}.role")
    if role == "tool" and not isinstance(given.get("tool_call_id"), str):
        raise missing(f"{where}.tool_call_id")
    content, calls = given.get("content"), given.get("tool_calls")
    if content is None and not (role == "assistant" and (calls or given.get("refusal"))):
        raise wrong(
            f"Invalid value for 'content': expected a string, got null ({where}).",
            f"{where}.content",
            "invalid_type",
        )
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    texts, sha256s = [], []
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        at = f"{where}.content[{place}]"
        if kind in TEXTS and isinstance(part.get("text", part.get("refusal")), str):
            texts.append(part.get("text", part.get("refusal")))
        elif role == "user":
            sha256s.append(_attached(part, kind, at))
        else:
            raise wrong(f"Invalid content of {role}: {kind!r} ({at}).", f"{at}.type")
    return Said(role, "\n".join(texts), tuple(sha256s), orjson.dumps(calls) if calls else b"")


def _attached(part: Any, kind: str | None, at: str) -> str:
    """Return the digest of a picture, a sound or a file inside a message."""
    held = part.get(kind) if kind else None
    if kind in PICTURES:
        url = held.get("url") if isinstance(held, dict) else part.get("image_url")
        return _picture(url, at)
    if kind == "input_audio" and isinstance(held, dict):
        return sha256(_decoded(held.get("data"), at)).hexdigest()
    file = held if kind == "file" else part if kind == "input_file" else None
    if not isinstance(file, dict):
        raise wrong(f"Invalid value: {kind!r} ({at}).", f"{at}.type")
    if isinstance(file.get("file_id"), str):
        return sha256(file["file_id"].encode()).hexdigest()
    data = file.get("file_data")
    if not isinstance(file.get("filename"), str) or not isinstance(data, str):
        raise missing(f"{at}.file.file_data")
    return sha256(_decoded(data.rpartition(";base64,")[2], at)).hexdigest()


def _picture(url: Any, at: str) -> str:
    if isinstance(url, str) and url.startswith(("https://", "http://")):
        return sha256(url.encode()).hexdigest()
    head, comma, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:image/"):
        raise wrong(f"Invalid image_url: no address and no data URL ({at}).", at, "invalid_image")
    content = _decoded(data, at)
    if media_type(content) != head.removeprefix("data:"):
        raise wrong(
            "You uploaded an unsupported image. Please make sure your image has one of the"
            f" following formats: ['png', 'jpeg', 'gif', 'webp'] ({at}).",
            at,
            "invalid_image_format",
        )
    return sha256(content).hexdigest()


def _decoded(data: Any, at: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except (Base64Error, TypeError, ValueError):
        raise wrong(f"Invalid base64 data ({at}).", at, "invalid_base64") from None
