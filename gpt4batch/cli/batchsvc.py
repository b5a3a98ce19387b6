"""The command `batchsvc`: run a batch."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gpt4batch.cli.defects import unexpected
from gpt4batch.cli.streams import can_be_read, can_be_written, tell
from gpt4batch.errors import DefectError, Gpt4BatchError, OutputError, UsageError
from gpt4batch.settings import Settings
from gpt4batch.words import say, tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from gpt4batch.api import Show
    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.status import Status
    from gpt4batch.batch.summary import Summary
    from gpt4batch.cli.metrics import Metrics
    from gpt4batch.mock.settings import MockSettings

log = logging.getLogger(__name__)

SETTINGS = Settings
HELP = tr("Run a batch: ask what each line of the input asks and append the answers to the output.")
EXAMPLES = (
    "gpt4batch batchsvc -i questions.jsonl -o out.jsonl",
    "gpt4batch batchsvc -i questions.jsonl -o out.jsonl -f",
)


STREAMS = {0: tr("standard input"), 1: tr("standard output"), 2: tr("standard error")}


def action(settings: Settings) -> None:
    """Run the batch, say what came of it and exit with its code."""
    from gpt4batch.batch import descriptors
    from gpt4batch.batch.refusals import refuse_shared_files
    from gpt4batch.cli import display, logs, loop
    from gpt4batch.signals import obeyed

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the run listens: nothing is begun yet
    leave = _Leave()
    for number in obeyed():  # the run itself takes them over
        signal.signal(number, leave)
    _refuse_closed(settings)
    refuse_shared_files(settings)
    with ExitStack() as stack:
        console = None if settings.quiet else display.terminal()
        handler = logs.set_up(settings.log_level, settings.log_format, settings.log_file, console)
        stack.callback(logs.tear_down, handler)
        descriptors.raise_limit(settings.goroutine)
        try:
            code = loop.run(_run, settings, console, leave)
        except Exception as error:
            if not leave.begun or isinstance(error, Gpt4BatchError):
                raise
            log.debug("unexpected error", exc_info=True)
            raise DefectError(unexpected(error, begun=True)) from None
    sys.exit(code)


async def _run(settings: Settings, console: Console | None, leave: _Leave) -> int:
    from contextlib import AsyncExitStack

    from gpt4batch.api import run
    from gpt4batch.batch.summary import check_path
    from gpt4batch.cli.display import Display

    ended = partial(_tell, settings)
    if settings.summary:
        check_path(settings.summary)
    async with AsyncExitStack() as stack:
        if settings.mock:
            from gpt4batch.mock.server import MockService

            service = await stack.enter_async_context(MockService(rehearsal()))
            settings = replace(settings, origin=service.origin, token=service.token)
        show: Show | None
        show = None if settings.quiet else Display(console, settings).show
        if settings.metrics_port:
            from gpt4batch.cli.metrics import served

            metrics = stack.enter_context(served(settings.metrics_port, settings.metrics_address))
            show = _watched(metrics, show)
        begin = _beginning(leave, show)
        return (await run(settings, show=begin, signals=True, ended=ended)).exit_code


def _tell(settings: Settings, summary: Summary) -> None:
    """Say what came of a run, on the terminal and in a file."""
    from gpt4batch.batch.summary import save
    from gpt4batch.cli import display
    from gpt4batch.cli.farewell import farewell
    from gpt4batch.cli.next_command import next_command
    from gpt4batch.disk import descriptor_of
    from gpt4batch.journal.source import STDIN
    from gpt4batch.signals import obeyed

    for number in obeyed():  # what is left to do takes no time, and the exit code is earned
        signal.signal(number, signal.SIG_IGN)
    to_file = settings.out != STDIN and descriptor_of(settings.out) is None
    if summary.done < summary.lines and to_file:
        summary = replace(summary, next=next_command(settings))
    if settings.summary:
        save(summary, settings.summary)
    told = farewell(summary, told=not settings.log_file)
    if not settings.quiet:
        tell(told)
    if settings.notify:
        display.notify(f"gpt4batch: {told.partition(chr(10))[0]}")


def _refuse_closed(settings: Settings) -> None:
    """Refuse a stream that the run needs and does not have."""
    from gpt4batch.disk import descriptor_of

    number = 0 if settings.input == "-" else descriptor_of(settings.input)
    if number is not None and not can_be_read(number):
        what = STREAMS.get(number) or tr("descriptor {number}", number=number)
        raise UsageError(
            tr("-i {path}: {what} is closed: nothing was called", path=settings.input, what=what)
        )
    number = 1 if settings.out == "-" else descriptor_of(settings.out)
    if number is not None and not can_be_written(number):
        what = STREAMS.get(number) or tr("descriptor {number}", number=number)
        raise OutputError(
            tr("-o {path}: {what} is closed: nothing was called", path=settings.out, what=what)
        )


def _beginning(leave: _Leave, show: Show | None) -> Show:
    """Return the display of a run that says to `leave` when it begins."""

    async def begin(progress: Progress, look: Callable[[], Status]) -> None:
        leave.begun = True
        if show is not None:
            await show(progress, look)

    return begin


def _watched(metrics: Metrics, show: Show | None) -> Show:
    """Return the display of a run with its metrics beside it."""

    async def watch(progress: Progress, look: Callable[[], Status]) -> None:
        metrics.watch(progress, look)
        if show is not None:
            await show(progress, look)

    return watch


class _Leave:
    """End at a signal that comes before the run has begun; ignore one that comes after it."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, number: int, _frame: object) -> None:
        if not self.begun:
            tell(say("gpt4batch: interrupted; nothing was called"))
            sys.exit(128 + number)


def rehearsal() -> MockSettings:
    """Return how the embedded service behaves: the environment sets `mocksvc`'s flags."""
    from gpt4batch.cli.flags import from_environment
    from gpt4batch.mock.settings import MockSettings

    return MockSettings(
        **{"asset_rate": 0.5, "latency": 0.5, "jitter": 0.5} | from_environment(MockSettings)
    )
