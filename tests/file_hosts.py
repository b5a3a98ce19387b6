"""A file host that says, byte for byte, what a test wants."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from anyio.abc import SocketStream

    Play: TypeAlias = "Callable[[SocketStream, dict[str, str]], Awaitable[None]]"
    Scene: TypeAlias = "bytes | Play"

GONE = (BrokenResourceError, ClosedResourceError, EndOfStream)


def ok(body: bytes, *headers: bytes) -> bytes:
    """Return a whole reply."""
    return reply(b"200 OK", body, b"Content-Length: %d" % len(body), *headers)


def reply(status: bytes, body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Connection: close", *headers, b"", body])


def trickling(seconds: float = 0.02) -> Play:
    """Send a byte now and then, for ever."""

    async def play(stream: SocketStream, _: dict[str, str]) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await stream.send(b".")
            await anyio.sleep(seconds)

    return play


@dataclass
class FileHost:
    """What the host is asked for, and what it has in store: the scenes of a path in turn.

    A path that ends in `*` stands for all that begin so. The last scene of a path stays.
    """

    scenes: Mapping[str, list[Scene]]
    origin: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                text = await BufferedByteReceiveStream(stream).receive_until(b"\r\n\r\n", 1 << 16)
                first, *lines = text.decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (h.partition(": ") for h in lines)
                }
                path = first.split(" ")[1]
                scene = self._next(path)
                self.asked.append((path, headers))
                if isinstance(scene, bytes):
                    await stream.send(scene)
                else:
                    await scene(stream, headers)
            except (*GONE, anyio.IncompleteRead):
                pass

    def _next(self, path: str) -> Scene:
        key = path if path in self.scenes else f"{path[:2]}*"
        scenes = self.scenes[key]
        count = sum(1 for asked in self.paths if asked == path)
        return scenes[min(count, len(scenes) - 1)]


@asynccontextmanager
async def file_host(
    scenes: Mapping[str, Scene | list[Scene]], address: str = "127.0.0.1"
) -> AsyncIterator[FileHost]:
    """Serve files on a free port."""
    host = FileHost({path: s if isinstance(s, list) else [s] for path, s in scenes.items()})
    listener = await anyio.create_tcp_listener(local_host=address, local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    host.origin = f"http://{address}:{port}"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, host.serve)
        yield host
        group.cancel_scope.cancel()
