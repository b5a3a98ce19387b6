"""A peer that speaks bytes: what it says over a connection is up to the test."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = Callable[["Line"], Awaitable[None]]

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GONE = (ConnectionError, asyncio.IncompleteReadError)


def answer_to(question: str) -> bytes:
    content = {"error": None, "message": {"content": {"parts": [f"re: {question}"]}}}
    return rawjson.dumps({"message_id": "m", "conversation_id": "c", "contents": [content]})


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class Line:
    """One connection, as its peer has it."""

    def __init__(
        self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.peer.heads.append(head)
        return head

    async def question(self) -> str:
        """Read a chat whole and return what it asks."""
        found = LENGTH.search(await self.head())
        assert found is not None
        body = await self.reader.readexactly(int(found[1]))
        text: str = rawjson.loads(body)["message"]
        self.peer.questions.append(text)
        return text

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, question: str) -> None:
        await self.say(reply(answer_to(question)))

    def reset(self) -> None:
        self.writer.transport.abort()


class Peer:
    """What a peer has seen."""

    def __init__(self) -> None:
        self.origin = ""
        self.connections = 0
        self.heads: list[bytes] = []
        self.questions: list[str] = []


@asynccontextmanager
async def peering(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Serve a script on a free port, once for each connection."""
    peer = Peer()
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        tasks.add(asyncio.current_task())
        with suppress(*GONE, asyncio.CancelledError):
            await script(Line(peer, reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    peer.origin = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.sleep(0)
