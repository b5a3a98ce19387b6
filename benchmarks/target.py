"""A service for measurements: it answers at once or late, and remembers when calls came.

- POST …/all-tools, …/gizmos, /v1/chat/completions: a reply of about 1 KB
- POST …/uploaded: the bytes are counted and dropped
- GET /files/<name>: zeros, with Content-Length and Range
- GET /arrivals: monotonic nanoseconds of each call as int64; GET /codes: its status as int16;
  GET /tokens: what each answered call took as int64
- GET /counts: totals as JSON; POST /reset: forget all

It prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
import time
from array import array
from collections import deque
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":  # started by its path, without the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import replies

CHUNK = bytes(1 << 20)


def latencies(count: int, mean: float, spread: float, seed: int) -> list[float]:
    """Return the seconds that the first `count` calls take, in order of arrival."""
    chance = random.Random(seed)
    return [mean * chance.uniform(1 - spread, 1 + spread) for _ in range(count)]


class Limit:
    """A rate limit that changes: `0:100,15:30` is 100 calls a second, and 30 from second 15 on."""

    def __init__(self, plan: str) -> None:
        steps = (step.split(":") for step in plan.split(",") if step)
        self.steps = sorted((float(at), float(rate)) for at, rate in steps)
        self.accepted: deque[float] = deque()
        self.began = 0.0

    def refuses(self, now: float) -> bool:
        """Tell whether one more call within the last second is too many."""
        self.began = self.began or now
        rate = [rate for at, rate in self.steps if at <= now - self.began][-1]
        while self.accepted and self.accepted[0] <= now - 1:
            self.accepted.popleft()
        if len(self.accepted) >= rate:
            return True
        self.accepted.append(now)
        return False


class TokenLimit:
    """So many tokens in any minute; a call is refused when its own would not fit any more."""

    def __init__(self, most: int, seed: int) -> None:
        self.most = most
        self.accepted: deque[tuple[float, int]] = deque()
        self.within = 0
        self.taken = array("q")
        self.chance = random.Random(seed)

    def usage(self, now: float, size: int) -> dict[str, int] | None:
        """Return what a call of that many bytes takes, or None where it is refused."""
        while self.accepted and self.accepted[0][0] <= now - 60:
            self.within -= self.accepted.popleft()[1]
        asked, said = size // 4, self.chance.randint(40, 360)
        if self.within + asked + said > self.most:
            return None
        self.accepted.append((now, asked + said))
        self.within += asked + said
        self.taken.append(asked + said)
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


class State:
    """What the service was told to do and what it saw."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.arrivals = array("q")
        self.codes = array("h")
        self.uploaded = 0
        self.uploads = 0
        self.last_answer = 0
        options = self.options
        self.limit = Limit(options.limits) if options.limits else None
        self.tokens = TokenLimit(options.tpm, options.seed) if options.tpm else None
        self.chance = random.Random(options.seed)

    def latency(self) -> float:
        mean, spread = self.options.latency, self.options.spread
        return mean * self.chance.uniform(1 - spread, 1 + spread) if mean else 0.0

    def counts(self) -> bytes:
        return b'{"calls":%d,"uploads":%d,"uploaded":%d,"last_answer":%d}' % (
            len(self.arrivals),
            self.uploads,
            self.uploaded,
            self.last_answer,
        )


class Service(asyncio.Protocol):
    """One connection: requests one after the other, their bodies counted and dropped."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.left = 0
        self.size = 0
        self.head: bytes | None = None
        self.sending: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.sending:
            self.sending.cancel()

    def pause_writing(self) -> None:
        self.ready.clear()

    def resume_writing(self) -> None:
        self.ready.set()

    def data_received(self, data: bytes) -> None:
        if self.head is not None and len(data) < self.left:
            self.left -= len(data)
            return
        data = self.buffer + data
        while data:
            if self.head is None:
                head, found, rest = data.partition(b"\r\n\r\n")
                if not found:
                    break
                self.began(head)
                data = rest
            took = min(self.left, len(data))
            self.left -= took
            data = data[took:]
            if self.left:
                break
            self.answer()
        self.buffer = data

    def began(self, head: bytes) -> None:
        """Take a request's head; a call arrives with it, not with the end of its body."""
        self.head = head
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self.left = self.size = int(length[1]) if length else 0
        if b" /reset" not in head and head.startswith(b"POST"):
            self.state.arrivals.append(time.monotonic_ns())
        if re.search(rb"(?i)\r\nexpect: *100-continue", head):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"/uploaded " in head:
            self.state.uploads += 1
            self.state.uploaded += self.left

    def answer(self) -> None:
        assert self.head is not None
        head, self.head = self.head, None
        method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
        if method == b"GET":
            self.serve(path, head)
        elif path == b"/reset":
            self.state.reset()
            self.send(200, b"{}")
        elif self.state.chance.random() < self.state.options.weather:
            self.state.codes.append(429)
            self.send(429, b'{"detail":"busy"}')
        elif self.state.limit and self.state.limit.refuses(time.monotonic()):
            self.state.codes.append(429)
            self.send(429, b'{"detail":"slow down"}', b"Retry-After: 1\r\n")
        elif self.state.tokens:
            self.spend(self.state.tokens)
        else:
            self.state.codes.append(200)
            delay = self.state.latency()
            if delay:
                asyncio.get_running_loop().call_later(delay, self.reply, path)
            else:
                self.reply(path)

    def spend(self, limit: TokenLimit) -> None:
        """Answer a call late, with what it took; refuse what the minute has no tokens for."""
        usage = limit.usage(time.monotonic(), self.size)
        self.state.codes.append(429 if usage is None else 200)
        if usage is None:
            self.send(429, b'{"error":{"message":"tokens per minute","code":"rate_limit"}}')
            return
        body = replies.with_usage(usage)
        asyncio.get_running_loop().call_later(self.state.latency(), self.send, 200, body)

    def reply(self, path: bytes) -> None:
        if self.transport.is_closing():
            return
        self.state.last_answer = time.monotonic_ns()
        if path.endswith(b"/uploaded"):
            self.send(200, replies.UPLOADED)
        elif path.startswith(b"/v1/"):
            self.send(200, replies.COMPLETION)
        elif self.state.options.file_size:
            number = len(self.state.codes)
            link = f"http://127.0.0.1:{self.state.port}/files/{number}.bin"
            self.send(200, replies.with_downloads([link]))
        else:
            self.send(200, replies.CHAT)

    def serve(self, path: bytes, head: bytes) -> None:
        if path == b"/arrivals":
            self.send(200, self.state.arrivals.tobytes())
        elif path == b"/codes":
            self.send(200, self.state.codes.tobytes())
        elif path == b"/tokens":
            self.send(200, self.state.tokens.taken.tobytes() if self.state.tokens else b"")
        elif path == b"/counts":
            self.send(200, self.state.counts())
        elif path.startswith(b"/files/"):
            self.sending = asyncio.get_running_loop().create_task(self.stream(head))
        else:
            self.send(404, b"{}")

    async def stream(self, head: bytes) -> None:
        """Send a file of zeros, or the rest of it from where a Range starts."""
        size = self.state.options.file_size
        asked = re.search(rb"(?i)\r\nrange: *bytes=(\d+)-", head)
        start = min(int(asked[1]), size) if asked else 0
        status = b"206 Partial Content" if asked else b"200 OK"
        extra = b"Content-Range: bytes %d-%d/%d\r\n" % (start, size - 1, size) if asked else b""
        self.transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%s\r\n"
            % (status, size - start, extra)
        )
        for at in range(start, size, len(CHUNK)):
            await self.ready.wait()
            self.transport.write(memoryview(CHUNK)[: size - at])

    def send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
            % (status, b"OK" if status == 200 else b"No", len(body), extra, body)
        )


async def main(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    state = State(options)
    server = await loop.create_server(lambda: Service(state), "127.0.0.1", 0, backlog=1024)
    state.port = server.sockets[0].getsockname()[1]
    print(state.port, flush=True)
    await server.serve_forever()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--spread", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limits", default="")
    parser.add_argument("--tpm", type=int, default=0)
    parser.add_argument("--weather", type=float, default=0.0)
    parser.add_argument("--file-size", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    import uvloop

    with suppress(OSError):  # a clock has to look up in time, where root may tell it to
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    uvloop.run(main(parsed()))
