"""The wire format of the service that this tool was written for, as its documentation gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from gpt4batch.dialects.base import (
    CHAT,
    PLAIN_ANSWER,
    Answer,
    Call,
    Kind,
    Links,
    Message,
    Reason,
    Refusal,
    Thread,
)
from gpt4batch.dialects.limits import limits_of
from gpt4batch.dialects.meaning import error_text, meaning_of_error, refusal_of
from gpt4batch.lines.parse import BATCH, kind_of
from gpt4batch.lines.reading import listed, mapped, text_of
from gpt4batch.settings import DEFAULT_UPLOAD_URL, DEFAULT_URL, MIB
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from gpt4batch.dialects.base import Check, Fold, Turn, Upload
    from gpt4batch.dialects.limits import Limits
    from gpt4batch.lines.parse import Line
    from gpt4batch.settings import Settings

GIZMOS, UPLOAD = "gizmos", "upload"
"""The addresses of the service by name, besides that of chats."""

UPLOADED = {Kind.PICTURE: "part", Kind.FILE: "attachment"}
"""The field of a reply that says what became of an upload; in a chat it has an `s` at its end."""

UPLOAD_TYPES = {Kind.PICTURE: "multimodal", Kind.FILE: "my_files"}
EDITIONS = ("standard", "concurrent")
LINK = ("url", "download_url", "href")
"""Where an item of `downloads` that is not a text has its address."""


def _text(value: Any) -> str:
    is_text = value is None or isinstance(value, str)
    return "" if is_text else tr("must be text, not {kind}", kind=kind_of(value))


def _of_openai(value: Any) -> str:
    return tr("belongs to --api openai: gpt4api would not hear of it") if value else ""


class Gpt4Api:
    """Conversations that the service keeps; files go up ahead of the ask that they belong to."""

    name = "gpt4api"
    options: Mapping[str, Check] = {
        BATCH: _of_openai,
        "model": _text,
        "gizmo_id": _text,
        "system": _of_openai,
        "params": _of_openai,
    }
    upload_scope: Literal["thread", "inline"] = "thread"
    largest_file = 100 * MIB
    linked = True
    takes_events = takes_requests = False

    # -- addresses ---------------------------------------------------------------------------

    def addresses(self, chat: str, upload: str) -> dict[str, str]:
        """Return every address by its name; one that was left alone lies beside that of chats."""
        if chat != DEFAULT_URL and upload == DEFAULT_UPLOAD_URL:
            upload = _sibling(chat, "uploaded")
        gizmos = _sibling(chat, "gizmos") if chat == DEFAULT_URL else chat
        return {CHAT: chat, GIZMOS: gizmos, UPLOAD: upload}

    def doubts(self, addresses: Mapping[str, str], settings: Settings) -> Iterator[str]:
        """Yield what looks wrong about addresses that can be called all the same."""
        chat, upload = addresses[CHAT], addresses[UPLOAD]
        for what, part in (("hosts", _host), ("editions", _edition), ("folders", _folder)):
            if part(chat) != part(upload):
                text = tr(
                    "-u and -l name different {what}: {first} and {second}",
                    what=what,
                    first=part(chat),
                    second=part(upload),
                )
                yield tr("{text}; leave out -l to call the one beside -u", text=text)
                break

        if (last := _last(chat)) not in ("all-tools", "gizmos"):
            yield tr(
                "-u ends in /{last}; the service's addresses end in /all-tools or /gizmos",
                last=last,
            )
        if (last := _last(upload)) != "uploaded":
            yield tr(
                "-l ends in /{last}; the service's address for uploads ends in /uploaded", last=last
            )
        gizmos = addresses[GIZMOS]
        if settings.gizmo_id and _last(gizmos) != "gizmos":
            yield tr(
                "-z is set, but its calls go to {gizmos}, which is not .../gizmos", gizmos=gizmos
            )

    def defaults(self, settings: Settings) -> dict[str, Any]:
        """Return what the flags of a run say of every ask."""
        names = ("model", "gizmo_id", "history_and_training_disabled")
        return {name: getattr(settings, name) for name in names}

    def headers(self, token: str) -> dict[str, str]:
        """Return the header by which a call shows whose it is."""
        return {"authorization": f"Bearer {token}"}

    # -- calls -------------------------------------------------------------------------------

    def wrong(self, line: Line, options: Mapping[str, Any]) -> str:
        """Return what cannot be done with a line, or nothing."""
        own = line.options
        if not own and not line.manner:
            return ""
        for name, check in self.options.items():
            if name in own and (wrong := check(own[name])):
                return tr("{name} {wrong}", name=name, wrong=wrong)
        for place, ask in enumerate(line.asks):
            if wrong := _of_openai(ask.params):
                return tr("asks[{place}].params {wrong}", place=place, wrong=wrong)
        return ""

    def unfit(self, upload: Upload) -> str:
        """Return nothing: no file is a part of its ask."""
        return ""

    def fold(self) -> Fold:
        """Return nothing: replies are no streams."""
        raise NotImplementedError

    def chat(self, turn: Turn) -> Call:
        """Return the call that asks."""
        options, message = turn.options, turn.asks[-1].content
        body: dict[str, Any] = {"message": message, "model": options["model"]}
        if conversation := _conversation(turn.thread, turn.uploads):
            body["conversation_id"] = conversation
        if turn.thread.parent:
            body["parent_message_id"] = turn.thread.parent
        for kind, field in UPLOADED.items():
            if sent := [upload.note["sent"] for upload in turn.uploads if upload.kind is kind]:
                body[f"{field}s"] = sent
        gizmo = options.get("gizmo_id")
        if gizmo:
            body["gizmo_id"] = gizmo
        body["history_and_training_disabled"] = options["history_and_training_disabled"]
        return Call(GIZMOS if gizmo else CHAT, body, message)

    def upload(self, kind: Kind, thread: Thread, uploads: Iterable[Upload]) -> Call:
        """Return the call that sends a file; the file itself is the form's field `file`."""
        conversation = _conversation(thread, uploads)
        return Call(UPLOAD, {"conversation_id": conversation, "type": UPLOAD_TYPES[kind]})

    def uploaded(self, kind: Kind, reply: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        """Return what an upload became and the conversation that it belongs to."""
        if sent := reply.get(UPLOADED[kind]):
            return {"conversation_id": _id(reply.get("conversation_id")), "sent": sent}
        words = error_text(reply)
        text = tr("no {what}", what=UPLOADED[kind])
        return Refusal(
            Reason.REJECTED, 200, tr("{text}: {words}", text=text, words=words) if words else text
        )

    # -- replies -----------------------------------------------------------------------------

    def answer(self, reply: Mapping[str, Any], said: str = "", path: str = "") -> Answer | Refusal:
        """Read a reply with status 200: one needs `contents` without an error."""
        contents = reply.get("contents")
        if not isinstance(contents, list) or not contents:
            words = error_text(reply)
            text = (
                tr("the reply has no contents: {words}", words=words)
                if words
                else tr("the reply has no contents")
            )
            return Refusal(meaning_of_error(reply, said), 200, text)
        for content in contents:
            error = content.get("error") if isinstance(content, dict) else None
            if error:
                text = tr("the reply says: {words}", words=error_text(error) or error)
                return Refusal(meaning_of_error({"error": error}, said), 200, text)
        return PLAIN_ANSWER

    def thread(self, reply: Mapping[str, Any]) -> Thread | Refusal:
        """Return the place that the next ask follows.

        Ids that are missing at the top of a reply stand in its contents: those of its last message.
        """
        items = [item for item in listed(reply.get("contents")) if isinstance(item, dict)]
        messages = [_id(mapped(item.get("message")).get("id")) for item in items]
        among = [_id(item.get("conversation_id")) for item in items]
        parent = _id(reply.get("message_id")) or next(filter(None, reversed(messages)), "")
        conversation = _id(reply.get("conversation_id")) or next(filter(None, reversed(among)), "")
        if conversation and parent:
            return Thread(conversation, parent)
        return Refusal(Reason.REJECTED, 200, tr("no conversation_id or message_id"))

    def links(self, reply: Mapping[str, Any]) -> Links:
        """Return the addresses in a reply's `downloads`: texts, or objects that name one."""
        found = reply.get("downloads")
        if isinstance(found, list):
            items = found
        elif isinstance(found, str) and found.lower().startswith(("http://", "https://")):
            items = [found]
        else:
            return Links([], 1 if found else 0)

        addresses = [_address(item) for item in items]
        unread = sum(bool(item) and not text for item, text in zip(items, addresses, strict=True))
        return Links([text for text in addresses if text], unread)

    def messages(self, reply: Any) -> Iterator[Message]:
        """Yield the messages of a reply that a person wants to see."""
        for message in _messages(reply):
            author = mapped(message.get("author"))
            role = text_of(author.get("role")) or "assistant"
            hidden = mapped(message.get("metadata")).get("is_visually_hidden_from_conversation")
            if role == "user" or hidden:
                continue
            content = mapped(message.get("content"))
            parts = content.get("parts")
            if isinstance(parts, list):
                text = "\n\n".join(text_of(part) for part in parts)
            else:
                texts = (content.get(field) for field in ("text", "result", "summary"))
                text = text_of(next(filter(None, texts), None))
            if text.strip():
                yield Message(
                    role,
                    text_of(author.get("name")),
                    text_of(message.get("recipient")) or "all",
                    text_of(content.get("content_type")) or "text",
                    text_of(content.get("language")),
                    text,
                )

    def model(self, reply: Any) -> str:
        """Return the model that answered, as the first message that names one has it."""
        named = (mapped(message.get("metadata")).get("model_slug") for message in _messages(reply))
        return text_of(next(filter(None, named), None))

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, said: str = ""
    ) -> Refusal:
        """Read a reply with any other status."""
        return refusal_of(status, headers, body, said)

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Return the limits that the headers of a reply name."""
        return limits_of(headers, now)


def _conversation(thread: Thread, uploads: Iterable[Upload]) -> str:
    """Return the conversation of an ask: the first upload of a new one begins it."""
    begun = (str(upload.note.get("conversation_id") or "") for upload in uploads)
    return thread.conversation or next(filter(None, begun), "")


def _messages(reply: Any) -> Iterator[dict[str, Any]]:
    for item in listed(mapped(reply).get("contents")):
        yield mapped(mapped(item).get("message"))


def _address(item: Any) -> str:
    """Return the address that an item of `downloads` is, or names; or an empty text."""
    named = [item.get(name) for name in LINK] if isinstance(item, dict) else [item]
    return next((text for text in named if isinstance(text, str) and text), "")


def _id(value: Any) -> str:
    """Return an id as text; what cannot be one is empty."""
    named = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if named else ""


def _sibling(url: str, name: str) -> str:
    """Return the address with its last part replaced."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"{_folder(url)}/{name}", "", ""))


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _edition(url: str) -> str:
    return next((name for name in EDITIONS if f"/{name}/" in url), "neither")


def _folder(url: str) -> str:
    return urlsplit(url).path.rstrip("/").rpartition("/")[0]


def _last(url: str) -> str:
    return urlsplit(url).path.rstrip("/").rpartition("/")[2]
