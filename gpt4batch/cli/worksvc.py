"""The command `worksvc`: run lines for coordinators elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from gpt4batch.settings import WorkerSettings

SETTINGS = WorkerSettings
HELP = (
    "Work for a fleet: run the lines that `batchsvc --fleet` hands out, until interrupted.",
    "集群worker:运行 batchsvc --fleet 分发的行,直到被中断.",
)


def action(settings: WorkerSettings) -> None:
    """Work until Ctrl-C or SIGTERM, or until the account or token does not do."""
    from gpt4batch.cli import logs, loop
    from gpt4batch.fleet.worker import Worker

    with ExitStack() as stack:
        handler = logs.set_up(settings.log_level, settings.log_format, settings.log_file, None)
        stack.callback(logs.tear_down, handler)
        code = loop.run(Worker(settings).run)
    sys.exit(code)
