"""What a dialect is: how asks are put into calls, and how replies are read.

A dialect only says; it never sends, sleeps or logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gpt4batch.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from gpt4batch.dialects.limits import Limits
    from gpt4batch.lines.parse import Ask, Line
    from gpt4batch.settings import Settings

    Check = Callable[[Any], str]


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
        advice: What to do about it.
        usage: What it cost all the same, where it says so.
    """

    reason: Reason
    status: int
    words: str = ""
    after: float | None = None
    advice: str = ""
    usage: Usage | None = None


CHAT, BASE = "chat", "base"
"""What every dialect calls the address of chats, and one the folder that all addresses are in."""


class Thread(NamedTuple):
    """The place in a conversation that the next ask follows."""

    conversation: str = ""
    parent: str = ""


NOWHERE = Thread()
"""The beginning of a new conversation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that answers its ask.

    Args:
        usage: What it cost; None where the reply does not say.
        finish: Why it ends where it ends, in the service's word; empty where it does not say.
        model: The model that answered, in the service's word; empty where it does not say.
    """

    usage: Usage | None = None
    finish: str = ""
    model: str = ""


PLAIN_ANSWER = Answer()
"""An answer that tells nothing about itself."""


class Links(NamedTuple):
    """The files that a reply links to, and how many of its links have no address."""

    addresses: list[str]
    unread: int = 0


REASONING, REFUSAL = "reasoning", "refusal"
"""The kinds of messages that are no answer's text."""


class Message(NamedTuple):
    """One message of a reply: who says it to whom, as what, and its text.

    Args:
        role: `assistant`, or `tool` for what a tool gave back.
        name: The tool that gave it back.
        recipient: `all` for the user, else the tool that is called.
        kind: `text`, `code`, `reasoning` for the way to an answer, `refusal` for none.
        language: That of code.
        text: What is said.
    """

    role: str
    name: str
    recipient: str
    kind: str
    language: str
    text: str


class Kind(Enum):
    """What an ask can have attached."""

    PICTURE = "picture"
    FILE = "file"


class Upload(NamedTuple):
    """A file that is sent, with what is known of it.

    That is the note that the dialect made of the reply to its upload. Where files are a part of
    their ask it is the `path`, and unless that is an address, the `head` of the content (its first
    bytes) and all of it in `base64`.
    """

    kind: Kind
    note: Mapping[str, Any]


NO_PARAMS: Mapping[str, bytes] = MappingProxyType({})


class Turn(NamedTuple):
    """One ask, ready to be sent.

    Args:
        asks: The asks of its line up to this one, which is the last.
        answers: The replies to the asks before it, as they came.
        options: What the run's flags and the line set of the dialect's options.
        thread: Where in its conversation the ask stands.
        uploads: The files of this ask; of all `asks`, in order, where they are a part of their ask.
        params: The text of each field that the line and the ask add to the body.
        request: The path and the body of a request that is to be passed on as it stands.
    """

    asks: Sequence[Ask]
    answers: Sequence[bytes]
    options: Mapping[str, Any]
    thread: Thread = NOWHERE
    uploads: Sequence[Upload] = ()
    params: Mapping[str, bytes] = NO_PARAMS
    request: tuple[str, bytes] | None = None


class Call(NamedTuple):
    """One call.

    Args:
        address: The address to call, by name.
        fields: What is sent.
        said: The user's text among it.
        path: What follows the address, with its slash; empty where that is the whole address.
        body: The text that is sent instead of `fields`.
    """

    address: str
    fields: dict[str, Any]
    said: str = ""
    path: str = ""
    body: bytes | None = None


class Fold(Protocol):
    """A stream of events that becomes one reply."""

    count: int
    """How many events have come; what only keeps the connection open is none."""
    damage: str
    """What of them cannot be read, in words, or empty."""

    @property
    def ended(self) -> bool:
        """Return whether the stream has come to its end, by its own word."""

    def feed(self, piece: bytes) -> None:
        """Take the bytes that have come."""

    def close(self) -> None:
        """Take what has come without the end of its line."""

    def reply(self) -> bytes:
        """Return the reply that the stream amounts to."""


class Dialect(Protocol):
    """The language of one kind of service."""

    name: str
    options: Mapping[str, Check]
    """The keys of a line that go to the service; each check returns what is wrong with a value."""
    upload_scope: Literal["thread", "inline"]
    """Whether files are uploaded ahead of their ask or are a part of it."""
    largest_file: int
    """The most bytes that an attachment may have."""
    linked: bool
    """Whether replies may link to files."""
    takes_events: bool
    """Whether a reply may be a stream of events."""
    takes_requests: bool
    """Whether requests of batch files can be passed on."""

    def addresses(self, chat: str, upload: str) -> dict[str, str]:
        """Return every address to call by its name, given those that the user named."""

    def defaults(self, settings: Settings) -> dict[str, Any]:
        """Return what the flags of a run say of every ask; a line's own options come before it."""

    def doubts(self, addresses: Mapping[str, str], settings: Settings) -> Iterator[str]:
        """Yield what looks wrong about addresses that can be called all the same."""

    def wrong(self, line: Line, options: Mapping[str, Any]) -> str:
        """Return what cannot be done with a line, given the options of the run; else nothing."""

    def unfit(self, upload: Upload) -> str:
        """Return why a file cannot be a part of its ask, or nothing."""

    def headers(self, token: str) -> dict[str, str]:
        """Return the headers by which a call shows whose it is."""

    def fold(self) -> Fold:
        """Return what folds a reply that is a stream."""

    def chat(self, turn: Turn) -> Call:
        """Return the call that asks."""

    def upload(self, kind: Kind, thread: Thread, uploads: Iterable[Upload]) -> Call:
        """Return the call that sends a file, `uploads` being those of the same ask before it."""

    def uploaded(self, kind: Kind, reply: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        """Return what to remember of an upload by the reply to it."""

    def answer(self, reply: Mapping[str, Any], said: str = "", path: str = "") -> Answer | Refusal:
        """Read a reply with status 200.

        Args:
            reply: The reply.
            said: The user's text, which it may repeat.
            path: Where the call went, if not to the address of chats.
        """

    def thread(self, reply: Mapping[str, Any]) -> Thread | Refusal:
        """Return the place that the next ask follows, or what the reply lacks to name it."""

    def links(self, reply: Mapping[str, Any]) -> Links:
        """Return the files that a reply links to."""

    def messages(self, reply: Any) -> Iterator[Message]:
        """Yield what a person wants to see of a reply; nothing where it is another dialect's."""

    def model(self, reply: Any) -> str:
        """Return the model that answered, by its own word; empty where the reply does not say."""

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, said: str = ""
    ) -> Refusal:
        """Read a reply with any other status; `said` is the user's text, which it may repeat."""

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Return the limits that the headers of a reply name."""
