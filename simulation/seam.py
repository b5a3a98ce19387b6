"""Where the program under test is given the simulation's clock, transport and service."""

from __future__ import annotations
import time
from typing import Any
import gpt4batch
from gpt4batch.service import wiring, credentials
from gpt4batch.settings import Settings


async def run(settings: Settings, service: Any, loop: Any, token_url: str) -> Any:
    time.monotonic = loop.time
    import anyio.to_thread

    async def inline(f: Any, *args: Any, **kw: Any) -> Any:
        await anyio.sleep(0)
        return f(*args)

    anyio.to_thread.run_sync = inline
    wiring.sockets = lambda *_a, **_k: service
    return await gpt4batch.run(settings, signals=True)
