"""The command `batchsvc`: run a batch."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt4batch.settings import Settings, flags_of

if TYPE_CHECKING:
    from gpt4batch.batch import Summary
    from gpt4batch.mock.settings import MockSettings

SETTINGS = Settings
USER_INFO = re.compile(r"//[^/@]*@")
HELP = (
    "Run a batch: ask what each line of the input asks and append the answers to the output.",
    "批量调用脚本:逐行提问,并将应答写入输出文件.",
)


def action(settings: Settings) -> None:
    """Run the batch, say what came of it and exit with its code."""
    import anyio

    from gpt4batch.cli import display, logs

    for number in (signal.SIGINT, signal.SIGTERM):  # the run itself takes them over
        signal.signal(number, _leave)
    with ExitStack() as stack:
        console = None if settings.quiet else display.terminal()
        handler = logs.set_up(settings.log_level, settings.log_format, settings.log_file, console)
        stack.callback(logs.tear_down, handler)
        summary = anyio.run(_run, settings, console, backend_options={"use_uvloop": _has_uvloop()})
        if not settings.quiet:
            print(display.farewell(summary, next_command(settings)), file=sys.stderr)  # noqa: T201
    sys.exit(summary.exit_code)


async def _run(settings: Settings, console: object) -> Summary:
    from contextlib import AsyncExitStack

    from gpt4batch.batch import check_summary, run, save_summary
    from gpt4batch.cli.display import Display

    if settings.summary:
        check_summary(settings.summary)
    async with AsyncExitStack() as stack:
        if settings.mock:
            from gpt4batch.mock.server import MockService

            service = await stack.enter_async_context(MockService(rehearsal()))
            settings = replace(settings, origin=service.origin, token=service.token)
        display = Display(console, settings.progress_interval)  # type: ignore[arg-type]
        summary = await run(settings, show=None if settings.quiet else display.show, signals=True)
    if settings.summary:
        save_summary(summary, settings.summary)
    return summary


def _leave(number: int, _frame: object) -> None:
    """End where nothing was called yet."""
    print("gpt4batch: interrupted; nothing was called", file=sys.stderr)  # noqa: T201
    sys.exit(128 + number)


def rehearsal() -> MockSettings:
    """Return how the embedded service behaves: the environment sets `mocksvc`'s flags."""
    from gpt4batch.cli.flags import from_environment
    from gpt4batch.mock.settings import MockSettings

    return MockSettings(
        **{"asset_rate": 0.5, "latency": 0.5, "jitter": 0.5} | from_environment(MockSettings)
    )


def next_command(settings: Settings) -> str:
    """Return the command line that goes on with a run: what was set, and `-f`."""
    words = ["gpt4batch", "batchsvc"]
    for name, default, spec in flags_of(Settings):
        value = getattr(settings, name)
        if value == default or spec.secret or name == "fix":
            continue
        text = (
            str(value).lower()
            if spec.kind is bool
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
        text = USER_INFO.sub("//***@", text)
        words.append(f"-{spec.short}={text}" if spec.short else f"--{spec.long}={text}")
    return shlex.join([*words, "-f=true"])


def _has_uvloop() -> bool:
    from importlib.util import find_spec

    return find_spec("uvloop") is not None
