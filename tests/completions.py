"""A small service of chat completions, which shares nothing with the embedded one."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Way = Callable[[web.BaseRequest, dict[str, Any]], Awaitable[web.StreamResponse]]

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def asked(body: dict[str, Any]) -> str:
    """Return the text of the last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[0].get("text", "")


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    """Return a reply; `message`, `choice` and all else are added to their places."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more.pop("choice", {})}
    head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m-1"}
    return {**head, "choices": [choice], "usage": USAGE, **more}


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """Return an event of a stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    return b"data: " + rawjson.dumps({**head, "choices": choices, **more}) + b"\n\n"


def events(text: str) -> list[bytes]:
    """Return the stream that says a text."""
    said = [chunk({"content": piece}) for piece in (text[:3], text[3:]) if piece]
    first, last = chunk({"role": "assistant", "content": ""}), chunk({}, "stop")
    return [first, *said, last, chunk(None, usage=USAGE), b"data: [DONE]\n\n"]


@dataclass
class Service:
    """What a service was asked, and how it answers: `ways` by the text, else a plain answer."""

    ways: dict[str, Way] = field(default_factory=dict)
    origin: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    hang: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def counts(self) -> Counter[str]:
        return Counter(asked(body) for body in self.bodies)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        body = rawjson.loads(raw)
        self.bodies.append(body)
        self.raw.append(raw)
        self.paths.append(request.path_qs)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        way = self.ways.get(asked(body))
        if way is not None:
            return await way(request, body)
        if body.get("stream"):
            return await streamed(request, events(f"re: {asked(body)}"))
        return web.json_response(completion(f"re: {asked(body)}"))


async def streamed(
    request: web.BaseRequest,
    pieces: list[bytes],
    *,
    kind: str = "text/event-stream",
    cut: bool = False,
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    if cut:
        assert request.transport is not None
        request.transport.close()
    return response


@asynccontextmanager
async def completions(**ways: Way) -> AsyncIterator[Service]:
    """Serve chat completions on a free port."""
    service = Service(dict(ways))
    server = web.Server(service.handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        service.hang.set()
        await runner.cleanup()


def once(*ways: Way | None) -> Way:
    """Return a way for each call; None, and what follows the last, is the plain answer."""
    left = list(ways)

    async def answer(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        way = left.pop(0) if left else None
        if way is not None:
            return await way(request, body)
        if body.get("stream"):
            return await streamed(request, events(f"re: {asked(body)}"))
        return web.json_response(completion(f"re: {asked(body)}"))

    return answer


def saying(status: int, doc: Any, **headers: str) -> Way:
    """Return the way that answers with a status and a body; bytes are sent as they stand."""

    async def answer(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        raw = doc if isinstance(doc, bytes) else rawjson.dumps(doc)
        named = {"content-type": "application/json", **headers}
        return web.Response(status=status, body=raw, headers=named)

    return answer


def streaming(*pieces: bytes, **more: Any) -> Way:
    """Return the way that answers with the pieces of a stream."""

    async def answer(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        return await streamed(request, list(pieces), **more)

    return answer
