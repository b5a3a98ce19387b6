"""Runs that begin at once: forked from a process that has loaded everything.

A run of the command costs half a second of loading before it does anything. Where a thousand of
them are killed, they are children of a server that has loaded the command, and each is otherwise
a process like any other: its own words, environment, folder and files, and SIGKILL is SIGKILL.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.lab import TOKEN, Run, demand

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

LOADED = [
    "anyio._backends._asyncio",
    "gpt4batch.api",
    "gpt4batch.cli",
    "gpt4batch.cli.display",
    "gpt4batch.cli.farewell",
    "gpt4batch.cli.next_command",
    "typer._adapters",
    "uvloop",
]
"""What a run would load at its start; a name that is not there is passed over."""
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["chaos.forks", *LOADED])


@dataclass(frozen=True)
class Forked:
    """A run on its way."""

    process: ForkServerProcess
    errors: Path

    def end(self, patience: float) -> Run:
        """Wait for the end of the run, however it comes."""
        self.process.join(patience)
        code = self.process.exitcode
        demand(code is not None, f"the run did not end within {patience:g} s", self.said())
        assert code is not None
        self.process.close()
        return Run(code, self.said(), b"")

    def said(self) -> bytes:
        """Return what is on standard error."""
        return self.errors.read_bytes()

    def wrote(self, out: Path, size: int) -> bool:
        """Tell whether the output has grown, or the run is over."""
        grown = out.exists() and out.stat().st_size > size
        return grown or not self.process.is_alive()


def start(folder: Path, *words: str) -> Forked:
    """Start the command in a folder."""
    errors = folder / "stderr"
    errors.write_bytes(b"")  # of this run alone, even if it dies before its first word
    process = SERVER.Process(target=_command, args=(words, str(folder), str(errors)), daemon=True)
    process.start()
    return Forked(process, errors)


def _command(words: tuple[str, ...], folder: str, errors: str) -> None:
    """Be the command: this is all that the process does."""
    os.environ.clear()
    os.environ.update(HOME=folder, LANG="C.UTF-8", GPT4BATCH_TOKEN=TOKEN, PATH=os.defpath)
    os.chdir(folder)
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.argv = ["gpt4batch", *words]
    from gpt4batch.__main__ import main

    main()
