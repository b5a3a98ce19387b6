"""The embedded service: routes, calls and the life of the server."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Self

from aiohttp import web

from gpt4batch.errors import UsageError
from gpt4batch.mock import assets, openai
from gpt4batch.mock.asks import parse_json
from gpt4batch.mock.digests import digest
from gpt4batch.mock.faults import Faults
from gpt4batch.mock.gpt4api import Gpt4Api
from gpt4batch.mock.intake import ON_PURPOSE, Intake
from gpt4batch.mock.limits import too_many
from gpt4batch.mock.openai import OpenAi
from gpt4batch.mock.refusal import Refusal, json_response
from gpt4batch.mock.settings import ASSET_FAULTS, MockSettings
from gpt4batch.mock.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from aiohttp.web_request import BaseRequest

    Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]

__all__ = ["MockService"]

log = logging.getLogger("gpt4batch.mock")

SHUTDOWN = 0.1
"""Seconds that calls under way get at the end, before they are broken off."""
INDEX = """gpt4batch: the embedded service

It answers like the service, costs nothing, and fails when it is told to.
  POST {origin}/standard/uploaded    POST {origin}/concurrent/uploaded
  POST {origin}/standard/all-tools   POST {origin}/concurrent/all-tools
  POST {origin}/standard/gizmos      POST {origin}/concurrent/gizmos
  POST {origin}/console/access_token
  POST {origin}/v1/chat/completions  POST {origin}/v1/embeddings
  POST {origin}/v1/completions       POST {origin}/v1/responses
  GET  {origin}/v1/models
  GET  {origin}/stats                what it saw, as JSON
  GET  {origin}/stats/answers        how often each question was answered, by its digest
A message with [[mock:KIND]] fails, with [[mock:KIND*2]] twice; KIND is rate-limit, error, reset,
hang, cut, garbage, empty, content-error, or a status from 400 to 599; below /v1 also quota, length,
content-filter, refusal, unfinished, stall.
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
        self._intake = Intake(self.settings)
        self.stats = self._intake.stats
        self._tokens = Tokens(self.settings)
        self._asset_faults = Faults(self.settings, ASSET_FAULTS)
        self._openai = OpenAi(self._intake)
        self._calls = Gpt4Api(self._intake).routes() | self._openai.routes()
        self._others: dict[tuple[str, str], Handler] = {
            ("POST", "/console/access_token"): self._issue_token,
            ("GET", "/stats"): self._show_stats,
            ("GET", "/stats/answers"): self._show_answers,
            ("GET", "/"): self._show_index,
        }
        self._runner: web.ServerRunner | None = None

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
        self._intake.origin = self.origin
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
            if route in self._calls:
                response = await self._call(request, route)
            else:
                response = await self._other(request, path)
        except Refusal as refusal:
            self.stats.refused(route, refusal.status, refusal.message)
            response = (
                self._openai.refused(refusal)
                if route.startswith(openai.BASE)
                else refusal.response()
            )
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
        if end := openai.route(path):
            return openai.BASE + end
        return "/files" if path.startswith("/files/") else "other"

    async def _call(self, request: BaseRequest, route: str) -> web.StreamResponse:
        moment = time.monotonic()
        self.stats.arrive(moment)
        try:
            if request.method != "POST":
                raise Refusal(405, f"use POST, not {request.method}", {"Allow": "POST"})
            self._admit(request, route)
            if not self._intake.requests.allows(moment):
                self.stats.faults["limit-qps"] += 1
                raise too_many(self.settings)
            return await self._calls[route](request)
        finally:
            self.stats.leave()

    def _admit(self, request: BaseRequest, route: str) -> None:
        authorization = request.headers.get("Authorization")
        if route.startswith(openai.BASE):
            authorization = self._openai.authorization(request.headers)
        self._tokens.admit(authorization)

    async def _other(self, request: BaseRequest, path: str) -> web.StreamResponse:
        if path.startswith("/files/") and request.method in ("GET", "HEAD"):
            return await self._send_file(request)
        if openai.route(path) and request.method == "GET":
            self._admit(request, openai.BASE)
            return self._openai.show_models(path)
        if handler := self._others.get((request.method, path)):
            return await handler(request)
        if self._route(path) != "other":
            raise Refusal(405, f"{path} does not take {request.method}")
        raise Refusal(404, f"there is no {path} here")

    async def _issue_token(self, request: BaseRequest) -> web.StreamResponse:
        issued = self._tokens.issue(parse_json(await self._intake.body(request)))
        self.stats.tokens_issued += 1
        return json_response(issued)

    async def _show_stats(self, _request: BaseRequest) -> web.StreamResponse:
        return json_response(self.stats.to_dict())

    async def _show_answers(self, _request: BaseRequest) -> web.StreamResponse:
        return json_response(self.stats.answers())

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
            raise Refusal(500, ON_PURPOSE)
        response = asset.response()
        stop = (asset.start + asset.stop) // 2 if fault == "asset-cut" else asset.stop
        if fault:
            response.force_close()
        await response.prepare(request)
        if request.method == "GET":
            for block in assets.asset_blocks(asset.name, asset.size, asset.start, stop):
                await response.write(block)
        return response
