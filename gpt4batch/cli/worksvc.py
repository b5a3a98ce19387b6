"""The command `worksvc`: run lines for coordinators elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from gpt4batch.settings import WorkerSettings
from gpt4batch.words import tr

SETTINGS = WorkerSettings
HELP = tr("Work for a fleet: run the lines that `batchsvc --fleet` hands out, until interrupted.")
EXAMPLES = ("gpt4batch worksvc --nsqd-tcp-address 10.0.0.5:4150",)


def action(settings: WorkerSettings) -> None:
    """Work until Ctrl-C or SIGTERM, or until the account or token does not do."""
    from gpt4batch.cli import logs, loop
    from gpt4batch.fleet.worker import Worker

    with ExitStack() as stack:
        handler = logs.set_up(settings.log_level, settings.log_format, settings.log_file, None)
        stack.callback(logs.tear_down, handler)
        code = loop.run(Worker(settings).run)
    sys.exit(code)
