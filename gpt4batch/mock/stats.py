"""What the service saw: calls, windows, concurrency, answers given twice, faults."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from gpt4batch.mock.recent import Recent, count

EXAMPLES = 10
SECONDS_KEPT = 100_000


class Stats:
    """Counters that cost little to keep and are read as one dict."""

    def __init__(self, history: int) -> None:
        self.calls: Counter[tuple[str, int]] = Counter()
        self.by_second: dict[int, int] = {}
        self.arrivals = 0
        self.worst_window = 0
        self.first_arrival = 0.0
        self.last_arrival = 0.0
        self.now = 0
        self.peak = 0
        self.abandoned = 0
        self.chats_answered = 0
        self.uploads_answered = 0
        self.answered_twice = 0
        self.twice_examples: list[dict[str, Any]] = []
        self.refusals: deque[dict[str, Any]] = deque(maxlen=EXAMPLES)
        self.faults: Counter[str] = Counter()
        self.tokens_issued = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.downloads = 0
        self.downloads_ranged = 0
        self.downloads_with_authorization = 0
        self._window: deque[float] = deque()
        self._answered: Recent[bytes, int] = Recent(history)

    def arrive(self, moment: float) -> None:
        """Note that an upload or chat came in at a moment; `leave` must follow."""
        window = self._window
        while window and window[0] <= moment - 1:
            window.popleft()
        window.append(moment)
        self.worst_window = max(self.worst_window, len(window))
        self.arrivals += 1
        self.first_arrival = self.first_arrival or moment
        self.last_arrival = moment
        second = int(time.time())
        if second not in self.by_second and len(self.by_second) >= SECONDS_KEPT:
            del self.by_second[next(iter(self.by_second))]
        self.by_second[second] = self.by_second.get(second, 0) + 1
        self.now += 1
        self.peak = max(self.peak, self.now)

    def leave(self) -> None:
        """Note that an upload or chat is over, in whatever way."""
        self.now -= 1

    def refused(self, route: str, status: int, message: str) -> None:
        """Keep what the last refused requests were told."""
        self.refusals.append({"route": route, "status": status, "message": message})

    def answered(self, key: bytes, message: str, *, again: bool = False) -> int:
        """Count a chat that got its answer and return how often it was answered before.

        Args:
            key: What makes the ask: message, parts, attachments, and its place in a conversation.
            message: Kept as an example when the ask was answered before.
            again: The ask is known to be a repetition, even if its key is forgotten.
        """
        self.chats_answered += 1
        before = max(count(self._answered, key), int(again))
        if before:
            self.answered_twice += 1
            if len(self.twice_examples) < EXAMPLES:
                self.twice_examples.append({"message": message[:200], "times": before + 1})
        return before

    def times_answered(self, key: bytes) -> int:
        """Return how often an ask was answered."""
        return self._answered.get(key) or 0

    def answers(self) -> dict[str, int]:
        """Return how often each question was answered, by its digest in hexadecimal."""
        return {key.hex(): times for key, times in self._answered.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was seen, ready for JSON."""
        by_route: dict[str, dict[str, int]] = {}
        for (route, status), number in sorted(self.calls.items()):
            by_route.setdefault(route, {})[str(status)] = number
        return {
            "calls": by_route,
            "arrivals": self.arrivals,
            "seconds": round(self.last_arrival - self.first_arrival, 3),
            "worst_window": self.worst_window,
            "by_second": {str(second): number for second, number in self.by_second.items()},
            "concurrency": {"now": self.now, "peak": self.peak},
            "abandoned": self.abandoned,
            "chats_answered": self.chats_answered,
            "uploads_answered": self.uploads_answered,
            "answered_twice": {"count": self.answered_twice, "examples": self.twice_examples},
            "tokens_issued": self.tokens_issued,
            "refusals": list(self.refusals),
            "faults": dict(sorted(self.faults.items())),
            "files": {
                "downloads": self.downloads,
                "ranged": self.downloads_ranged,
                "with_authorization": self.downloads_with_authorization,
            },
            "bytes": {"in": self.bytes_in, "out": self.bytes_out},
        }
