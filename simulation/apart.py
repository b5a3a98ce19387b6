"""What happens apart: in a child process, or in a life of its own that is left at any step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import greenlet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

DEAD: list[greenlet] = []
"""Lives that ended. Kept, for what is thrown away runs its `finally`, which a kill does not."""
CHANGED = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "replace", "rename", "link")
"""Calls of Python that a life may wrap."""


def forked(call: Callable[[], T], log: Path | None = None) -> T:
    """Return what a function returns in a child process, of which nothing else is left.

    Args:
        call: The function.
        log: The file of the child's standard error, where it has one of its own.

    Raises:
        RuntimeError: The child ended before it returned anything.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        try:
            gc.disable()
            if log is not None:
                _send_stderr(log)
            told = pickle.dumps(call())
            with os.fdopen(send, "wb") as pipe:
                pipe.write(told)
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"the child told nothing; status {status}")
    result: T = pickle.loads(told)
    return result


def lived(log: Path, life: Callable[[], None]) -> Any:
    """Return what a life tells at its end by `leave`, wherever in it that is.

    Args:
        log: The file of its standard error.
        life: Lives until it leaves.
    """
    with _own_process(log):
        body = greenlet(life)
        told = body.switch()
        DEAD.append(body)
        return told


def leave(told: Any) -> None:
    """End the running life here, as a kill does: nothing else of it runs."""
    here = greenlet.getcurrent()
    assert here.parent is not None
    here.parent.switch(told)


@contextlib.contextmanager
def _own_process(log: Path) -> Iterator[None]:
    """Undo what ends with a process: its open files, signal handlers and wrapped calls."""
    calls = {name: getattr(os, name) for name in CHANGED}
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    folder, stderr = os.getcwd(), os.dup(2)
    _send_stderr(log)
    opened = _open_files()
    try:
        yield
    finally:
        sys.stderr.flush()
        asyncio._set_running_loop(None)  # noqa: SLF001 - exported, for loops of others
        sys.set_asyncgen_hooks(None, None)
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        for name, call in calls.items():
            setattr(os, name, call)
        for descriptor in _open_files() - opened:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(descriptor)
        os.chdir(folder)
        os.dup2(stderr, 2)
        os.close(stderr)


def _send_stderr(log: Path) -> None:
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 2)


def _open_files() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}
