"""What the service does with a call in whatever dialect: read it, let it wait, make it fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from gpt4batch.mock import broken
from gpt4batch.mock.digests import chance_of
from gpt4batch.mock.limits import Limit, Quota, TokenLimit, too_many
from gpt4batch.mock.refusal import Refusal
from gpt4batch.mock.stats import Stats

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from gpt4batch.mock.settings import MockSettings

MAX_BODY = 64 * 1024 * 1024
ON_PURPOSE = "the mock service fails on purpose"


class Intake:
    """The one account of the service: its limits, its stats, and how its calls fail."""

    def __init__(self, settings: MockSettings) -> None:
        self.settings = settings
        self.origin = ""
        self.stats = Stats(settings.history)
        self.requests = Limit(settings.limit_qps)
        self.tokens = TokenLimit(settings.limit_tpm)
        self.quota = Quota(settings.quota, settings.quota_passes)

    async def body(self, request: BaseRequest) -> bytes:
        """Return the body of a call, or refuse one that is too large."""
        if (request.content_length or 0) > MAX_BODY:
            raise Refusal(413, f"the body is larger than {MAX_BODY} bytes")
        body = await request.content.read()
        self.stats.bytes_in += len(body)
        return body

    def latency(self, key: bytes) -> float:
        """Return the seconds that a call takes."""
        spread = self.settings.jitter * (2 * chance_of(key, 2) - 1)
        return self.settings.latency * (1 + spread)

    async def wait(self, key: bytes) -> None:
        """Let a call take its time."""
        if self.settings.latency:
            await asyncio.sleep(self.latency(key))

    async def fail(self, fault: str, request: BaseRequest, key: bytes) -> web.StreamResponse:
        """Fail a call before it is answered, in a way that every dialect has."""
        if fault == "rate-limit":
            raise too_many(self.settings)
        if fault == "reset":
            return broken.reset(request)
        if fault == "hang":
            await anyio.sleep_forever()
        if fault == "garbage":
            return broken.garbage(key)
        raise Refusal(int(fault) if fault.isdigit() else 500, ON_PURPOSE)
