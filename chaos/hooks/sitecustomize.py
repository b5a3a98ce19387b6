"""Kill this process at its n-th write, where the environment asks for it.

`CHAOS_ROOT` is the folder whose files count. `CHAOS_COUNT` names a file that gets the number of
writes of each kind. `CHAOS_POINT=kind:n:mode` kills at the n-th one of a kind, `before` it or with
`half` of its bytes written. Nothing of this is in the product: it wraps Python's own calls.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import threading
from collections import Counter
from typing import Any

ROOT = os.environ.get("CHAOS_ROOT", "")
KIND, NUMBER, MODE = (os.environ.get("CHAOS_POINT") or ":0:").split(":")
seen: Counter[str] = Counter()
lock = threading.Lock()
original_open, original_write = io.open, os.write


def kind_of(path: str) -> str:
    """Return what a file is to a run."""
    name = os.path.basename(path)
    if name.endswith(".lock") or not path.startswith(ROOT):
        return ""
    if "/downloads" in path:
        return "download"
    if "snapshot" in name or name.startswith(".2"):
        return "snapshot"
    if name.endswith(".tmp"):
        return "ordered"
    return "log" if name.startswith("out") else ""


def path_of(target: Any) -> str:
    """Return the path of a descriptor or path."""
    if isinstance(target, int):
        try:
            return os.readlink(f"/proc/self/fd/{target}")
        except OSError:
            return ""
    return str(os.path.abspath(os.fspath(target)))


def due(target: Any) -> bool:
    """Count one write and tell whether it is the one to die at."""
    kind = kind_of(path_of(target))
    if not kind:
        return False
    with lock:
        seen[kind] += 1
        return kind == KIND and seen[kind] == int(NUMBER)


def die() -> None:
    """End as a power cut or the kernel's memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def watched(name: str) -> None:
    """Let a function of `os` count, and kill before its turn."""
    original = getattr(os, name)

    def call(target: Any, *rest: Any, **named: Any) -> Any:
        if (isinstance(target, int) or os.path.lexists(target)) and due(target):
            die()
        return original(target, *rest, **named)

    setattr(os, name, call)


def write(descriptor: int, data: Any) -> int:
    """Stand in for os.write."""
    if due(descriptor):
        if MODE == "half":
            original_write(descriptor, bytes(data)[: len(data) // 2])
        die()
    return original_write(descriptor, data)


class Watched(io.BufferedWriter):
    """A file whose writes count."""

    def write(self, data: Any) -> int:
        """Write, or die of it."""
        if due(self.fileno()):
            if MODE == "half":
                super().write(bytes(data)[: len(data) // 2])
                super().flush()
            die()
        return super().write(data)


def open_watched(path: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
    """Stand in for io.open."""
    if mode in ("wb", "xb") and not isinstance(path, int) and kind_of(path_of(path)):
        if due(path):
            die()
        return Watched(io.FileIO(path, mode), buffering if buffering > 1 else 8192)
    return original_open(path, mode, buffering, *rest, **named)


def save() -> None:
    """Write down what was counted."""
    with original_open(os.environ["CHAOS_COUNT"], "w") as file:
        file.write(" ".join(f"{kind}={number}" for kind, number in sorted(seen.items())))


if ROOT:
    for function in ("fsync", "fdatasync", "ftruncate", "replace", "rename", "link", "unlink"):
        watched(function)
    os.write = write
    io.open = open_watched  # type: ignore[assignment]
    if "CHAOS_COUNT" in os.environ:
        atexit.register(save)

if "CHAOS_FSIZE" in os.environ:
    import resource

    size = int(os.environ["CHAOS_FSIZE"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
