"""The limits of the account: calls a second, tokens a minute, answers that it can pay for."""

from __future__ import annotations

import time
from collections import deque
from email.utils import formatdate
from math import ceil
from typing import TYPE_CHECKING

from gpt4batch.mock.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.mock.settings import MockSettings

MINUTE = 60.0


class Limit:
    """Let a number of calls a second through, over a sliding window."""

    def __init__(self, per_second: float) -> None:
        self.calls = ceil(per_second)
        self._window = self.calls / per_second if per_second else 0.0
        self._passed: deque[float] = deque()

    def allows(self, moment: float) -> bool:
        """Tell whether one more call may pass at a moment, and count it if so."""
        if not self.calls:
            return True
        while self._passed and self._passed[0] <= moment - self._window:
            self._passed.popleft()
        if len(self._passed) >= self.calls:
            return False
        self._passed.append(moment)
        return True

    def state(self, moment: float) -> tuple[int, int, float]:
        """Return the limit, what is left of it, and the seconds until all of it is."""
        used = [passed for passed in self._passed if passed > moment - self._window]
        full = used[-1] + self._window - moment if used else 0.0
        return self.calls, self.calls - len(used), full


class TokenLimit:
    """Let a number of tokens a minute through, from a bucket that fills evenly.

    Source: the wording of OpenAI's refusal, https://platform.openai.com/docs/guides/rate-limits
    """

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._left = per_minute
        self._seen = 0.0

    def take(self, tokens: int, moment: float, model: str) -> None:
        """Take a call's tokens at a moment, or refuse it with the seconds to wait."""
        if not self.per_minute:
            return
        filled = self._left + (moment - self._seen) * self.per_minute / MINUTE
        self._left, self._seen = min(self.per_minute, filled), moment
        if tokens <= self._left:
            self._left -= tokens
            return
        limit, used = round(self.per_minute), round(self.per_minute - self._left)
        words = f"for {model} in organization org-mock on tokens per min (TPM): Limit {limit}"
        if tokens > self.per_minute:
            raise Refusal(
                429,
                f"Request too large {words}, Requested {tokens}.",
                code="rate_limit_exceeded",
                kind="tokens",
            )
        wait = (tokens - self._left) * MINUTE / self.per_minute
        raise Refusal(
            429,
            f"Rate limit reached {words}, Used {used}, Requested {tokens}."
            f" Please try again in {duration(wait)}.",
            {"Retry-After": str(ceil(wait)), "retry-after-ms": str(ceil(wait * 1000))},
            code="rate_limit_exceeded",
            kind="tokens",
        )

    def state(self, moment: float) -> tuple[int, int, float]:
        """Return the limit, what is left of it, and the seconds until all of it is."""
        back = (moment - self._seen) * self.per_minute / MINUTE
        left = min(self.per_minute, self._left + back)
        lacking = (self.per_minute - left) * MINUTE / self.per_minute
        return round(self.per_minute), int(left), lacking


class Quota:
    """Let a number of answers pass; then the account is empty, for a time or for good."""

    def __init__(self, answers: int, passes: float) -> None:
        self._answers = answers
        self._passes = passes
        self._from = 0
        self._empty_since = 0.0

    def used_up(self, answered: int, moment: float) -> bool:
        """Tell whether the account is empty at a moment, after so many answers in all."""
        if not self._answers or answered - self._from < self._answers:
            return False
        self._empty_since = self._empty_since or moment
        if not self._passes or moment - self._empty_since < self._passes:
            return True
        self._from, self._empty_since = answered, 0.0
        return False


def too_many(settings: MockSettings) -> Refusal:
    """Return a 429 with the Retry-After that was set."""
    headers = {}
    if settings.retry_after and settings.retry_after_date:
        headers["Retry-After"] = formatdate(ceil(time.time() + settings.retry_after), usegmt=True)
    elif settings.retry_after:
        headers["Retry-After"] = f"{settings.retry_after:g}"
    return Refusal(429, "too many requests", headers, code="rate_limit_exceeded", kind="requests")


def duration(seconds: float) -> str:
    """Return a time as Go writes it, which OpenAI's headers and refusals do: `1m2.5s`, `12ms`."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds * 1000) / 1000, MINUTE)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


RESETS: dict[str, Callable[[float], str]] = {
    "durations": duration,
    "seconds": lambda seconds: str(ceil(seconds)),
    "epoch": lambda seconds: str(ceil((time.time() + seconds) * 1000)),
}


def limit_headers(style: str, requests: Limit, tokens: TokenLimit, moment: float) -> dict[str, str]:
    """Return the headers that tell of the limits there are, in the style of some service.

    Sources: OpenAI writes durations; Azure whole seconds, or -1 for what it does not know;
    OpenRouter the millisecond since 1970, and counts requests only.
    """
    if style == "none":
        return {}
    parts = ("limit", "remaining", "reset")
    if style == "unknown":
        kinds = ("requests", "tokens")
        return {f"x-ratelimit-{part}-{kind}": "-1" for kind in kinds for part in parts}
    found = {}
    for kind, limit in (("requests", requests), ("tokens", tokens)):
        if isinstance(limit, Limit) and not limit.calls:
            continue
        if isinstance(limit, TokenLimit) and (not limit.per_minute or style == "epoch"):
            continue
        whole, left, full = limit.state(moment)
        end = "" if style == "epoch" else f"-{kind}"
        for part, value in zip(parts, (whole, left, RESETS[style](full)), strict=True):
            found[f"x-ratelimit-{part}{end}"] = str(value)
    return found
