"""The way of a reply to its caller: in one piece or as a stream, kept alive while it takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import orjson
from aiohttp import web

from gpt4batch.mock import openai_stream
from gpt4batch.mock.refusal import json_response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp.web_request import BaseRequest

    from gpt4batch.mock.openai_asks import Question

BLANK = b"\n"


class Sending:
    """One reply on its way.

    Args:
        request: Who asks.
        question: What is asked, and how the reply is wanted.
        headers: Headers of the response.
        keep_alive: The seconds between signs of life, which are blank lines before a reply in one
            piece and comments in a stream; 0 is none.
    """

    def __init__(
        self,
        request: BaseRequest,
        question: Question,
        headers: Mapping[str, str],
        keep_alive: float = 0.0,
    ) -> None:
        self._request = request
        self._streamed = question.streamed
        self._usage = self._streamed and question.usage_wanted
        self._headers = headers
        self._keep_alive = keep_alive
        self._response: web.StreamResponse | None = None

    async def wait(self, seconds: float) -> None:
        """Let time pass, with signs of life."""
        sign = openai_stream.COMMENT if self._streamed else BLANK
        while self._keep_alive and seconds > self._keep_alive:
            await anyio.sleep(self._keep_alive)
            await (await self._begun()).write(sign)
            seconds -= self._keep_alive
        await anyio.sleep(seconds)

    async def whole(self, reply: dict[str, Any]) -> web.StreamResponse:
        """Send a reply."""
        if not self._streamed and self._response is None:
            return json_response(reply, headers=self._headers)
        pieces = self._pieces(reply)
        if self._streamed:
            usage = {"usage": None} if self._usage else {}
            pieces += openai_stream.end_events(reply, usage)
            if self._usage:
                pieces.append(openai_stream.chunk(reply, [], usage=reply.get("usage")))
            pieces.append(openai_stream.DONE)
        return await self._write(pieces)

    async def error(self, reply: Any, error: Any) -> web.StreamResponse:
        """Send an error inside a 200; in a stream, after half of the reply."""
        if not self._streamed and self._response is None:
            return json_response(error, headers=self._headers)
        if not self._streamed:
            return await self._write([orjson.dumps(error)])
        pieces = self._pieces(reply)
        told = openai_stream.event(error)
        return await self._write([*pieces[: len(pieces) // 2], told, openai_stream.DONE])

    async def unfinished(self, reply: dict[str, Any], *, ended: bool) -> web.StreamResponse:
        """Send a stream that stops without saying why; `ended` where it says that it is over."""
        end = [openai_stream.DONE] if ended else []
        return await self._write([*self._pieces(reply), *end])

    async def cut(self, reply: dict[str, Any]) -> web.StreamResponse:
        """Send half of a reply, and close the connection."""
        response = await self._half(reply)
        if self._request.transport is not None:
            self._request.transport.close()
        return response

    async def stall(self, reply: dict[str, Any]) -> web.StreamResponse:
        """Send half of a reply, and then nothing but signs of life."""
        response = await self._half(reply)
        await self.wait(float("inf"))
        return response

    async def _half(self, reply: dict[str, Any]) -> web.StreamResponse:
        pieces = self._pieces(reply)
        return await self._write(pieces[: len(pieces) // 2])

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            kind = "text/event-stream" if self._streamed else "application/json"
            self._response = web.StreamResponse(headers={**self._headers, "Content-Type": kind})
            self._response.enable_chunked_encoding()
            await self._response.prepare(self._request)
        return self._response

    def _pieces(self, reply: dict[str, Any]) -> list[bytes]:
        if self._streamed:
            return openai_stream.content_events(reply, {"usage": None} if self._usage else {})
        body = orjson.dumps(reply)
        return [body[: len(body) // 2], body[len(body) // 2 :]]

    async def _write(self, pieces: Sequence[bytes]) -> web.StreamResponse:
        response = await self._begun()
        for piece in pieces:
            await response.write(piece)
        return response
