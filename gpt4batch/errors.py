"""Every error, grouped by what the run does with it.

Gpt4BatchError
├─ UsageError                  before any call, exit 2
│  └─ InputError               a line of the input that cannot be read
├─ FatalError                  stops the run
│  ├─ AuthError                exit 3
│  ├─ QuotaError               exit 3
│  ├─ BudgetError              exit 3
│  ├─ ServiceError             exit 3: the service only fails
│  ├─ InputChanged             exit 3
│  └─ OutputError              exit 4
├─ DefectError                 exit 4: what nobody foresaw
└─ CallError                   fails one line
   ├─ RejectedError            the service refused the call
   ├─ ReplyError               an answer that is not one
   ├─ AttachmentError          a file that cannot be sent
   ├─ DownloadError            an asset that cannot be had
   └─ RetryableError           worth another attempt
      ├─ UnclearQuota          once one call has found out whether the account is empty
      ├─ RateLimited
      ├─ ServerError
      │  └─ Crowded
      └─ NetworkError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gpt4batch.words import Message, joined, tr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.usage import Usage

NO_STATUS = 501
"""The code of a failure that had no HTTP status, as the original writes it."""

NOT_READY = 400
"""The code of a line that was not run yet; its message is `resource is not ready`."""


class Gpt4BatchError(Exception):
    """The base of all errors; its text is meant for the user and shown without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(Gpt4BatchError):
    """A setting, file or token is refused before anything was called."""

    exit_code = 2


class InputError(UsageError):
    """A line of the input cannot be used."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(tr("{path}:{line}: {reason}", path=path, line=line, reason=reason))
        self.path = path
        self.line = line
        self.reason = reason


class FatalError(Gpt4BatchError):
    """The run has to stop: going on would burn money or lose answers."""

    exit_code = 3


class AuthError(FatalError):
    """The service does not accept the token."""


class QuotaError(FatalError):
    """The account has nothing left to pay with."""


class BudgetError(FatalError):
    """The number of calls allowed by `--max-calls` is used up."""


class ServiceError(FatalError):
    """The service has only failed for too long."""


class InputChanged(FatalError):
    """The input was edited while the run was on, so that its lines are no longer known."""


class OutputError(FatalError):
    """The output cannot be written."""

    exit_code = 4


class DefectError(Gpt4BatchError):
    """Something happened that the tool does not know, while answers were at risk."""

    exit_code = 4


class CallError(Gpt4BatchError):
    """A line fails.

    Args:
        message: What happened, in the service's words where it had any.
        code: The HTTP status, or 501 where there was none.
        stage: Where in the line it happened: `input`, `attachment`, `upload`, `chat`, `reply` or
            `download`.
    """

    stage: str = "chat"

    def __init__(self, message: str, *, code: int = NO_STATUS, stage: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.attempts = 0
        self.refusal = b""  # the service's own, JSON in one line, where it gave one
        self.forgotten = ""  # what the service no longer knows: `conversation` or `upload`
        if stage is not None:
            self.stage = stage


class RejectedError(CallError):
    """The service refused the call, and would refuse it again."""


class ReplyError(CallError):
    """A reply with status 200 holds no answer.

    `reply` is its text, verbatim JSON, and `usage` what it cost all the same, if it says so.
    """

    stage = "reply"

    def __init__(self, message: str, reply: bytes, *, code: int = 200) -> None:
        super().__init__(message, code=code)
        self.reply = reply
        self.usage: Usage | None = None


class AttachmentError(CallError):
    """A picture or file of a line is missing, unreadable or too large."""

    stage = "attachment"


class DownloadError(CallError):
    """An asset of an answer cannot be had."""

    stage = "download"


class RetryableError(CallError):
    """Another attempt may succeed; `after` is what Retry-After asked for, in seconds."""

    def __init__(
        self,
        message: str,
        *,
        code: int = NO_STATUS,
        stage: str | None = None,
        after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, stage=stage)
        self.after = after


class RateLimited(RetryableError):
    """The service wants fewer calls (429)."""


class UnclearQuota(RetryableError):
    """Either the account is empty or a limit that passes was met."""


class ServerError(RetryableError):
    """The service failed (408, 409, 425, 5xx)."""


class Crowded(ServerError):
    """The service is too busy, and fewer calls would help."""


class NetworkError(RetryableError):
    """No whole reply came back: connect, reset, timeout, or a body that is cut short or no JSON."""

    timed_out = False
    """Whether nothing came within --timeout."""


SHOWN = 10
"""So many of a list of problems are shown: what follows is seldom another kind of mistake."""


def first_of(problems: Sequence[object]) -> Message:
    """Return the first ten of a list of problems, a line each, and how many more there are."""
    rows = [joined("", ("  ", problem)) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        rows.append(tr("  and {count:,} more", count=len(problems) - SHOWN))
    return joined("\n", rows)
