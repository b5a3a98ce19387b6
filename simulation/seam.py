"""Where a run is given the time, the service and its files of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx

from gpt4batch.api import run as run_batch
from gpt4batch.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.batch.summary import Summary
    from gpt4batch.settings import Settings
    from simulation.loop import VirtualLoop

BEGINNING = 1_800_000_000 * 10**9
"""When histories begin, in nanoseconds since 1970."""


async def run(
    settings: Settings,
    service: httpx.AsyncBaseTransport,
    loop: VirtualLoop,
    began: float,
    *,
    signals: bool = True,
    ended: Callable[[Summary], None] = lambda _summary: None,
) -> Summary:
    """Run the program in virtual time against a service of this loop.

    Args:
        settings: What to run.
        service: Takes the requests.
        loop: Its clock is the program's.
        began: Seconds of the history that earlier runs took.
        signals: Whether it obeys signals.
        ended: Is handed the summary when the program shows it.
    """
    clock = Clock(loop.time, lambda: BEGINNING + int((began + loop.wall()) * 1e9))
    return await run_batch(settings, signals=signals, transport=service, clock=clock, ended=ended)


def one_thread() -> None:
    """Let what the program gives to a thread run in the loop's own, one step later.

    This is of the simulation's process only: two threads have no order that a seed could draw.
    """

    async def inline(function: Callable[..., Any], *args: Any, **_how: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return function(*args)

    setattr(anyio.to_thread, "run_sync", inline)  # noqa: B010 - mypy knows its exact type
