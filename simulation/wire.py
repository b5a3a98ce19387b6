"""The way of a history's calls as bytes: the tool's own exchange over connections that fail.

A connection is one of the tool's own channels over a transport of this loop. The service at its
end reads requests and writes replies in pieces, in one of the ways in which HTTP/1.1 tells where a
reply ends, and as a stream of events where one was asked for. What the weather does to a call is
done to its bytes: a reset, a reply that is cut at any byte, one that nobody asked for, a connection
that is closed just when a request leaves on it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from typing import Any

import anyio
import httpx
from yarl import URL

from gpt4batch.service.connections import Channel
from gpt4batch.service.cookies import Cookies
from gpt4batch.service.deadlines import Deadlines
from gpt4batch.service.exchange import Exchange, Route
from simulation.service import Answer, Service

FOREVER = {"timeout": 1e6}
"""How long the service may take: it is the client that gives up."""
STRAY = b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"contents":[],"stray":1}\r\n'
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class Wire(httpx.AsyncBaseTransport):
    """Send the requests of the tool as bytes.

    Args:
        service: Answers them.
        draw: Draws how the bytes go.
        monotonic: Tells the time, in seconds.
    """

    def __init__(
        self, service: Service, draw: random.Random, monotonic: Callable[[], float]
    ) -> None:
        self.service = service
        self.draw = draw
        self._deadlines = Deadlines(monotonic)
        self._cookies = Cookies()
        self._routes: dict[str, Route] = {}
        self._idle: list[Channel] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response, as the tool's own transport does."""
        text = str(request.url)
        if (route := self._routes.get(text)) is None:
            route = self._routes[text] = Route.to(URL(text, encoded=True), None)
        seconds = request.extensions.get("timeout", float("inf"))
        exchange = Exchange(request, route, self._deadlines, self._cookies, seconds)
        pool: Any = self  # stands in for the connections that are made by sockets
        return await exchange.run(pool)

    async def connect(self, _target: object, *, fresh: bool = False) -> Connection:
        """Return a connection: one that was kept, or a new one."""
        while self._idle:
            channel = self._idle.pop()
            if channel.is_fit() and not fresh:
                return Connection(channel, self._idle)
            channel.close()
        await anyio.sleep(0.01 * self.draw.random())
        channel = Channel(asyncio.get_running_loop())
        channel.connection_made(Line(channel, self))
        return Connection(channel, self._idle)

    def serve(self, line: Line, request: httpx.Request) -> None:
        """Let the service answer a request that has come whole."""
        task = asyncio.create_task(self._serve(line, request))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, line: Line, request: httpx.Request) -> None:
        streamed = b'"stream":true' in request.content.replace(b" ", b"")
        try:
            response = await self.service.handle_async_request(request)
            body = b"".join([part async for part in response.aiter_raw()])
        except httpx.RemoteProtocolError:  # cut short
            begun = EVENTS + _events("abc", done=False) if streamed else BEGUN
            line.hand(begun[: self.draw.randrange(len(begun) + 1)])
            line.end(None)
        except httpx.HTTPError:
            line.end(ConnectionResetError())
        else:
            answer = response.extensions.get("answer")
            if answer is not None:
                answer.arrived = -1.0  # not before its last byte is there
            await self._reply(line, response, body, answer, streamed=streamed)

    async def _reply(
        self,
        line: Line,
        response: httpx.Response,
        body: bytes,
        answer: Answer | None,
        *,
        streamed: bool,
    ) -> None:
        if streamed and response.status_code == 200 and b"choices" in body:
            doc = json.loads(body)
            body = _events(doc["choices"][0]["message"]["content"], done=True, number=doc["id"])
            response.headers["content-type"] = "text/event-stream"
        way = self.draw.choice(("length", "length", "chunked", "closed"))
        text = _head(response, len(body), way) + (_chunked(body) if way == "chunked" else body)
        for _ in range(self.draw.choice((0, 0, 1, 3))):
            place = self.draw.randrange(len(text))
            line.hand(text[:place])
            text = text[place:]
            await anyio.sleep(0.02 * self.draw.random())
        line.hand(text)
        if answer is not None and not line.is_closing():
            answer.arrived = anyio.current_time()
        if way == "closed":
            line.end(None)
        elif self.draw.random() < self.service.weather.stray:
            before = line.requests
            await anyio.sleep(self.draw.choice((0.0, 0.001, 0.3)))
            if line.requests == before:  # nobody could tell it from the reply to the next one
                line.hand(STRAY)

    async def aclose(self) -> None:
        """Close every connection."""
        for task in list(self._serving):
            task.cancel()
        for channel in self._idle:
            channel.close()


class Connection:
    """What the tool holds of a channel until it is done with it."""

    def __init__(self, channel: Channel, idle: list[Channel]) -> None:
        self.protocol: Channel | None = channel
        self._idle = idle

    def close(self) -> None:
        """Close the channel."""
        if self.protocol is not None:
            self.protocol.close()
            self.protocol = None

    def release(self) -> None:
        """Keep the channel for the next request."""
        if self.protocol is not None:
            self._idle.append(self.protocol)
            self.protocol = None


class Line(asyncio.Transport):
    """Both ends of the bytes of one connection."""

    def __init__(self, channel: Channel, wire: Wire) -> None:
        super().__init__()
        self._channel = channel
        self._wire = wire
        self._buffer = bytearray()
        self._over = False
        self._unsent = 0
        self.requests = 0
        """How many requests have begun to come."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes of the tool's; whole requests go to the service."""
        if self._over:
            return
        if not self._buffer:
            self.requests += 1
            weather = self._wire.service.weather
            if self.requests > 1 and self._wire.draw.random() < weather.stale:
                self._unsent = len(data)
                self.end(None)
                return
        self._buffer += data
        head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if found and len(rest) >= size:
            self._buffer.clear()
            self._wire.serve(self, _request(head, rest))

    def hand(self, data: bytes) -> None:
        """Give the tool bytes of the service's."""
        if data and not self._over:
            self._channel.data_received(data)

    def end(self, error: Exception | None) -> None:
        """Lose the connection."""
        if not self._over:
            self._over = True
            asyncio.get_running_loop().call_soon(self._channel.connection_lost, error)

    def close(self) -> None:
        """Be closed by the tool."""
        self.end(None)

    def abort(self) -> None:
        """Be closed by the tool at once."""
        self.end(None)

    def is_closing(self) -> bool:
        """Tell whether the connection is lost."""
        return self._over

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the service's system did not take."""
        return self._unsent

    def pause_reading(self) -> None:
        """Go on: all bodies are small."""

    def resume_reading(self) -> None:
        """Go on."""


def _request(head: bytes, body: bytes) -> httpx.Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = httpx.Headers([(name, value) for name, _, value in map(_parted, lines)])
    host = headers["host"]
    return httpx.Request(
        method, f"http://{host}{target}", headers=headers, content=body, extensions=dict(FOREVER)
    )


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(": ")


def _head(response: httpx.Response, size: int, way: str) -> bytes:
    lines = [b"HTTP/1.1 %d Whatever" % response.status_code]
    lines += [
        b"%s: %s" % (name, value)
        for name, value in response.headers.raw
        if name.lower() not in (b"content-length", b"transfer-encoding")
    ]
    framing = {"length": b"Content-Length: %d" % size, "chunked": b"Transfer-Encoding: chunked"}
    lines.append(framing.get(way, b"Connection: close"))
    return b"\r\n".join([*lines, b"", b""])


def _chunked(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [part for part in (body[:half], body[half:]) if part]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _events(content: str, *, done: bool, number: str = "m-0") -> bytes:
    """Return a stream of chat completions in which a content comes in two pieces."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        doc = {"id": number, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(doc)}\n\n"

    text = chunk({"role": "assistant", "content": ""})
    text += chunk({"content": content[:3]}) + chunk({"content": content[3:]})
    if done:
        text += chunk({}, "stop") + "data: [DONE]\n\n"
    return text.encode()
