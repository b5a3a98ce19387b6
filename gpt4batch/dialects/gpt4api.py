"""The wire format of the service that this tool was written for, as its documentation gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.base import Answer, Call, Refusal, Thread, Turn
from gpt4batch.dialects.meaning import error_text, meaning_of_error, refusal_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT, GIZMOS, UPLOAD = "chat", "gizmos", "upload"
"""The addresses of the service by name."""

PICTURE, FILE = "part", "attachment"
"""The kinds of uploads, named by the field of the reply that tells what became of one."""

UPLOAD_TYPES = {PICTURE: "multimodal", FILE: "my_files"}


class Gpt4Api:
    """Conversations that the service keeps; files go up ahead of the ask that they belong to."""

    name = "gpt4api"

    def chat(self, turn: Turn) -> Call:
        """Return the call that asks."""
        body: dict[str, Any] = {"message": turn.message, "model": turn.model}
        if turn.thread.conversation:
            body["conversation_id"] = turn.thread.conversation
        if turn.thread.parent:
            body["parent_message_id"] = turn.thread.parent
        for kind in UPLOAD_TYPES:
            if sent := turn.uploads.get(kind):
                body[f"{kind}s"] = sent
        if turn.gizmo_id:
            body["gizmo_id"] = turn.gizmo_id
        body["history_and_training_disabled"] = turn.history_disabled
        return Call(GIZMOS if turn.gizmo_id else CHAT, body, turn.message)

    def upload(self, kind: str, conversation: str) -> Call:
        """Return the call that sends a file; the file itself is the form's field `file`."""
        return Call(UPLOAD, {"conversation_id": conversation, "type": UPLOAD_TYPES[kind]})

    def uploaded(self, kind: str, reply: Mapping[str, Any]) -> tuple[Any, str]:
        """Return what an upload became, None if nothing, and the conversation it belongs to."""
        return reply.get(kind) or None, _id(reply.get("conversation_id"))

    def answer(self, reply: Mapping[str, Any], said: str = "") -> Answer | Refusal:
        """Read a reply with status 200: without `contents`, or with an error in one, it is none."""
        contents = reply.get("contents")
        if not isinstance(contents, list) or not contents:
            words = error_text(reply)
            text = f"the reply has no contents: {words}" if words else "the reply has no contents"
            return Refusal(meaning_of_error(reply, said), 200, text)
        for content in contents:
            error = content.get("error") if isinstance(content, dict) else None
            if error:
                text = f"the reply says: {error_text(error) or error}"
                return Refusal(meaning_of_error({"error": error}, said), 200, text)
        return Answer()

    def thread(self, reply: Mapping[str, Any]) -> Thread | None:
        """Return the place that the next ask follows; None where the reply does not name it.

        Ids that are missing at the top of a reply stand in its contents: those of its last message.
        """
        contents = reply.get("contents")
        contents = contents if isinstance(contents, list) else []
        items = [item for item in contents if isinstance(item, dict)]
        last = next((found for item in reversed(items) if (found := _message_id(item))), "")
        among = next((found for item in reversed(items) if (found := _conversation_id(item))), "")
        conversation, parent = (
            _conversation_id(reply) or among,
            _id(reply.get("message_id")) or last,
        )
        return Thread(conversation, parent) if conversation and parent else None

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, said: str = ""
    ) -> Refusal:
        """Read a reply with any other status."""
        return refusal_of(status, headers, body, said)


def _id(value: Any) -> str:
    """Return an id as text; what cannot be one is empty."""
    named = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if named else ""


def _conversation_id(item: Mapping[str, Any]) -> str:
    return _id(item.get("conversation_id"))


def _message_id(item: Mapping[str, Any]) -> str:
    message = item.get("message")
    return _id(message.get("id")) if isinstance(message, dict) else ""
