"""The embedded service: routes, calls and the life of the server."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Self

import anyio
import orjson
from aiohttp import web

from gpt4batch.errors import UsageError
from gpt4batch.mock import assets
from gpt4batch.mock.asks import parse_ask, parse_json
from gpt4batch.mock.conversations import Memory
from gpt4batch.mock.digests import chance_of, digest
from gpt4batch.mock.faults import Faults, Limit, too_many
from gpt4batch.mock.refusal import Refusal, json_response
from gpt4batch.mock.replies import Reply, answer_text
from gpt4batch.mock.settings import ASSET_FAULTS, CALL_FAULTS, MockSettings
from gpt4batch.mock.stats import Stats
from gpt4batch.mock.tokens import Tokens
from gpt4batch.mock.uploads import receive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from aiohttp.web_request import BaseRequest

    from gpt4batch.mock.conversations import Turn

    Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]

__all__ = ["MockService"]

log = logging.getLogger("gpt4batch.mock")

EDITIONS = ("standard", "concurrent")
MAX_BODY = 64 * 1024 * 1024
SHUTDOWN = 0.1
"""Seconds that calls under way get at the end, before they are broken off."""
GARBAGE = (
    b"<html><head><title>Welcome</title></head><body>Sign in to the network</body></html>",
    b'{"created": 1708834483, "message_id": "7da0',
    b"",
)
INDEX = """gpt4batch: the embedded service

It answers like the service, costs nothing, and fails when it is told to.
  POST {origin}/standard/uploaded    POST {origin}/concurrent/uploaded
  POST {origin}/standard/all-tools   POST {origin}/concurrent/all-tools
  POST {origin}/standard/gizmos      POST {origin}/concurrent/gizmos
  POST {origin}/console/access_token
  GET  {origin}/stats                what it saw, as JSON
A message with [[mock:KIND]] fails, with [[mock:KIND*2]] twice; KIND is rate-limit, error, reset,
hang, cut, garbage, empty, content-error, or a status from 400 to 599.
"""


class MockService:
    """The service on a port of this machine, from `async with` to its end.

    async with MockService(MockSettings(seed=7)) as service:
        print(service.origin, service.token)
    """

    def __init__(self, settings: MockSettings | None = None) -> None:
        self.settings = settings or MockSettings()
        self.origin = ""
        self.token = self.settings.token or "any-token"
        self.stats = Stats(self.settings.history)
        self._memory = Memory(self.settings.seed, self.settings.history)
        self._tokens = Tokens(self.settings)
        self._limit = Limit(self.settings.limit_qps)
        self._call_faults = Faults(self.settings, CALL_FAULTS)
        self._asset_faults = Faults(self.settings, ASSET_FAULTS)
        self._calls = self._routes()
        self._others: dict[tuple[str, str], Handler] = {
            ("POST", "/console/access_token"): self._issue_token,
            ("GET", "/stats"): self._show_stats,
            ("GET", "/"): self._show_index,
        }
        self._runner: web.ServerRunner | None = None

    def _routes(self) -> dict[str, Handler]:
        ends = {"uploaded": self._upload, "all-tools": self._all_tools, "gizmos": self._gizmos}
        return {f"/{edition}/{end}": ends[end] for edition in EDITIONS for end in ends}

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN)
        await self._runner.setup()
        host, port = self.settings.host, self.settings.port
        try:
            await web.TCPSite(self._runner, host, port, backlog=1024).start()
        except OSError as error:
            await self._runner.cleanup()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UsageError(
                f"cannot listen on {host}:{port}: {reason}; choose another --port"
            ) from error
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.origin = (
            f"http://{f'[{shown}]' if ':' in shown else shown}:{self._runner.addresses[0][1]}"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        start = time.monotonic()
        status = 0
        try:
            response = await self._dispatch(request, path)
            status = response.status
        finally:
            log.debug(
                "%s %s %s %.1f ms",
                request.method,
                path,
                status or "-",
                (time.monotonic() - start) * 1000,
            )
        return response

    async def _dispatch(self, request: BaseRequest, path: str) -> web.StreamResponse:
        route = self._route(path)
        try:
            if call := self._calls.get(path):
                response = await self._call(request, call)
            else:
                response = await self._other(request, path)
        except Refusal as refusal:
            self.stats.refused(route, refusal.status, refusal.message)
            response = refusal.response()
        except (asyncio.CancelledError, ConnectionError):
            self.stats.abandoned += 1
            raise
        self.stats.calls[route, response.status] += 1
        self.stats.bytes_out += response.content_length or 0
        return response

    def _route(self, path: str) -> str:
        """Return the path under which a request is counted: one for all files, one for the rest."""
        if path in self._calls or any(path == known for _, known in self._others):
            return path
        return "/files" if path.startswith("/files/") else "other"

    async def _call(self, request: BaseRequest, call: Handler) -> web.StreamResponse:
        moment = time.monotonic()
        self.stats.arrive(moment)
        try:
            if request.method != "POST":
                raise Refusal(405, f"use POST, not {request.method}", {"Allow": "POST"})
            self._tokens.admit(request.headers.get("Authorization"))
            if not self._limit.allows(moment):
                self.stats.faults["limit-qps"] += 1
                raise too_many(self.settings)
            return await call(request)
        finally:
            self.stats.leave()

    async def _other(self, request: BaseRequest, path: str) -> web.StreamResponse:
        if path.startswith("/files/") and request.method in ("GET", "HEAD"):
            return await self._send_file(request)
        if handler := self._others.get((request.method, path)):
            return await handler(request)
        if any(known == path for _, known in self._others) or path.startswith("/files/"):
            raise Refusal(405, f"{path} does not take {request.method}")
        raise Refusal(404, f"there is no {path} here")

    async def _body(self, request: BaseRequest) -> bytes:
        if (request.content_length or 0) > MAX_BODY:
            raise Refusal(413, f"the body is larger than {MAX_BODY} bytes")
        body = await request.content.read()
        self.stats.bytes_in += len(body)
        return body

    async def _all_tools(self, request: BaseRequest) -> web.StreamResponse:
        return await self._chat(request, gizmo=False)

    async def _gizmos(self, request: BaseRequest) -> web.StreamResponse:
        return await self._chat(request, gizmo=True)

    async def _chat(self, request: BaseRequest, *, gizmo: bool) -> web.StreamResponse:
        if request.content_type != "application/json":
            raise Refusal(415, f"a chat is application/json, not {request.content_type}")
        ask = parse_ask(await self._body(request), gizmo=gizmo)
        turn = self._memory.turn(ask)
        if self.settings.quota and self.stats.chats_answered >= self.settings.quota:
            raise Refusal(402, "the quota of the account is used up")
        fault = self._call_faults.draw(turn.key, ask.message)
        await self._wait(turn.key)
        if fault:
            return await self._fail(fault, request, turn.key, self._reply(turn))
        if self.settings.latency:
            # While this call waited another one may have gone on with the conversation.
            turn = self._memory.turn(ask)
        reply = self._reply(turn)
        self._memory.advance(turn, reply["conversation_id"], reply["message_id"])
        self.stats.answered(turn.key, ask.message, again=turn.again)
        return json_response(reply)

    def _reply(self, turn: Turn) -> dict[str, Any]:
        known = self._memory.ids(turn, self.stats.times_answered(turn.key))
        text = answer_text(
            turn.ask.message,
            [file.sha256 for file in turn.files],
            seed=self.settings.seed,
            size=self.settings.answer_size,
        )
        reply = Reply(turn, *known).whole(text)
        if chance_of(turn.key, 1) < self.settings.asset_rate:
            reply["downloads"] = self._links(turn.key)
        return reply

    def _links(self, key: bytes) -> list[str]:
        after = self.settings.asset_expire_after
        expires_at = time.time() + after if after else 0.0
        names = assets.asset_names(key, self.settings.asset_count)
        seed, size = self.settings.seed, self.settings.asset_size
        return [assets.link(self.origin, seed, name, size, expires_at) for name in names]

    async def _upload(self, request: BaseRequest) -> web.StreamResponse:
        form = await receive(request, self.settings.max_upload_bytes)
        self.stats.bytes_in += form.size
        if form.conversation_id:
            self._memory.find(form.conversation_id)
        entry = self._memory.describe(form)
        key = digest(
            self.settings.seed, "upload", form.conversation_id, form.type, form.name, form.sha256
        )
        fault = self._call_faults.draw(key, form.name)
        await self._wait(key)
        if fault and fault != "content-error":
            none = {"conversation_id": "", "attachment": None, "part": None}
            return await self._fail(fault, request, key, none)
        reply = self._memory.store(form, entry, key)
        self.stats.uploads_answered += 1
        return json_response(reply)

    async def _wait(self, key: bytes) -> None:
        if latency := self.settings.latency:
            spread = self.settings.jitter * (2 * chance_of(key, 2) - 1)
            await asyncio.sleep(latency * (1 + spread))

    async def _fail(
        self, fault: str, request: BaseRequest, key: bytes, reply: dict[str, Any]
    ) -> web.StreamResponse:
        self.stats.faults[fault] += 1
        if fault == "rate-limit":
            raise too_many(self.settings)
        if fault == "error" or fault.isdigit():
            raise Refusal(
                500 if fault == "error" else int(fault), "the mock service fails on purpose"
            )
        if fault == "reset":
            return _reset(request)
        if fault == "hang":
            await anyio.sleep_forever()
        if fault == "cut":
            body = orjson.dumps(reply)
            return await _cut(request, web.StreamResponse(), body[: len(body) // 2], len(body))
        return _spoilt(fault, key, reply)

    async def _issue_token(self, request: BaseRequest) -> web.StreamResponse:
        issued = self._tokens.issue(parse_json(await self._body(request)))
        self.stats.tokens_issued += 1
        return json_response(issued)

    async def _show_stats(self, _request: BaseRequest) -> web.StreamResponse:
        return json_response(self.stats.to_dict())

    async def _show_index(self, _request: BaseRequest) -> web.StreamResponse:
        return web.Response(text=INDEX.format(origin=self.origin))

    async def _send_file(self, request: BaseRequest) -> web.StreamResponse:
        self.stats.downloads += 1
        if "Authorization" in request.headers:
            self.stats.downloads_with_authorization += 1
        asset = assets.Asset(request, self.settings.seed, ranges=self.settings.ranges)
        self.stats.downloads_ranged += asset.partial
        fault = self._asset_faults.draw(digest(asset.name, asset.size))
        if fault:
            self.stats.faults[fault] += 1
        if fault == "asset-error":
            raise Refusal(500, "the mock service fails on purpose")
        response = asset.response()
        stop = (asset.start + asset.stop) // 2 if fault == "asset-cut" else asset.stop
        if fault:
            response.force_close()
        await response.prepare(request)
        if request.method == "GET":
            for block in assets.asset_blocks(asset.name, asset.size, asset.start, stop):
                await response.write(block)
        return response


def _reset(request: BaseRequest) -> web.StreamResponse:
    """Break the connection at once; the response goes nowhere."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response(status=499)


async def _cut(
    request: BaseRequest, response: web.StreamResponse, body: bytes, length: int
) -> web.StreamResponse:
    """Announce a length, send less, and close."""
    response.content_type = "application/json"
    response.content_length = length
    response.force_close()
    await response.prepare(request)
    await response.write(body)
    return response


def _spoilt(fault: str, key: bytes, reply: dict[str, Any]) -> web.StreamResponse:
    """Answer 200 with something that is no answer."""
    if fault == "garbage":
        body = GARBAGE[key[0] % len(GARBAGE)]
        kind = "application/json" if body.startswith(b"{") else "text/html"
        return web.Response(body=body, content_type=kind)
    if fault == "content-error":
        error = {"error": "the mock service fails on purpose", "message": None}
        reply["contents"] = [{"conversation_id": reply["conversation_id"], **error}]
    elif key[0] % 3 == 0:
        reply["contents"] = []
    elif key[0] % 3 == 1:
        reply["contents"] = None
    else:
        reply.pop("contents", None)
    reply.pop("downloads", None)
    return json_response(reply)
