"""Every cell of the matrix: its fault, and the function that works it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos import completions, disks, files, hostile, kills, networks, replies, results, thousand

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.lab import Lab


@dataclass(frozen=True)
class Cell:
    """One fault, and how it is made."""

    name: str
    fault: str
    run: Callable[[Lab], None]
    beside: tuple[str, ...] = ()
    """Promises that the cell says nothing of."""


CELLS = (
    Cell("sigkill", "SIGKILL at random moments", kills.sigkill),
    Cell("thousand", "SIGKILL of small batches, a thousand times", thousand.sigkill),
    Cell("batch-file", "SIGKILL of a batch file, a hundred times", completions.batch_file),
    Cell("threads", "SIGKILL inside conversations of --api openai", completions.conversations),
    Cell("write-points", "SIGKILL at every write", kills.write_points),
    Cell("signals", "SIGINT, SIGTERM, once and twice", kills.signals),
    Cell("sighup", "SIGHUP: the terminal is closed", kills.closed_terminal),
    Cell("sigstop", "SIGSTOP for longer than --timeout", kills.stopped),
    Cell("overlapping", "two runs on one output", kills.overlapping),
    Cell("log-cuts", "the log cut at every byte of its last three records", files.cuts),
    Cell("damaged", "the last record of an output damaged in four ways", results.damaged),
    Cell("unreadable", "an output saved as UTF-16, an array, pretty-printed", results.unreadable),
    Cell("growth", "lines of many long answers, answers of many links", results.growth),
    Cell("edits", "the input edited between runs, equal lines in it", files.edits),
    Cell("full-log", "disk full during the log", disks.full_log),
    Cell("full-end", "disk full during ordered output and snapshot", disks.full_at_the_end),
    Cell("full-downloads", "disk full during downloads", disks.full_downloads),
    Cell("folder-gone", "output folder removed", disks.folder_gone),
    Cell("read-only", "output or download folder read-only", disks.read_only),
    Cell("mixed", "10 % 429, 5 % 500, 3 % resets, 2 % cut, 2 % garbage, 1 % hangs", networks.mixed),
    Cell("mixed-openai", "the same with --api openai, with --stream too", completions.weather),
    Cell("down", "service down for 30 s, with tries enough", networks.down),
    Cell("down-defaults", "the same with the defaults, and run again", networks.down_with_defaults),
    Cell("token", "401 half-way", networks.refused_token),
    Cell("slow", "service slower than the timeout", networks.slow),
    Cell("strays", "a second reply 50 ms later, a late 200 after a 504", replies.strays),
    Cell("labels", "a length told twice, gzip on a plain body", replies.mislabelled),
    Cell("words", "400s that speak of conversations, on -f", replies.forgotten_words),
    Cell("quota", "a minute's limit that reads like an empty account", replies.unclear_quota),
    Cell("zero", "Retry-After: 0, or a date that has passed", replies.waits_of_nothing),
    Cell("sticky", "a balancer with a cookie", replies.sticky),
    Cell("renewal", "the service of tokens fails in passing", replies.token_service_down),
    Cell("slow-files", "a file host at a byte in two seconds", replies.slow_files),
    Cell("giants", "lines of 50 MB, nesting of 10,000, NUL, BOM, CRLF", hostile.giants),
    Cell(
        "hostile",
        "any bytes, names, replies and outputs",
        hostile.cases,
        ("none paid twice", "it ends"),
    ),
    Cell(
        "fuzzer",
        "the same, steered by what the code does with them",
        hostile.fuzzed,
        ("none paid twice", "it ends"),
    ),
)
