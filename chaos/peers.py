"""A service at the level of bytes: it says what a cell wants, and keeps what it was asked."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.lab import Bench, demand, read_lines, save_lines
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.lab import Lab


@dataclass(frozen=True)
class Call:
    """One request, and the way to answer it."""

    connection: socket.socket
    path: str
    headers: dict[str, str]
    doc: dict[str, Any]
    tries: int
    """How often the same message came before."""

    @property
    def message(self) -> str:
        """Return what is asked."""
        return str(self.doc.get("message", ""))

    def send(self, *parts: bytes) -> None:
        """Send bytes as they stand."""
        with suppress(OSError):
            self.connection.sendall(b"".join(parts))

    def send_later(self, seconds: float, *parts: bytes) -> None:
        """Send bytes in a while, whatever else is sent meanwhile."""
        timer = threading.Timer(seconds, self.send, parts)
        timer.daemon = True
        timer.start()


@dataclass
class Peer:
    """A listener that lets a function answer each request.

    `asked` holds every message with its moment, `answered` those that were given an answer.
    """

    act: Callable[[Call], None]
    asked: list[tuple[str, float]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def answer(self, call: Call, **more: Any) -> None:
        """Give an ask its own answer."""
        self.answered[call.message] += 1
        call.send(whole(reply(call, **more)))

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as stream:
            while first := stream.readline():
                headers: dict[str, str] = {}
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0")))
                self._hear(connection, first.split()[1].decode(), headers, body)

    def _hear(
        self, connection: socket.socket, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        doc: Any = rawjson.loads(body) if body.startswith(b"{") else {}
        message = str(doc.get("message", path))
        call = Call(connection, path, headers, doc, self._seen[message])
        self._seen[message] += 1
        self.asked.append((message, time.monotonic()))
        self.act(call)


def reply(call: Call, **more: Any) -> bytes:
    """Return the answer to an ask, which repeats it."""
    conversation = call.doc.get("conversation_id") or f"c-{call.message}"
    content = {"error": None, "message": {"content": {"parts": [f"answer to {call.message}"]}}}
    doc = {"message_id": f"m-{call.message}", "conversation_id": conversation}
    return rawjson.dumps({**doc, "contents": [content], **more})


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a reply as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if not any(name.lower().startswith("content-length") for name in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def against(lab: Lab, name: str, act: Callable[[Peer, Call], None], *flags: str) -> Batch:
    """Return a batch to run against a peer of one's own."""
    peer = Peer(lambda call: act(peer, call))
    lab.stack.callback(peer.close)
    bench = Bench(lab.folder / name, peer.origin, lab.rand, flags=list(flags), used=lab.used)
    return Batch(lab, peer, bench)


@dataclass
class Batch:
    """An input of plain asks, and what has to come of it."""

    lab: Lab
    peer: Peer
    bench: Bench
    lines: list[dict[str, Any]] = field(default_factory=list)

    def write(self, count: int, asks: int = 1) -> None:
        """Write lines of so many asks."""
        tag = f"{self.bench.folder.name}-{self.lab.seed}"
        self.lines = [
            {"id": n, "asks": [{"content": f"{tag}-{n}-{turn}"} for turn in range(asks)]}
            for n in range(count)
        ]
        save_lines(self.bench.input, self.lines)

    def verify(self) -> None:
        """Demand that each ask has its own answer, and that none was paid for twice."""
        found = read_lines(self.bench.out)
        demand(len(found) == len(self.lines), f"{len(found)} lines of {len(self.lines)}")
        for line, result in zip(self.lines, found, strict=True):
            demand("iErr" not in result, "not done:", result)
            demand(len(result["answers"]) == len(line["asks"]), "answers missing:", result)
            for ask, answer in zip(line["asks"], result["answers"], strict=True):
                text = answer["contents"][0]["message"]["content"]["parts"][0]
                demand(text == f"answer to {ask['content']}", "another's answer:", ask, text)
        self.paid_once()
        self.lab.counts.note(lines=len(found))

    def paid_once(self) -> None:
        """Demand that no ask was answered twice."""
        twice = {message: number for message, number in self.peer.answered.items() if number > 1}
        demand(not twice, "asks paid twice:", twice)
        self.lab.counts.note(answered=sum(self.peer.answered.values()), asked_twice=0)
