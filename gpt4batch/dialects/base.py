"""What a dialect is: how asks are put into calls, and how replies are read.

A dialect only says; it never sends, sleeps or logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(Enum):
    """What a refusal means; nothing outside the dialects looks at a service's words."""

    REJECTED = "rejected"
    """The service would refuse the same call again."""
    AUTH = "auth"
    """The token is not accepted."""
    EMPTY_ACCOUNT = "empty account"
    """There is nothing left to pay with."""
    UNCLEAR_QUOTA = "unclear quota"
    """Either the account is empty or a limit that passes was met."""
    RATE_LIMIT = "rate limit"
    """The service wants fewer calls."""
    CROWDED = "crowded"
    """The service is too busy with the calls of everybody."""
    TRANSIENT = "transient"
    """The service failed, and another attempt may succeed."""
    HISTORY_LOST = "history lost"
    """The service no longer knows the conversation."""
    UPLOAD_LOST = "upload lost"
    """The service no longer knows a file that was uploaded."""
    FILTERED = "filtered"
    """The service does not answer such a question."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply that is not an answer.

    Args:
        reason: What it means.
        status: Its HTTP status.
        words: What the service says about it, in its own words.
        after: The seconds to wait that its body or its words ask for; a header is read elsewhere.
    """

    reason: Reason
    status: int
    words: str = ""
    after: float | None = None


class Thread(NamedTuple):
    """The place in a conversation that the next ask follows."""

    conversation: str = ""
    parent: str = ""


NOWHERE = Thread()
"""The beginning of a new conversation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that answers its ask."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One ask, ready to be sent.

    Args:
        message: The question.
        model: The model that is asked.
        gizmo_id: The GPT that is asked; empty for the model itself.
        thread: Where in its conversation the ask stands.
        uploads: What the uploads of this ask became, by kind.
        history_disabled: Keep the conversation out of the account's history.
    """

    message: str
    model: str
    gizmo_id: str = ""
    thread: Thread = NOWHERE
    uploads: Mapping[str, list[Any]] = field(default_factory=dict)
    history_disabled: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the address by name, the fields to send, and the user's text among them."""

    address: str
    fields: dict[str, Any]
    said: str = ""


class Dialect(Protocol):
    """The language of one kind of service."""

    name: str

    def chat(self, turn: Turn) -> Call:
        """Return the call that asks."""

    def upload(self, kind: str, conversation: str) -> Call:
        """Return the call that sends a file, which belongs to a conversation."""

    def uploaded(self, kind: str, reply: Mapping[str, Any]) -> tuple[Any, str]:
        """Return what an upload became and the conversation it belongs to."""

    def answer(self, reply: Mapping[str, Any], said: str = "") -> Answer | Refusal:
        """Read a reply with status 200; `said` is the user's text, which it may repeat."""

    def thread(self, reply: Mapping[str, Any]) -> Thread | None:
        """Return the place that the next ask follows; None where the reply does not name it."""

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, said: str = ""
    ) -> Refusal:
        """Read a reply with any other status; `said` is the user's text, which it may repeat."""
