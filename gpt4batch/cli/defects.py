"""What nobody foresaw, in words: never a traceback, never the exit code of failed lines."""

from __future__ import annotations

import traceback
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def unexpected(error: BaseException, *, begun: bool) -> str:
    """Return what an unexpected error is told as.

    Args:
        error: The error.
        begun: Calls may have been made.
    """
    error = _innermost(error)
    text = f"unexpected error: {type(error).__name__}: {error}{_place(error)}"
    fate = (
        "the answers so far are in the output: run again with -f" if begun else "nothing was called"
    )
    return (
        f"{text}; {fate}. This is a defect of the tool, please report it; "
        "--log-level debug shows its traceback"
    )


def _innermost(error: BaseException) -> BaseException:
    """Return the first error in a group of a task group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(error: BaseException) -> str:
    """Return where in this package an error was raised, relative to it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if not ours:
        return ""
    return f" ({Path(ours[-1].filename).relative_to(PACKAGE)}:{ours[-1].lineno})"
