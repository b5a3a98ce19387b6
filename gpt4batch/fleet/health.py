"""Which workers only fail where others succeed: black holes, which take lines faster than all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

FEW = 3
"""Lines failed in a row after which a worker gets no more while another does better."""
OPINIONS = 3
"""Workers that have to fail a line, where there are so many, until it is the line's own fault."""
FIRST_PROBE, LONGEST_PROBE = 10.0, 120.0
"""Seconds after which such a worker is given one line, to see whether it is well again."""
CHAT, FILES, DOWNLOADS = "chat", "files", "downloads"
KINDS = {"attachment": FILES, "upload": FILES, "download": DOWNLOADS}
OWN_STAGES = ("reply", "input", "fleet", "internal")
OWN_CODES = (400, 413, 415, 422)


def is_lines_own(stage: str, code: int) -> bool:
    """Tell whether a failure is of the line itself, so that every worker would have it."""
    return stage in OWN_STAGES or (stage in ("chat", "upload") and code in OWN_CODES)


class Health:
    """What workers failed in a row, by what they failed at."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        """Workers that get no more lines, and why."""
        self._rows: dict[str, Counter[str]] = {}
        self._reasons: dict[str, str] = {}
        self._done: Counter[tuple[str, str]] = Counter()
        self._probes: dict[str, tuple[float, float]] = {}

    def failed(self, worker: str, stage: str, reason: str) -> None:
        """Note that a worker failed a line, which may be its own fault."""
        self._rows.setdefault(worker, Counter())[KINDS.get(stage, CHAT)] += 1
        self._reasons[worker] = reason

    def done(self, worker: str, *, files: bool, downloads: bool) -> None:
        """Note that a worker did a line, with attachments or downloads."""
        kinds = [CHAT, *([FILES] if files else []), *([DOWNLOADS] if downloads else [])]
        for kind in kinds:
            self._rows.get(worker, Counter()).pop(kind, None)
            self._done[worker, kind] += 1
        if self.well(worker):
            self.left_out.pop(worker, None)
            self._probes.pop(worker, None)

    def well(self, worker: str) -> bool:
        """Tell whether a worker has not failed too many lines in a row."""
        return max(self._rows.get(worker, {}).values(), default=0) < FEW

    def fit(self, worker: str, among: Collection[str], now: float) -> bool:
        """Tell whether a worker is to get lines: all of them where no other does better."""
        if self.well(worker) or not any(self.well(one) for one in among):
            return True
        kinds = {kind for kind, row in self._rows[worker].items() if row >= FEW}
        if any(one != worker and kind in kinds for one, kind in self._done):
            self.left_out[worker] = self._reasons[worker]
        when, wait = self._probes.setdefault(worker, (now + FIRST_PROBE, FIRST_PROBE))
        if now < when:
            return False
        if now > when + 1:  # the probe had its second
            wait = min(LONGEST_PROBE, 2 * wait)
            self._probes[worker] = (now + wait, wait)
            return False
        return True
