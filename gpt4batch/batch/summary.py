"""What came of a run, as a record: said at the end, and written by `--summary`."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.words import because, tr

log = logging.getLogger(__name__)

VERSION = 1
"""Goes up when a key changes its meaning or goes away; new keys may come at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a run; the keys and their units are explained in docs/en/summary.md."""

    version: int = VERSION
    started: str
    finished: str
    seconds: float
    exit_code: int = 0
    stopped: str = ""
    lines: int
    done: int
    failed: int
    not_run: int
    done_before: int
    chats: int
    chats_in_all: int | None = None
    retries: int
    unanswered: int = 0
    killed_in_flight: int = 0
    uploads: int = 0
    latency: dict[str, float]
    tokens: dict[str, int] = field(default_factory=dict)
    tokens_in_all: dict[str, int] = field(default_factory=dict)
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    cost: float | None = None
    cost_in_all: float | None = None
    finishes: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    input: str = ""
    out: str = ""
    moved_to: str = ""
    download_dir: str = ""
    downloads: int
    download_bytes: int
    nsq_sent: int = 0
    nsq_left: int = 0
    nsq_too_big: int = 0
    nsq_lost: int = 0
    nsq_spool: str = ""
    fleet: dict[str, Any] = field(default_factory=dict)
    next: str = ""


def check_path(path: str) -> None:
    """Refuse a path that no summary can be written to, before anything is paid for."""
    try:
        with Path(path).open("ab"):
            pass
    except OSError as error:
        raise UsageError(
            tr("--summary {path}: {reason}", path=path, reason=because(error))
        ) from None


def save(summary: Summary, path: str) -> None:
    """Write a summary as JSON."""
    try:
        Path(path).write_bytes(rawjson.pretty(asdict(summary)))
    except OSError as error:
        log.warning("the summary is lost: cannot write %s: %s", path, because(error))
