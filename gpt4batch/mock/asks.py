"""The body of a chat: read strictly, every mistake named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gpt4batch.mock.refusal import Refusal

TEXT = "a string"
LIST = "a list of objects"
SWITCH = "true or false"
FIELDS = {
    "message": TEXT,
    "model": TEXT,
    "conversation_id": TEXT,
    "parent_message_id": TEXT,
    "parts": LIST,
    "attachments": LIST,
    "gizmo_id": TEXT,
    "history_and_training_disabled": SWITCH,
}
REQUIRED = ("message", "model")


@dataclass(frozen=True, slots=True)
class Ask:
    """One chat call."""

    message: str
    model: str
    conversation_id: str
    parent: str
    parts: list[dict[str, Any]]
    attachments: list[dict[str, Any]]
    gizmo_id: str | None


def parse_json(body: bytes) -> Any:
    """Return the body as JSON, or refuse it."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is no JSON: {error}") from error


def parse_ask(body: bytes, *, gizmo: bool) -> Ask:
    """Return the ask in a body, or refuse it; `gizmo` says whether a gizmo_id is needed."""
    given = parse_json(body)
    if not isinstance(given, dict):
        raise Refusal(400, "the body must be a JSON object")
    for name, value in given.items():
        _check(name, value)
    for name in REQUIRED:
        if given.get(name) is None:
            raise Refusal(422, f"{name} is missing")
    parts, attachments = given.get("parts") or [], given.get("attachments") or []
    if not given["message"] and not parts and not attachments:
        raise Refusal(422, "message is empty")
    if gizmo and not given.get("gizmo_id"):
        raise Refusal(422, "gizmo_id is missing")
    return Ask(
        given["message"],
        given["model"],
        given.get("conversation_id") or "",
        given.get("parent_message_id") or "",
        parts,
        attachments,
        given.get("gizmo_id") or None,
    )


def _check(name: str, value: Any) -> None:
    kind = FIELDS.get(name)
    if kind is None:
        raise Refusal(422, f"unknown field {name!r}")
    wanted = {TEXT: str, SWITCH: bool}.get(kind, list)
    fits = isinstance(value, wanted)
    if wanted is list and fits:
        fits = all(isinstance(item, dict) for item in value)
    if value is not None and not fits:
        raise Refusal(422, f"{name} must be {kind}")
