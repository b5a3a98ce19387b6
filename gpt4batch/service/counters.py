"""What an executor of lines has done so far, for the summary, the display and the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """The calls of a run and what they brought.

    Args:
        calls: Chats and uploads, tries again included.
        uploads: The uploads among them.
        unanswered: Chats whose reply never arrived: they may be paid for.
        in_flight: Calls without a reply at this moment.
        longest: Seconds that the oldest of these has been waiting.
        downloads: Files downloaded.
        download_bytes: Their size.
    """

    calls: int = 0
    uploads: int = 0
    unanswered: int = 0
    in_flight: int = 0
    longest: float = 0.0
    downloads: int = 0
    download_bytes: int = 0
