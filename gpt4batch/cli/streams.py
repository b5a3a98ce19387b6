"""Standard input, output and error: usable whatever the caller made of them."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from contextlib import suppress


def make_usable() -> None:
    """See to it that no stream is missing, and that none fails at a character it cannot show.

    The numbers of closed streams are taken, which the next sockets would get: uvloop aborts then.
    They are held the wrong way round, so that who reads or writes by the number is still refused.
    """
    for number, name, way, mode in (
        (0, "stdin", os.O_WRONLY, "r"),
        (1, "stdout", os.O_RDONLY, "w"),
        (2, "stderr", os.O_RDONLY, "w"),
    ):
        if _access(number) is None:
            os.open(os.devnull, way)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _access(number: int) -> int | None:
    """Return how a descriptor was opened, or None for a closed one."""
    try:
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return None


def can_be_read(number: int) -> bool:
    """Return whether a descriptor is open for reading."""
    return _access(number) in (os.O_RDONLY, os.O_RDWR)


def can_be_written(number: int) -> bool:
    """Return whether a descriptor is open for writing."""
    return _access(number) in (os.O_WRONLY, os.O_RDWR)


def tell(text: str) -> None:
    """Say something on standard error; where that cannot be written, nobody is there to hear it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def let_go() -> None:
    """Drop what could not be written: Python would try again at its end and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
