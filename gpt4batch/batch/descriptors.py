"""How many lines the descriptors of this process allow at once."""

from __future__ import annotations

import resource
from contextlib import suppress

EACH = 2
"""Descriptors that a line holds at most: a connection, and the attachment that goes up."""

RESERVE = 96
"""Those of the files of the run, of the downloads and of connections that end slowly."""


def needed(lines: int) -> int:
    """Return the descriptors that so many lines at once may need."""
    return lines * EACH + RESERVE


def raise_limit(lines: int) -> None:
    """Let this process open what so many lines at once need, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(lines)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a further limit, which it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def at_once(lines: int, *, limit: int | None = None) -> int:
    """Return how many of so many lines can be held at once.

    Args:
        lines: What is asked for.
        limit: The descriptors that there can be; by default those that there are.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    if most == resource.RLIM_INFINITY:
        return lines
    return min(lines, (most - RESERVE) // EACH)


def reachable() -> int:
    """Return the descriptors that this process can be given."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
