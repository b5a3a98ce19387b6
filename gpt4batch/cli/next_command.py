"""The command line that goes on with a run."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpt4batch.cli.flags import environment_name
from gpt4batch.journal.source import STDIN
from gpt4batch.settings import LOGGING, Settings, flags_of
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.batch.summary import Summary

ADDRESSES = ("url", "upload_url", "proxy")


def next_command(settings: Settings) -> str:
    """Return what to type to go on: what was set, but for the log, and `-f`; never a secret.

    What the environment set is left out where it is still set there. An input that came through
    a pipe is gone: the output has all its lines.
    """
    words, hidden = ["gpt4batch", "batchsvc"], []
    for name, default, spec in flags_of(Settings):
        value = getattr(settings, name)
        if name == "input" and value == STDIN:
            value = settings.out
        # What was asked anew has its answers; what has not is asked with -f all the same.
        if value == default or name in ("fix", "redo") or spec.panel == LOGGING:
            continue
        if spec.secret or (name in ADDRESSES and "@" in urlsplit(value).netloc):
            hidden += [] if environment_name(spec) in os.environ else [f"--{spec.long}"]
        elif os.environ.get(environment_name(spec)) != str(value):
            flag = f"-{spec.short}" if spec.short else f"--{spec.long}"
            if isinstance(value, bool):
                words.append(flag if value else f"{flag}=false")
            else:
                words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    command = shlex.join([*words, "-f"])
    if hidden:
        again = " ".join(hidden)
        return tr("{command}   (and {again} as before)", command=command, again=again)
    return command


def look_command(summary: Summary) -> str:
    """Return what to type to look at an output; nothing where that is no file of its own."""
    if not os.path.isfile(summary.out):  # noqa: PTH113
        return ""
    words = ["gpt4batch", "viewsvc", shortest(summary.out)]
    if os.path.isfile(summary.input):  # noqa: PTH113
        words += ["-i", shortest(summary.input)]
    if summary.downloads and summary.download_dir:
        words += ["-d", shortest(summary.download_dir)]
    return shlex.join([*words, "--open"])


def shortest(path: str) -> str:
    """Return a path from the working folder on, where it lies in that."""
    within = os.path.relpath(path)
    return path if within.startswith("..") else within
