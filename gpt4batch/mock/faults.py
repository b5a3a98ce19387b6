"""Which call fails in which way: by rates and seed, or by a directive in its message."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
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
            if kind not in self._kinds and not (kind.isdigit() and 400 <= int(kind) <= 599):
                known = ", ".join(self._kinds)
                raise Refusal(422, f"[[mock:{kind}]]: know {known} and the statuses 400 to 599")
            if not times or tries < int(times):
                return str(kind)
        if not self._bounds[-1]:
            return ""
        place = bisect_right(self._bounds, chance_of(digest(self._seed, "fault", tries, key)))
        return self._kinds[place] if place < len(self._kinds) else ""
