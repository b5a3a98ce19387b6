"""Run a batch from a Python program.

With the stored token, or GPT4BATCH_TOKEN; then against the embedded service:

python examples/python_api.py example.jsonl out.jsonl
python examples/python_api.py example.jsonl out.jsonl --rehearse
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import anyio

import gpt4batch
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings


async def rehearse(settings: gpt4batch.Settings) -> gpt4batch.Summary:
    """Run a batch against the embedded service, which lives as long as the run."""
    async with MockService(MockSettings()) as service:
        return await gpt4batch.run(replace(settings, origin=service.origin, token=service.token))


def main(batch: str, out: str, *, rehearsal: bool) -> int:
    """Run the batch, going on with an earlier run, and return its exit code."""
    token = os.environ.get("GPT4BATCH_TOKEN", "")
    settings = gpt4batch.Settings(input=batch, out=out, qps=5, goroutine=10, fix=True, token=token)
    try:
        summary = anyio.run(rehearse if rehearsal else gpt4batch.run, settings)
    except gpt4batch.UsageError as error:  # refused before the first call
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{summary.done} of {summary.lines} lines are done, {summary.chats} calls were made")
    for failure in summary.failures:
        print(f"{failure['count']} x {failure['message']}", file=sys.stderr)
    return summary.exit_code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], rehearsal="--rehearse" in sys.argv[3:]))
