"""What nobody foresaw, in words: never a traceback, never the exit code of failed lines."""

from __future__ import annotations

import traceback
from pathlib import Path

from gpt4batch.words import Message, tr

PACKAGE = Path(__file__).parent.parent


def unexpected(error: BaseException, *, begun: bool) -> Message:
    """Return what an unexpected error is told as.

    Args:
        error: The error.
        begun: Calls may have been made.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):  # the last of ours counts
        if (file := Path(frame.filename)).is_relative_to(PACKAGE):
            where = f" ({file.relative_to(PACKAGE)}:{frame.lineno})"
    fate = tr("nothing was called")
    if begun:
        fate = tr("the answers so far are in the output: run again with -f")
    return tr(
        "unexpected error: {kind}: {error}{where}; {fate}. This is a defect of the tool, please "
        "report it; --log-level debug shows its traceback",
        kind=type(error).__name__,
        error=error,
        where=where,
        fate=fate,
    )
