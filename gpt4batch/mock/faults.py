"""Which call fails in which way: by rates and seed, or by a directive in its message."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import deque
from email.utils import formatdate
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

from gpt4batch.mock.digests import chance_of, digest
from gpt4batch.mock.recent import Recent, count
from gpt4batch.mock.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt4batch.mock.settings import MockSettings

DIRECTIVE = re.compile(r"\[\[mock:([a-z0-9-]+)(?:\*(\d+))?\]\]")
"""`[[mock:reset]]` in a message fails its call always, `[[mock:503*2]]` the first two times."""


class Faults:
    """Draw a fault for each call: the n-th try of the same call always gets the same one."""

    def __init__(self, settings: MockSettings, rates: Sequence[str]) -> None:
        self._seed = settings.seed
        self._kinds = [name.removesuffix("_rate").replace("_", "-") for name in rates]
        self._bounds = list(accumulate(getattr(settings, name) for name in rates))
        self._tries: Recent[bytes, int] = Recent(settings.history)

    def draw(self, key: bytes, message: str = "") -> str:
        """Return the kind of fault for one more try of a call, or nothing."""
        directives = DIRECTIVE.findall(message) if "[[mock:" in message else ()
        if not directives and not self._bounds[-1]:
            return ""
        tries = count(self._tries, key)
        for kind, times in directives:
            self._check(kind)
            if not times or tries < int(times):
                return str(kind)
        if not self._bounds[-1]:
            return ""
        place = bisect_right(self._bounds, chance_of(digest(self._seed, "fault", tries, key)))
        return self._kinds[place] if place < len(self._kinds) else ""

    def _check(self, kind: str) -> None:
        if kind not in self._kinds and not (kind.isdigit() and 400 <= int(kind) <= 599):
            known = ", ".join(self._kinds)
            raise Refusal(422, f"[[mock:{kind}]]: know {known} and the statuses 400 to 599")


class Limit:
    """Let a number of calls a second through, over a sliding window."""

    def __init__(self, per_second: float) -> None:
        self._calls = ceil(per_second)
        self._window = self._calls / per_second if per_second else 0.0
        self._passed: deque[float] = deque()

    def allows(self, moment: float) -> bool:
        """Tell whether one more call may pass at a moment, and count it if so."""
        if not self._calls:
            return True
        while self._passed and self._passed[0] <= moment - self._window:
            self._passed.popleft()
        if len(self._passed) >= self._calls:
            return False
        self._passed.append(moment)
        return True


def too_many(settings: MockSettings) -> Refusal:
    """Return a 429 with the Retry-After that was set."""
    headers = {}
    if settings.retry_after and settings.retry_after_date:
        headers["Retry-After"] = formatdate(ceil(time.time() + settings.retry_after), usegmt=True)
    elif settings.retry_after:
        headers["Retry-After"] = f"{settings.retry_after:g}"
    return Refusal(429, "too many requests", headers)
