"""What is to be reached, in one place; a short run has wider limits, and only on ratios."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """The limits of a figure; `short_*` are the limits of a short run, none where it has none."""

    low: float | None = None
    high: float | None = None
    short_low: float | None = None
    short_high: float | None = None

    def limits(self, short: bool) -> tuple[float | None, float | None]:
        return (self.short_low, self.short_high) if short else (self.low, self.high)

    def text(self, short: bool) -> str:
        low, high = self.limits(short)
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        return f"≥ {low:g}" if low is not None else f"≤ {high:g}" if high is not None else ""

    def met(self, value: float, short: bool) -> bool | None:
        """Tell whether the value lies within the limits; None where there are none."""
        low, high = self.limits(short)
        if low is None and high is None:
            return None
        return (low is None or value >= low) and (high is None or value <= high)


TARGETS = {
    # CPU seconds a line and lines a second, over the floor's in the same round
    "cost.cpu": Target(high=1.8, short_high=3.3),
    "cost.tls": Target(high=1.6),
    "cost.rate": Target(low=0.4, short_low=0.25),
    # CPU seconds a line of the second dialect, over the first's in the same round
    "openai.cpu": Target(high=1.2, short_high=1.35),
    # CPU seconds a line of a batch file, over those of the same asks in the same round
    "batch.cpu": Target(high=1.35, short_high=1.5),
    # Tokens a minute over --tpm, and calls refused
    "tpm.used": Target(low=0.95, high=1.0),
    "tpm.refused": Target(high=0),
    # Peak memory in MB; over the floor's
    "memory.20k": Target(high=80),
    "memory.1m": Target(high=150),
    "memory.floor": Target(short_high=2.5),
    "memory.flat": Target(short_high=1.2),
    # MB a second and MB of memory over a log of a million lines
    "scan.speed": Target(low=150),
    "scan.memory": Target(high=200),
    "order.memory": Target(high=200),
    # Share of q that was reached; worst second over 1.02 q + 1
    "pace.mean": Target(low=0.98, high=1.002, short_low=0.95, short_high=1.01),
    "pace.worst": Target(high=1, short_high=1),
    # Calls answered over what the service allows, and calls refused of all, in percent
    "limit.useful": Target(low=0.9),
    "limit.refused": Target(high=8),
    # Wall time over that of list scheduling
    "makespan.process": Target(high=1.02),
    "makespan.calls": Target(high=1.02, short_high=1.1),
    # MB a second over those of a plain aiohttp copy, and MB of memory
    "files.speed": Target(low=0.8),
    "files.memory": Target(high=120),
    # CPU seconds; over those of importing typer
    "startup.help": Target(high=0.25),
    "startup.typer": Target(short_high=4),
    # CPU a line at the largest size over that at 10,000 lines (short: 2,000)
    "growth.cpu": Target(high=1.15, short_high=1.4),
    # Peak memory with four times the lines
    "big.flat": Target(high=1.15),
    # Lines a second of several workers, over as many times those of one
    "fleet.linear": Target(low=0.95),
    # Wall time of a fleet over that of one process at the same pace
    "fleet.makespan": Target(high=1.03),
    # Longest silence at the service in seconds while a snapshot of 2 GB is written, at q = 100;
    # most disk that was taken, over the size of the log: the log, the last snapshot and the next.
    # Where there is room for two only, the last one goes first
    "snapshot.gap": Target(high=0.25),
    "snapshot.disk": Target(high=3.1),
}
