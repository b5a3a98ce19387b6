"""What a run is doing at one moment, for the display and the metrics: values, not its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpt4batch.service.counters import CallStats


@dataclass(frozen=True, slots=True)
class Probe:
    """A run that holds its calls and tries one now and then; times in seconds."""

    next_in: float
    left: float
    words: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of a fleet: calls that are out, its places, its errors, and why it gets no lines."""

    name: str
    busy: int
    places: int
    errors: Mapping[str, int] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Messages:
    """What became of the messages to NSQ, and why nsqd does not take them at the moment."""

    sent: int
    left: int
    dropped: int
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a run is doing at one moment.

    Args:
        calls: The calls so far.
        places: Lines that can run at the same time.
        draining: No more lines are begun.
        grace_left: Seconds that lines in flight have; infinite where nobody stops them.
        pace: Calls a second that may leave; 0 is no limit.
        cooling: Seconds that the service asked to wait.
        room: Calls at a time that the service takes; 0 where that is not known.
        probe: Set while calls are held.
        workers: The fleet; None where this process makes the calls.
        fetching: Files on their way; None where nothing is downloaded.
        snapshot: The name of the newest snapshot.
        messages: NSQ; None where nothing is published.
    """

    calls: CallStats
    places: int
    draining: bool
    grace_left: float
    pace: float
    cooling: float
    room: int
    probe: Probe | None
    workers: tuple[Worker, ...] | None
    fetching: int | None
    snapshot: str
    messages: Messages | None
