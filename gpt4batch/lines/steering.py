"""Characters that steer a terminal, or turn the direction of the text that follows them."""

from __future__ import annotations

import re

CONTROLS = r"\x00-\x1f\x7f-\x9f"
DIRECTIONS = r"\u202a-\u202e\u2066-\u2069"

STEERING = re.compile(rf"(?![\t\n])[{CONTROLS}\ud800-\udfff{DIRECTIONS}]")
"""What must not reach a terminal as it is; line breaks and tabs may."""


def printable(text: str) -> str:
    """Return a text that cannot steer a terminal: such characters become visible escapes."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
