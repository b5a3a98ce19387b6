"""The shape of a chat's reply, field for field as the service writes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpt4batch.mock.digests import digest, uuid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.mock.conversations import StoredFile, Turn

FILLER = " and so on"
CITATIONS = {"name": "tether_og", "regex": "【(\\d+)(?::(\\d+))?†([^†【】]*)[^【】]*?】"}


def answer_text(message: str, sha256s: Sequence[str] = (), *, seed: int = 0, size: int = 0) -> str:
    """Return the text that answers a message: a function of its arguments alone.

    Args:
        message: What was asked.
        sha256s: Digests of its parts, then of its attachments, in their order.
        seed: The service's seed.
        size: Least length in bytes.
    """
    lines = [f"Mock answer of seed {seed} to: {message}"]
    lines += [f"sha256 {number}: {value}" for number, value in enumerate(sha256s, 1)]
    return filled("\n".join(lines), size)


def filled(text: str, size: int) -> str:
    """Return a text of at least a number of bytes."""
    lacking = size - len(text.encode("utf-8", "surrogatepass"))
    return text + FILLER * -(-lacking // len(FILLER)) if lacking > 0 else text


class Reply:
    """One reply in the making."""

    def __init__(self, turn: Turn, conversation_id: str, message_id: str) -> None:
        self.turn = turn
        self.conversation_id = conversation_id
        self.message_id = message_id
        self.now = round(time.time(), 6)

    def whole(self, text: str) -> dict[str, Any]:
        """Return the reply with its answer; downloads are the caller's to add."""
        return {
            "created": int(self.now),
            "message_id": self.message_id,
            "conversation_id": self.conversation_id,
            "end_turn": False,
            "contents": self._contents(text),
        }

    def _contents(self, text: str) -> list[dict[str, Any]]:
        ask = self.turn.ask
        parent = self._id("parent")
        if not ask.attachments:
            return [self._answer(text, parent)]
        system = self._message(
            self._id("system"),
            "system",
            {"content_type": "text", "parts": [""]},
            {"is_visually_hidden_from_conversation": True},
            create_time=None,
            end_turn=True,
            weight=0,
        )
        contents = [system, self._user()]
        parent = self._id("user")
        attached = self.turn.files[len(ask.parts) :]
        for entry, file in zip(ask.attachments, attached, strict=True):
            contents += [self._open(entry, parent), self._opened(entry, file)]
            parent = self._id("tool", entry["id"])
        return [*contents, self._answer(text, parent)]

    def _id(self, *what: str) -> str:
        return uuid_of(digest(self.message_id, *what))

    def _message(
        self,
        message_id: str,
        role: str,
        content: dict[str, Any],
        metadata: dict[str, Any],
        **other: Any,
    ) -> dict[str, Any]:
        message = {
            "author": {"metadata": {}, "name": other.get("name"), "role": role},
            "content": content,
            "create_time": other.get("create_time", self.now),
            "end_turn": other.get("end_turn"),
            "id": message_id,
            "metadata": metadata,
            "recipient": other.get("recipient", "all"),
            "status": "finished_successfully",
            "update_time": None,
            "weight": other.get("weight", 1),
        }
        return {"conversation_id": self.conversation_id, "error": None, "message": message}

    def _answer(self, text: str, parent: str) -> dict[str, Any]:
        ask = self.turn.ask
        metadata: dict[str, Any] = {
            "citations": [],
            "finish_details": {"stop_tokens": [100260], "type": "stop"},
            "gizmo_id": ask.gizmo_id,
            "is_complete": True,
            "message_type": "next",
            "model_slug": ask.model,
            "parent_id": parent,
        }
        if not ask.attachments and ask.gizmo_id is None:
            metadata["request_id"] = self._request_id()
            metadata["timestamp_"] = "absolute"
        content = {"content_type": "text", "parts": [text]}
        return self._message(self.message_id, "assistant", content, metadata, end_turn=True)

    def _request_id(self) -> str:
        return self.turn.key.hex()[:16] + "-SLC"

    def _user(self) -> dict[str, Any]:
        ask = self.turn.ask
        names = ("id", "mimeType", "name", "size")
        metadata = {
            "attachments": [{name: entry[name] for name in names} for entry in ask.attachments],
            "message_type": None,
            "request_id": self._request_id(),
            "timestamp_": "absolute",
        }
        content = {"content_type": "text", "parts": [ask.message]}
        return self._message(self._id("user"), "user", content, metadata)

    def _open(self, entry: dict[str, Any], parent: str) -> dict[str, Any]:
        content = {
            "content_type": "code",
            "language": "unknown",
            "text": f'open_url("{entry["id"]}")',
        }
        metadata = {
            "finish_details": {"stop_tokens": [100265], "type": "stop"},
            "gizmo_id": self.turn.ask.gizmo_id,
            "is_complete": True,
            "message_type": "next",
            "model_slug": self.turn.ask.model,
            "parent_id": parent,
        }
        return self._message(
            self._id("code", entry["id"]),
            "assistant",
            content,
            metadata,
            end_turn=False,
            recipient="myfiles_browser",
        )

    def _opened(self, entry: dict[str, Any], file: StoredFile) -> dict[str, Any]:
        text = f"L0: sha256 {file.sha256}\nL1: size {entry['size']}\nVisible: 0% - 100%"
        source = {"extra": None, "id": entry["id"], "name": entry["name"], "source": "my_files"}
        metadata = {
            "_cite_metadata": {
                "citation_format": CITATIONS,
                "metadata_list": [{**source, "text": text, "type": "file"}],
                "original_query": None,
            },
            "args": [entry["id"]],
            "command": "open_url",
            "is_complete": True,
            "message_type": "next",
            "model_slug": self.turn.ask.model,
            "parent_id": self._id("code", entry["id"]),
            "status": "finished",
        }
        content = {
            "assets": [],
            "content_type": "tether_browsing_display",
            "result": text,
            "summary": f"{entry['name']} ({entry['id']})\n",
        }
        return self._message(
            self._id("tool", entry["id"]),
            "tool",
            content,
            metadata,
            name="myfiles_browser",
            weight=0,
        )
