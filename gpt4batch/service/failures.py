"""What becomes of a refusal: one table from what it means to the error that says its treatment."""

from __future__ import annotations

from gpt4batch.dialects.base import Reason, Refusal
from gpt4batch.errors import (
    AuthError,
    CallError,
    Crowded,
    Gpt4BatchError,
    QuotaError,
    RateLimited,
    RejectedError,
    RetryableError,
    ServerError,
    UnclearQuota,
)

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

EMPTY = "the account has nothing left ({text}); top it up, then run again with -f"


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
        return kind(EMPTY.format(text=text))
    if issubclass(kind, RetryableError):
        return kind(text, code=refusal.status, stage=stage, after=after)
    if issubclass(kind, CallError):
        error = kind(text, code=refusal.status, stage=stage)
        error.forgotten = FORGOTTEN.get(refusal.reason, "")
        return error
    return kind(text)


def shortened(text: str) -> str:
    """Return a text in one line that is short enough to be shown."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
