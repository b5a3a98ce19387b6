"""Chat completions, as OpenAI's openapi.yaml gives them and services all over have them.

The service remembers nothing: each call has the whole conversation in it, out of our own log.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from gpt4batch.dialects.base import (
    BASE,
    CHAT,
    NOWHERE,
    Answer,
    Call,
    Kind,
    Links,
    Message,
    Reason,
    Refusal,
)
from gpt4batch.dialects.limits import limits_of
from gpt4batch.dialects.meaning import error_text, meaning_of_error, refusal_of, status_in
from gpt4batch.dialects.openai_stream import Fold, looks_like_events
from gpt4batch.dialects.services import ANY, Service, advice
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BATCH, kind_of
from gpt4batch.lines.pictures import media_type, picture_format
from gpt4batch.lines.reading import listed, mapped, text_of
from gpt4batch.settings import DEFAULT_FAIL_ON, DEFAULT_MODEL, DEFAULT_UPLOAD_URL, DEFAULT_URL, MIB
from gpt4batch.usage import usage_of
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from gpt4batch.dialects.base import Check, Thread, Turn, Upload
    from gpt4batch.dialects.limits import Limits
    from gpt4batch.lines.parse import Line
    from gpt4batch.settings import Settings

VERSION = re.compile(r"^/v\d+\w*/")
COMPLETIONS = "/chat/completions"
OURS = {"messages": tr("it is made of the asks"), "stream": tr("set --stream")}
"""Fields of the body that are not the user's to set."""

SAID = ("role", "content", "refusal", "tool_calls", "function_call")
"""The fields of an answer's message that the next ask repeats."""

REASONING = ("reasoning_content", "reasoning")
ADDRESSES = ("http://", "https://", "data:")
PICTURES = "PNG, JPEG, GIF and WebP"
NOT_A_MODEL = tr("no model is named: set -m, or give the line a model")


def _text(value: Any) -> str:
    is_text = value is None or isinstance(value, str)
    return "" if is_text else tr("must be text, not {kind}", kind=kind_of(value))


def _named(model: Any) -> str:
    """Return a model that was named; the original's, which is the default, is none here."""
    return "" if model == DEFAULT_MODEL else model or ""


def _object(value: Any) -> str:
    if value is not None and not isinstance(value, dict):
        return tr("must be an object, not {kind}", kind=kind_of(value))
    ours = next((name for name in value or () if name in OURS), "")
    return tr("must not have {ours}: {reason}", ours=ours, reason=OURS[ours]) if ours else ""


def _of_gpt4api(value: Any) -> str:
    return tr("belongs to --api gpt4api: services of --api openai have none") if value else ""


class OpenAI:
    """Conversations that are sent whole with each ask, pictures and files in them.

    Args:
        service: What is known of the service.
        fail_on: What makes a reply no answer: of `empty`, `content_filter` and `length`.
        stream: Ask for a stream.
        url: The service's address.
    """

    name = "openai"
    options: Mapping[str, Check] = {
        "model": _text,
        "system": _text,
        "params": _object,
        "gizmo_id": _of_gpt4api,
    }
    upload_scope: Literal["thread", "inline"] = "inline"
    largest_file = 50 * MIB  # of a whole body: OpenAI's guides on images and on files
    linked = False
    takes_events = takes_requests = True

    def __init__(
        self,
        service: Service = ANY,
        fail_on: Collection[str] = DEFAULT_FAIL_ON.split(","),
        *,
        stream: bool = False,
        url: str = DEFAULT_URL,
    ) -> None:
        self._service = service
        self._fail_on = frozenset(fail_on)
        self._folder = urlsplit(self.addresses(url, "")[BASE]).path
        self._asked: dict[str, Any] = {}
        if stream:
            self._asked = {"stream": True, "stream_options": {"include_usage": True}}

    # -- addresses ---------------------------------------------------------------------------

    def addresses(self, chat: str, upload: str) -> dict[str, str]:
        """Return the address of chats and their folder, given either."""
        parts = urlsplit(chat)
        path = "/v1" if chat == DEFAULT_URL else parts.path.rstrip("/")
        base = path.removesuffix(COMPLETIONS)
        found = {CHAT: base + COMPLETIONS, BASE: base}
        return {name: urlunsplit(parts._replace(path=path)) for name, path in found.items()}

    def doubts(self, addresses: Mapping[str, str], settings: Settings) -> Iterator[str]:
        """Yield what looks wrong about addresses that can be called all the same."""
        if settings.upload_url != DEFAULT_UPLOAD_URL:
            yield tr("-l is not used: pictures and files are sent inside the requests, to -u")

    def defaults(self, settings: Settings) -> dict[str, Any]:
        """Return what the flags of a run say of every ask."""
        return {"model": _named(settings.model)}

    def headers(self, token: str) -> dict[str, str]:
        """Return the headers by which a call shows whose it is; none without a key."""
        if not token:
            return {}
        is_jwt = token.startswith("eyJ") and token.count(".") == 2  # of Entra, at Azure
        if self._service.key_header and not is_jwt:
            return {self._service.key_header: token}
        return {"authorization": f"Bearer {token}"}

    # -- calls -------------------------------------------------------------------------------

    def wrong(self, line: Line, options: Mapping[str, Any]) -> str:
        """Return what cannot be done with a line."""
        own = line.options
        if BATCH in own:
            return ""  # its format has looked at it
        for name, check in self.options.items() if own else ():
            if name in own and (wrong := check(own[name])):
                return tr("{name} {wrong}", name=name, wrong=wrong)
        for place, ask in enumerate(line.asks) if line.manner else ():
            if wrong := _object(ask.params):
                return tr("asks[{place}].params {wrong}", place=place, wrong=wrong)
        named = (
            _named(options.get("model"))
            or own.get("model")
            or mapped(own.get("params")).get("model")
        )
        if not named and not all(mapped(ask.params).get("model") for ask in line.asks):
            return NOT_A_MODEL
        return ""

    def unfit(self, upload: Upload) -> str:
        """Return why a file cannot be a part of its ask, or nothing."""
        if upload.kind is Kind.FILE or "head" not in upload.note or media_type(upload.note["head"]):
            return ""
        known = picture_format(upload.note["head"])
        what = tr("is {known}", known=known) if known else tr("does not begin like a picture")
        return tr(
            "{what}, and services take {pictures}; other files belong in files",
            what=what,
            pictures=PICTURES,
        )

    def chat(self, turn: Turn) -> Call:
        """Return the call that asks."""
        if turn.request is not None:
            return self._request(*turn.request, turn)
        system = turn.options.get("system")
        messages: list[dict[str, Any]] = []
        if system:
            messages.append({"role": "system", "content": system})
        uploads = iter(turn.uploads)
        for place, ask in enumerate(turn.asks):
            parts = [_part(next(uploads)) for _ in (*ask.images, *ask.files)]
            if parts and ask.content.strip():
                parts.insert(0, {"type": "text", "text": ask.content})
            messages.append({"role": "user", "content": parts or ask.content})
            if place < len(turn.answers):
                messages.append(self._said(rawjson.loads(turn.answers[place])))
        body = {"model": turn.options.get("model"), "messages": messages, **self._asked}
        body |= {name: rawjson.Fragment(text) for name, text in turn.params.items()}
        said = [ask.content for ask in turn.asks]
        return Call(CHAT, body, "\n".join([system, *said] if system else said))

    def _request(self, url: str, body: bytes, turn: Turn) -> Call:
        """Return a request that is passed on as it stands; only a model may be missing in it.

        Its path has the version of OpenAI's own addresses; other services have other folders.
        """
        path = VERSION.sub("/", url) if self._folder else url
        added = {} if rawjson.loads(body).get("model") else {"model": turn.options.get("model")}
        if path.endswith(COMPLETIONS):
            added |= self._asked
        if added:
            given = {name: text for name, text in rawjson.members(body) if name not in added}
            fields = {name: rawjson.Fragment(text) for name, text in given.items()}
            body = rawjson.dumps(added | fields)
        return Call(BASE, {}, turn.asks[-1].content, path, body)

    def _said(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return the message of an answer, as the next ask repeats it."""
        first = next(iter(listed(reply.get("choices"))), None)
        message = mapped(mapped(first).get("message"))
        said = {name: message[name] for name in SAID if message.get(name)}
        if self._service.wants_reasoning and said.get("tool_calls"):
            said |= {name: message[name] for name in REASONING if message.get(name)}
        return {"role": "assistant", "content": None if "tool_calls" in said else ""} | said

    def fold(self) -> Fold:
        """Return what folds a reply that is a stream."""
        return Fold()

    def upload(self, kind: Kind, thread: Thread, uploads: Iterable[Upload]) -> Call:
        """Return nothing: files are a part of their ask."""
        raise NotImplementedError

    def uploaded(self, kind: Kind, reply: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        """Return nothing: files are a part of their ask."""
        raise NotImplementedError

    # -- replies -----------------------------------------------------------------------------

    def answer(self, reply: Mapping[str, Any], said: str = "", path: str = "") -> Answer | Refusal:
        """Read a reply with status 200: one needs a choice, without an error."""
        if path and not path.endswith(COMPLETIONS):
            return self._other_answer(reply, said)
        usage = usage_of(reply.get("usage"))
        choices = [mapped(choice) for choice in listed(reply.get("choices"))]
        error = reply.get("error") or next(
            filter(None, (one.get("error") for one in choices)), None
        )
        if error or not choices:
            doc = {"error": error} if error else reply
            words = error_text(doc)
            text = tr("the reply says") if error else tr("the reply has no choices")
            text = tr("{text}: {words}", text=text, words=words) if words else text
            meaning = meaning_of_error(doc, said, status_in(doc), self._service)
            return Refusal(_without_memory(meaning), 200, text, usage=usage)
        wrong = [self._not_an_answer(choice) for choice in choices]
        if wrong[0] is not None and all(wrong):
            return replace(wrong[0], usage=usage)
        finish, model = text_of(choices[0].get("finish_reason")), text_of(reply.get("model"))
        return Answer(usage, finish, model)

    def _other_answer(self, reply: Mapping[str, Any], said: str) -> Answer | Refusal:
        """Read a reply to anything but a chat: any object will do that tells of no failure."""
        failed, usage = reply.get("status") in ("failed", "cancelled"), usage_of(reply.get("usage"))
        if reply.get("error") or failed:
            doc = {"error": reply.get("error") or reply}
            words = error_text(doc) or text_of(reply.get("status"))
            meaning = meaning_of_error(doc, said, status_in(doc), self._service)
            text = tr("the reply says: {words}", words=words)
            return Refusal(_without_memory(meaning), 200, text, usage=usage)
        choices = listed(reply.get("choices"))  # of legacy completions
        if "choices" in reply and not choices:
            meaning = meaning_of_error(reply, said, status_in(reply), self._service)
            text = tr("the reply has no choices")
            return Refusal(_without_memory(meaning), 200, text, usage=usage)
        finish = text_of(mapped(reply.get("incomplete_details")).get("reason"))
        finish = finish or text_of(mapped(choices[0]).get("finish_reason") if choices else "")
        if finish == "content_filter" and finish in self._fail_on:
            text = tr("the service's filter ended the answer")
            return Refusal(Reason.FILTERED, 200, text, usage=usage)
        return Answer(usage, finish, text_of(reply.get("model")))

    def _not_an_answer(self, choice: dict[str, Any]) -> Refusal | None:
        """Return why a choice does not answer."""
        finish = text_of(choice.get("finish_reason"))
        if finish == "content_filter" and finish in self._fail_on:
            text = tr("the service's filter ended the answer (finish_reason content_filter)")
            return Refusal(Reason.FILTERED, 200, text)
        if finish == "length" and finish in self._fail_on:
            text = tr("the answer was cut off at the limit of tokens (finish_reason length)")
            return Refusal(Reason.REJECTED, 200, text)
        message = mapped(choice.get("message"))
        told = (message.get(name) for name in (*SAID[1:], "audio"))
        if "empty" in self._fail_on and not any(map(_has_text, told)):
            why = tr(" (finish_reason {finish})", finish=finish) if finish else ""
            return Refusal(Reason.REJECTED, 200, tr("the answer is empty{why}", why=why))
        return None

    def thread(self, reply: Mapping[str, Any]) -> Thread | Refusal:
        """Return no place: the service keeps no conversation."""
        return NOWHERE

    def links(self, reply: Mapping[str, Any]) -> Links:
        """Return no links: replies have none."""
        return Links([])

    def messages(self, reply: Any) -> Iterator[Message]:
        """Yield what the choices of a reply say: reasoning, text, refusal and calls of tools."""
        for choice in listed(mapped(reply).get("choices")):
            message = mapped(mapped(choice).get("message"))
            role = text_of(message.get("role")) or "assistant"
            for name in REASONING:
                if text := text_of(message.get(name)):
                    yield Message(role, "", "reasoning", "reasoning", "", text)
            for name, kind in (("content", "text"), ("refusal", "refusal")):
                if text := _content(message.get(name)):
                    yield Message(role, "", "all", kind, "", text)
            for call in listed(message.get("tool_calls")):
                function = mapped(mapped(call).get("function") or mapped(call).get("custom"))
                text = text_of(function.get("arguments") or function.get("input"))
                yield Message(role, "", text_of(function.get("name")), "code", "json", text)

    def model(self, reply: Any) -> str:
        """Return the model that answered."""
        doc = mapped(reply)
        return text_of(doc.get("model")) if "choices" in doc else ""

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, said: str = ""
    ) -> Refusal:
        """Read a reply with any other status."""
        if looks_like_events(body):
            fold = Fold()
            fold.feed(body)
            fold.close()
            body = fold.reply()
        found = refusal_of(status, headers, body, said, self._service)
        reason = _without_memory(found.reason)
        return Refusal(reason, status, found.words, found.after, advice(status, found.words))

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Return the limits that the headers of a reply name."""
        return limits_of(headers, now)


def is_address(path: str) -> bool:
    """Return whether a picture is an address that the service fetches, or has in itself."""
    return path[:8].lower().startswith(ADDRESSES)


def _part(upload: Upload) -> dict[str, Any]:
    """Return the part of a message that a picture or file is."""
    path = upload.note["path"]
    if "head" not in upload.note:
        return {"type": "image_url", "image_url": {"url": path}}
    name = path.rpartition("/")[2]
    picture = upload.kind is Kind.PICTURE
    kind = media_type(upload.note["head"]) if picture else mimetypes.guess_type(name)[0]
    kind = kind or "application/octet-stream"
    data = rawjson.Fragment(b'"data:%s;base64,%s"' % (kind.encode(), upload.note["base64"]))
    if picture:
        return {"type": "image_url", "image_url": {"url": data}}
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _has_text(value: Any) -> bool:
    return bool(_content(value).strip()) if isinstance(value, str | list) else bool(value)


def _content(value: Any) -> str:
    """Return the text of a message's content, which may be a list of parts."""
    if not isinstance(value, list):
        return text_of(value)
    parts = [part if isinstance(part, str) else mapped(part).get("text") for part in value]
    return "\n\n".join(text for text in map(text_of, parts) if text) or text_of(value or None)


def _without_memory(reason: Reason) -> Reason:
    """Return what a refusal means at a service that keeps nothing that it could forget."""
    forgot = reason in (Reason.HISTORY_LOST, Reason.UPLOAD_LOST)
    return Reason.REJECTED if forgot else reason
