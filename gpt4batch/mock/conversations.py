"""What the service remembers: conversations and the files that belong to them.

Both are bounded: the oldest are forgotten, and then as unknown as if they had never been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gpt4batch.mock.digests import digest, letters_of, uuid_of
from gpt4batch.mock.recent import Recent, count
from gpt4batch.mock.refusal import Refusal
from gpt4batch.mock.uploads import media_type_of, picture_of

if TYPE_CHECKING:
    from gpt4batch.mock.asks import Ask
    from gpt4batch.mock.uploads import Form


@dataclass(slots=True)
class Conversation:
    """A conversation; its id changes once, with the first answer, when it began with an upload."""

    id: str
    last: str = ""
    """The id of the last message; empty before the first answer."""
    key: bytes = b""
    """The digest of the ask that got the last message."""


@dataclass(slots=True)
class StoredFile:
    """An upload: what was said of it, sorted, its digest, and the conversation it belongs to."""

    entry: bytes
    sha256: str
    owner: Conversation | None


@dataclass(frozen=True, slots=True)
class Turn:
    """An ask that fits into its conversation, ready to be answered."""

    ask: Ask
    conversation: Conversation | None
    files: list[StoredFile]
    key: bytes
    again: bool
    """The same ask as the conversation's last one: its answer got lost on the way."""


class Memory:
    """The conversations and files that the service knows."""

    def __init__(self, seed: int, history: int) -> None:
        self._seed = seed
        self._conversations: Recent[str, Conversation] = Recent(history)
        self._files: Recent[str, StoredFile] = Recent(history)
        self._uploads: Recent[bytes, int] = Recent(history)

    def find(self, conversation_id: str) -> Conversation:
        """Return a conversation that is known, or refuse."""
        conversation = self._conversations.get(conversation_id)
        if conversation is None:
            raise Refusal(404, f"conversation {conversation_id} not found")
        return conversation

    def describe(self, form: Form) -> dict[str, Any]:
        """Return what an upload's reply says of the file, but for its id; or refuse the file."""
        if form.type == "multimodal":
            media_type, width, height = picture_of(form)
            return {
                "name": form.name,
                "asset_pointer": "",
                "size_bytes": form.size,
                "width": width,
                "height": height,
                "mimeType": media_type,
            }
        return {"id": "", "name": form.name, "size": form.size, "mimeType": media_type_of(form)}

    def store(self, form: Form, entry: dict[str, Any], key: bytes) -> dict[str, Any]:
        """Remember an upload and return its reply."""
        fresh = digest(key, count(self._uploads, key))
        file_id = "file-" + letters_of(fresh, 24)
        if form.conversation_id:
            conversation = self.find(form.conversation_id)
        else:
            conversation = Conversation("internal-" + letters_of(digest(fresh), 22))
            self._conversations.put(conversation.id, conversation)
        picture = form.type == "multimodal"
        pointer = f"file-service://{file_id}" if picture else file_id
        entry["asset_pointer" if picture else "id"] = pointer
        owner = conversation if form.conversation_id else None
        stored = StoredFile(_sorted(entry), form.sha256, owner)
        self._files.put(pointer, stored)
        return {
            "conversation_id": conversation.id,
            "attachment": None if picture else entry,
            "part": entry if picture else None,
        }

    def turn(self, ask: Ask) -> Turn:
        """Fit an ask into its conversation, or refuse it."""
        conversation = self.find(ask.conversation_id) if ask.conversation_id else None
        if conversation is None and ask.parent:
            raise Refusal(400, "parent_message_id without conversation_id")
        files = [self._file(entry, "asset_pointer", conversation) for entry in ask.parts]
        files += [self._file(entry, "id", conversation) for entry in ask.attachments]
        shas = [file.sha256 for file in files]
        key = digest(self._seed, "ask", ask.parent, ask.message, ask.gizmo_id, *shas)
        again = conversation is not None and conversation.key == key
        if conversation is not None and not again and conversation.last != ask.parent:
            raise Refusal(
                409,
                f"parent_message_id is {ask.parent or 'missing'}, but the last message of"
                f" conversation {conversation.id} is {conversation.last or 'not there yet'}",
            )
        return Turn(ask, conversation, files, key, again)

    def _file(
        self, entry: dict[str, Any], name: str, conversation: Conversation | None
    ) -> StoredFile:
        what = "parts" if name == "asset_pointer" else "attachments"
        pointer = entry.get(name)
        stored = self._files.get(pointer) if isinstance(pointer, str) else None
        if stored is None:
            raise Refusal(400, f"{what}: {name} {pointer!r} was never uploaded")
        if stored.entry != _sorted(entry):
            raise Refusal(400, f"{what}: {pointer} is not described as its upload's reply did")
        if stored.owner is not None and stored.owner is not conversation:
            raise Refusal(400, f"{what}: {pointer} belongs to another conversation")
        return stored

    def ids(self, turn: Turn, before: int) -> tuple[str, str]:
        """Return the ids of conversation and message that the answer will have.

        Args:
            turn: The turn to answer.
            before: How often the same ask was answered before.
        """
        conversation = turn.conversation
        if conversation is not None and turn.again:
            return conversation.id, conversation.last
        fresh = digest(turn.key, before if conversation is None or not conversation.last else 0)
        if conversation is not None and conversation.last:
            return conversation.id, uuid_of(fresh)
        return uuid_of(digest(fresh, "conversation")), uuid_of(fresh)

    def advance(self, turn: Turn, conversation_id: str, message_id: str) -> None:
        """Remember that the turn was answered."""
        conversation = turn.conversation
        if conversation is None:
            conversation = Conversation(conversation_id)
        conversation.id = conversation_id
        conversation.last = message_id
        conversation.key = turn.key
        self._conversations.put(conversation_id, conversation)
        for file in turn.files:
            file.owner = conversation


def _sorted(entry: dict[str, Any]) -> bytes:
    return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)
