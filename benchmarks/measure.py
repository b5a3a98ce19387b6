"""Whole processes measured: CPU and memory by `wait4`, in rounds, compared within the round."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LAUNCH = Path(__file__).with_name("launch.py")
UNWANTED = ("GPT4BATCH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_", "PYTHON")


class CommandError(Exception):
    """A measured command failed; its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process used: seconds, seconds, bytes."""

    wall: float
    cpu: float
    memory: int


def environment() -> dict[str, str]:
    """Return this process's environment without what would steer a measured command."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(UNWANTED)}


def run(
    command: Sequence[str | Path],
    *,
    pty: bool = False,
    timeout: float = 3600,
    allowed: Iterable[int] = (0,),
) -> Sample:
    """Run a command and return what it used.

    Raises:
        CommandError: it ended with a status that is not allowed, or did not end in time.
    """
    words = [sys.executable, "-I", "-S", str(LAUNCH), "pty" if pty else "plain"]
    words += [str(word) for word in command]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, env=environment(), start_new_session=True
        )
        try:
            figures, _ = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-2000:]
    if process.returncode:
        raise CommandError(f"{' '.join(words[5:])} could not be started\n{said}")
    status, wall, cpu, memory = figures.split()
    if int(status) not in allowed:
        raise CommandError(f"{' '.join(words[5:])} ended with status {int(status)}\n{said}")
    return Sample(float(wall), float(cpu), int(memory) * 1024)


def interleaved(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every case once a round, in turn, so that a slow minute of the machine hits them all."""
    found: dict[str, list[T]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(case())
    return found


def median(values: Iterable[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def ratio(values: Iterable[float], base: Iterable[float]) -> float:
    """Return the median of the ratios taken within each round."""
    return statistics.median(a / b for a, b in zip(values, base, strict=True))
