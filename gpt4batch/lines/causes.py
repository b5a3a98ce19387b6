"""What failures have in common: the cause that they are counted under."""

from __future__ import annotations

import re

PARTICULAR = re.compile(r"\S*[\d/]\S*|\S+\.\w+")
"""The words of a message that differ from line to line: numbers, ids, paths and file names."""


def cause_of(message: str) -> str:
    """Return what messages of one cause have in common."""
    return PARTICULAR.sub("…", message)[:100]
