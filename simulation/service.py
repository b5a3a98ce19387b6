"""The service of a history: it lives in the same loop, behind the transport, and keeps count.

It speaks the wire format of the service's documentation in the plainest way. What it does to a call
is drawn from the history's seed. Its memory outlives the process that calls it: `State` is handed
on from run to run.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import httpx

ORIGIN = "http://service.invalid"
CHAT = f"{ORIGIN}/standard/all-tools"
UPLOAD = f"{ORIGIN}/standard/uploaded"
BASE = f"{ORIGIN}/v1"
COMPLETIONS = f"{BASE}/chat/completions"
FILES = f"{ORIGIN}/files"
TOKEN = f"{ORIGIN}/console/access_token"
LATER = 3.0
"""Seconds after which a limit moves."""


@dataclass(slots=True)
class Answer:
    """An answer that the service gave, and is paid for."""

    serial: int
    ask: str
    conversation: str
    parent: str
    files: tuple[str, ...]
    run: int
    asked: float
    """When its call came, in seconds of its run."""
    arrived: float = -1.0
    """When the whole reply was handed to the client, in seconds of its run; before that, -1."""


@dataclass(slots=True)
class State:
    """What the service knows; it outlives the client's processes."""

    answers: list[Answer] = field(default_factory=list)
    conversations: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each upload its conversation and its content."""
    files: dict[str, bytes] = field(default_factory=dict)
    fetched: dict[str, int] = field(default_factory=dict)
    calls: list[float] = field(default_factory=list)
    """When calls came in this run, chats and uploads alike."""
    run: int = 0
    chats: int = 0
    """Chats that came in this run, whatever became of them."""
    uploaded: int = 0
    """Uploads that came in this run."""
    token: int = 1
    token_calls: int = 0
    numbers: int = 0
    seconds: float = 0.0
    """How long the runs took that have ended."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How a service treats calls during one run: shares of calls, and seconds."""

    refused: float = 0.0
    failed: float = 0.0
    reset: float = 0.0
    lost: float = 0.0
    cut: float = 0.0
    stray: float = 0.0
    """Where calls go as bytes: replies that are followed by one that nobody asked for."""
    stale: float = 0.0
    """There too: requests that leave on a connection that is just being closed."""
    hang: float = 0.0
    garbage: float = 0.0
    no_answer: float = 0.0
    latency: float = 0.3
    limit: int = 0
    """Calls a second that are let through; 0 is no limit."""
    limit_later: int = 0
    """The limit after `LATER` seconds; 0 is the same as before."""
    quota_from: float = 0.0
    """When every call begins to be refused as if the account were empty; 0 is never."""
    quota_until: float = 0.0
    token_fails: float = 0.0
    """The share of calls of the token service that fail."""
    after: float = 0.0
    """The Retry-After of a refusal, in seconds."""
    token_lasts: int = 0
    """Calls after which the token is refused; 0 is never."""
    link_failed: float = 0.0
    forgets: bool = False
    """Whether conversations of earlier runs are no longer known."""


class Service(httpx.AsyncBaseTransport):
    """Answer requests by a seeded draw of faults.

    Args:
        state: What is known from earlier runs.
        weather: How calls are treated.
        seed: Draws the faults.
    """

    def __init__(self, state: State, weather: Weather, seed: int) -> None:
        self.state = state
        self.weather = weather
        self._random = random.Random(seed)
        self._recent: list[float] = []
        self._in_this_run = 0
        state.calls.clear()
        state.run += 1
        state.chats = state.uploaded = 0
        if weather.forgets:
            state.conversations.clear()
            state.uploads.clear()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or fail as a network does."""
        url = str(request.url)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in request.stream])
        if url == TOKEN:
            return self._issue_token()
        if url.startswith(FILES):
            return await self._file(url)
        self._count_call(url)
        fault = self._fault()
        if fault in ("connect", "reset"):
            await anyio.sleep(self._delay(0.05))
            error = httpx.ConnectError if fault == "connect" else httpx.ReadError
            raise error(f"{fault} of a history")
        if refusal := self._refusal(request, fault):
            await anyio.sleep(self._delay(0.02))
            return refusal
        if url == UPLOAD:
            return await self._upload(body)
        doc = json.loads(body)
        if url == CHAT:
            return await self._chat(doc, request, fault)
        if (asked := self._completing(doc)) is not None:
            no_answer = {"error": {"message": "the model is overloaded"}}
            return await self._answer(asked, _completed, no_answer, request, fault)
        await anyio.sleep(self._delay(0.02))
        return reply({"error": {"message": "the prompt is not allowed"}}, 400)

    # -- faults ------------------------------------------------------------------------------

    def _fault(self) -> str:
        weather, draw = self.weather, self._random.random()
        for name in ("refused", "failed", "reset", "lost", "cut", "hang", "garbage", "no_answer"):
            share = getattr(weather, name)
            if draw < share:
                return "connect" if name == "reset" and draw < share / 2 else name
            draw -= share
        return ""

    def _delay(self, seconds: float) -> float:
        return seconds * (0.5 + self._random.random())

    def _count_call(self, url: str) -> None:
        self.state.calls.append(anyio.current_time())
        self.state.chats += url in (CHAT, COMPLETIONS)
        self.state.uploaded += url == UPLOAD
        self._in_this_run += 1

    def _refusal(self, request: httpx.Request, fault: str) -> httpx.Response | None:
        """Return a refusal before anything is processed, or nothing."""
        weather, now = self.weather, anyio.current_time()
        if weather.token_lasts and self._in_this_run % weather.token_lasts == 0:
            self.state.token += 1
        if request.headers.get("authorization") != f"Bearer token-{self.state.token:06d}":
            return reply({"error": {"message": "token expired"}}, 401)
        if weather.quota_from and weather.quota_from <= now < weather.quota_until:
            words = {"message": "you exceeded your current quota", "code": "insufficient_quota"}
            return reply({"error": words}, 429)
        if not self._is_within_limit(now):
            return self._too_many()
        return self._failure(fault)

    def _is_within_limit(self, now: float) -> bool:
        limit = self.weather.limit
        if limit and now >= LATER:
            limit = self.weather.limit_later or limit
        if not limit:
            return True
        self._recent = [moment for moment in self._recent if moment > now - 1.0]
        if len(self._recent) >= limit:
            return False
        self._recent.append(now)
        return True

    def _failure(self, fault: str) -> httpx.Response | None:
        if fault == "refused":
            return self._too_many()
        if fault == "failed":
            status = self._random.choice((500, 502, 503, 504, 408))
            return httpx.Response(status, stream=httpx.ByteStream(b"<html>bad gateway</html>"))
        if fault == "garbage":
            return httpx.Response(200, stream=httpx.ByteStream(b"<html>welcome</html>"))
        return None

    def _too_many(self) -> httpx.Response:
        after = self.weather.after
        headers = {"retry-after": f"{after:g}"} if after else {}
        return reply({"error": {"message": "too many requests"}}, 429, headers)

    # -- what is processed -------------------------------------------------------------------

    async def _chat(
        self, body: dict[str, Any], request: httpx.Request, fault: str
    ) -> httpx.Response:
        state, message = self.state, body["message"]
        if message.startswith("reject"):
            await anyio.sleep(self._delay(0.02))
            return reply({"error": {"message": "the prompt is not allowed"}}, 400)
        conversation = body.get("conversation_id") or ""
        parent = body.get("parent_message_id") or ""
        if conversation and conversation not in state.conversations:
            await anyio.sleep(self._delay(0.02))
            return reply({"error": {"message": "conversation not found"}}, 404)
        sent = [item["asset_pointer"] for item in body.get("parts") or ()]
        sent += [item["id"] for item in body.get("attachments") or ()]
        if any(name not in state.uploads for name in sent):
            await anyio.sleep(self._delay(0.02))
            return reply({"error": {"message": "attachment not found"}}, 404)
        files = tuple(state.uploads[name][1] for name in sent)
        asked = (message, conversation, parent, files)
        no_answer = {"contents": [{"error": "the model is overloaded", "message": None}]}
        return await self._answer(
            asked, lambda answer: reply(self._answered(answer)), no_answer, request, fault
        )

    async def _answer(
        self,
        asked: tuple[str, str, str, tuple[str, ...]],
        worded: Callable[[Answer], httpx.Response],
        no_answer: dict[str, Any],
        request: httpx.Request,
        fault: str,
    ) -> httpx.Response:
        """Give an answer, which is paid for from here on."""
        message, conversation, parent, files = asked
        if fault == "no_answer":
            await anyio.sleep(self._delay(self.weather.latency))
            return reply(no_answer)
        number = self._number()
        conversation = conversation or f"c-{number}"
        now = anyio.current_time()
        answer = Answer(number, message, conversation, parent, files, self.state.run, now)
        self.state.answers.append(answer)
        self.state.conversations.setdefault(conversation, []).append(f"m-{number}")
        await self._end(request, fault)
        answer.arrived = anyio.current_time()
        response = worded(answer)
        response.extensions["answer"] = answer
        return response

    def _completing(self, body: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...]] | None:
        """Return what a call of chat completions asks, unless it is refused.

        The conversation that it goes on is that of the last answer in it.
        """
        *before, last = body["messages"]
        parts = last["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        message = "".join(part["text"] for part in parts if part["type"] == "text")
        if message.startswith("reject"):
            return None
        data = [part["file"]["file_data"] for part in parts if part["type"] == "file"]
        files = tuple(base64.b64decode(one.partition("base64,")[2]).decode() for one in data)
        said = [one["content"] for one in before if one["role"] == "assistant"]
        serial = int(said[-1].removeprefix("answer ")) if said else 0
        known = {answer.serial: answer.conversation for answer in self.state.answers}
        return message, known.get(serial, ""), f"m-{serial}" if serial else "", files

    def _answered(self, answer: Answer) -> dict[str, Any]:
        message = {
            "author": {"role": "assistant"},
            "content": {"content_type": "text", "parts": [f"answer {answer.serial}"]},
        }
        found: dict[str, Any] = {
            "created": 0,
            "message_id": f"m-{answer.serial}",
            "conversation_id": answer.conversation,
            "contents": [
                {"conversation_id": answer.conversation, "error": None, "message": message}
            ],
        }
        if "link" in answer.ask:
            links = []
            for place in range(1 + answer.serial % 3):
                url = f"{FILES}/{answer.serial}-{place}/data.bin"
                size = self._random.randrange(5000)
                self.state.files[url] = bytes([answer.serial % 256]) * size + b"%d" % place
                links.append(url)
            found["downloads"] = links
        return found

    async def _end(self, request: httpx.Request, fault: str) -> None:
        """Let the reply take its time, or never arrive though it is paid for."""
        timeout = float(request.extensions.get("timeout") or 480.0)
        seconds = self._delay(self.weather.latency)
        if fault == "hang" or seconds > timeout:
            await anyio.sleep(timeout)
            raise httpx.ReadTimeout("no answer")
        await anyio.sleep(seconds)
        if fault == "lost":
            raise httpx.ReadError("the connection was lost")
        if fault == "cut":
            raise httpx.RemoteProtocolError("the reply was cut short")

    async def _upload(self, body: bytes) -> httpx.Response:
        fields = dict(re.findall(rb'name="(\w+)"\r\n\r\n(.*?)\r\n--', body, re.DOTALL))
        found = re.search(
            rb'name="file"; filename="[^"]*"\r\n.*?\r\n\r\n(.*)\r\n--', body, re.DOTALL
        )
        assert found is not None, body[:300]
        content = found[1].decode()
        number = self._number()
        conversation = fields.get(b"conversation_id", b"").decode() or f"c-{number}"
        self.state.conversations.setdefault(conversation, [])
        name = f"file-{number}"
        self.state.uploads[name] = (conversation, content)
        await anyio.sleep(self._delay(0.05))
        part = attachment = None
        if fields[b"type"] == b"multimodal":
            part = {"asset_pointer": name, "name": "x", "size_bytes": len(content)}
        else:
            attachment = {"id": name, "name": "x", "size": len(content)}
        return reply({"conversation_id": conversation, "attachment": attachment, "part": part})

    async def _file(self, url: str) -> httpx.Response:
        await anyio.sleep(self._delay(0.05))
        if self._random.random() < self.weather.link_failed:
            if self._random.random() < 0.5:
                return reply({"error": "busy"}, 503)
            raise httpx.ReadError("the connection was lost")
        content = self.state.files[url]
        self.state.fetched[url] = self.state.fetched.get(url, 0) + 1
        headers = {"content-length": str(len(content))}
        return httpx.Response(200, headers=headers, stream=_Streamed(content))

    def _issue_token(self) -> httpx.Response:
        self.state.token_calls += 1
        if self._random.random() < self.weather.token_fails:
            return reply({"error": "bad gateway"}, 502)
        token = f"token-{self.state.token:06d}"
        return reply({"access_token": token, "expired_at": 4102444800, "username": "sim"})

    def _number(self) -> int:
        self.state.numbers += 1
        return self.state.numbers


class _Streamed(httpx.AsyncByteStream):
    """A body in two pieces."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> Any:
        half = len(self._content) // 2
        for part in (self._content[:half], self._content[half:]):
            await anyio.lowlevel.checkpoint()
            if part:
                yield part

    async def aclose(self) -> None:
        """Nothing is open."""


def _completed(answer: Answer) -> httpx.Response:
    message = {"role": "assistant", "content": f"answer {answer.serial}"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return reply({"id": f"m-{answer.serial}", "object": "chat.completion", "choices": [choice]})


def reply(
    doc: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Return a JSON reply."""
    content = json.dumps(doc).encode()
    given = {"content-type": "application/json", "content-length": str(len(content))}
    return httpx.Response(status, headers=given | (headers or {}), stream=httpx.ByteStream(content))
