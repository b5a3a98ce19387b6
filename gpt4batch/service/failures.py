"""The one place where refusals and lost connections become errors, which say their treatment."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from gpt4batch.dialects.base import Reason, Refusal
from gpt4batch.errors import (
    AuthError,
    CallError,
    Crowded,
    Gpt4BatchError,
    NetworkError,
    QuotaError,
    RateLimited,
    RejectedError,
    RetryableError,
    ServerError,
    UnclearQuota,
)
from gpt4batch.words import Message, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOWN = 300
"""How much of a service's own words goes into a message, in characters."""

TREATMENT: dict[Reason, type[Gpt4BatchError]] = {
    Reason.REJECTED: RejectedError,
    Reason.FILTERED: RejectedError,
    Reason.HISTORY_LOST: RejectedError,
    Reason.UPLOAD_LOST: RejectedError,
    Reason.AUTH: AuthError,
    Reason.EMPTY_ACCOUNT: QuotaError,
    Reason.UNCLEAR_QUOTA: UnclearQuota,
    Reason.RATE_LIMIT: RateLimited,
    Reason.CROWDED: Crowded,
    Reason.TRANSIENT: ServerError,
}
FORGOTTEN = {Reason.HISTORY_LOST: "conversation", Reason.UPLOAD_LOST: "upload"}
"""What a service that no longer knows something has forgotten."""

EMPTY = tr("the account has nothing left ({text}); top it up, then run again with -f")


def failure(refusal: Refusal, text: str, stage: str, after: float | None) -> Gpt4BatchError:
    """Return the error of a refusal.

    Args:
        refusal: What the service means.
        text: Its status and its words, as they may be shown.
        stage: Which call it was.
        after: The seconds that the service asks to wait.
    """
    kind = TREATMENT[refusal.reason]
    if issubclass(kind, QuotaError):
        return kind(EMPTY.filled(text=text))
    if issubclass(kind, RetryableError):
        return kind(text, code=refusal.status, stage=stage, after=after)
    if issubclass(kind, CallError):
        error = kind(text, code=refusal.status, stage=stage)
        error.forgotten = FORGOTTEN.get(refusal.reason, "")
        return error
    return kind(text)


@contextmanager
def calling(stage: str, told: Callable[[str], str] = str) -> Iterator[None]:
    """Turn a connection that is lost in the block into an error.

    Args:
        stage: Which call it is.
        told: Makes the message out of what happened.

    Raises:
        NetworkError: There is no whole response.
    """
    try:
        yield
    except httpx.HTTPError as error:
        lost = NetworkError(told(str(error) or repr(error)), stage=stage)
        lost.timed_out = isinstance(error, httpx.ReadTimeout)
        raise lost from error


def shortened(text: str) -> str:
    """Return a text in one line that is short enough to be shown; a message is short as it is."""
    if isinstance(text, Message):
        return text.without(shortened)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
