"""The names of all files that a run keeps beside its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4batch.disk import WHOLE

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "{}.lock"
IN_FLIGHT = "{}.inflight"
FLEET = "{}.fleet"
SPOOL = "{}.nsq-spool"
ORDERED, SNAPSHOT = ".{}.tmp", ".{}.snapshot.tmp"
"""What an ordered file is called until it is whole."""

ALL = (
    LOCK,
    f".{{}}{WHOLE}",
    IN_FLIGHT,
    FLEET,
    f"{FLEET}.new",
    SPOOL,
    f"{SPOOL}.new",
    f"{SPOOL}-too-big",
    f"{SPOOL}-too-big.new",
    ORDERED,
    SNAPSHOT,
)


def beside(out: Path, name: str) -> Path:
    """Return the path that one of these names has beside an output."""
    return out.with_name(name.format(out.name))
