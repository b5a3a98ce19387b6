"""The dialect gpt4api of the embedded service: uploads, and chats that it remembers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from gpt4batch.mock import assets
from gpt4batch.mock.asks import parse_ask
from gpt4batch.mock.broken import cut
from gpt4batch.mock.conversations import Memory
from gpt4batch.mock.digests import chance_of, digest
from gpt4batch.mock.faults import Faults
from gpt4batch.mock.intake import ON_PURPOSE
from gpt4batch.mock.refusal import Refusal, json_response
from gpt4batch.mock.replies import Reply, answer_text
from gpt4batch.mock.settings import CALL_FAULTS
from gpt4batch.mock.uploads import receive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from aiohttp.web_request import BaseRequest

    from gpt4batch.mock.conversations import Turn
    from gpt4batch.mock.intake import Intake

    Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]

EDITIONS = ("standard", "concurrent")


class Gpt4Api:
    """The calls of the dialect, each by the end of its path."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._settings = intake.settings
        self._stats = intake.stats
        self._memory = Memory(intake.settings.seed, intake.settings.history)
        self._faults = Faults(intake.settings, CALL_FAULTS)

    def routes(self) -> dict[str, Handler]:
        """Return what answers each path."""
        ends = {"uploaded": self._upload, "all-tools": self._all_tools, "gizmos": self._gizmos}
        return {f"/{edition}/{end}": ends[end] for edition in EDITIONS for end in ends}

    async def _all_tools(self, request: BaseRequest) -> web.StreamResponse:
        return await self._chat(request, gizmo=False)

    async def _gizmos(self, request: BaseRequest) -> web.StreamResponse:
        return await self._chat(request, gizmo=True)

    async def _chat(self, request: BaseRequest, *, gizmo: bool) -> web.StreamResponse:
        if request.content_type != "application/json":
            raise Refusal(415, f"a chat is application/json, not {request.content_type}")
        ask = parse_ask(await self._intake.body(request), gizmo=gizmo)
        turn = self._memory.turn(ask)
        if self._intake.quota.used_up(self._stats.chats_answered, time.monotonic()):
            raise Refusal(402, "the quota of the account is used up")
        fault = self._faults.draw(turn.key, ask.message)
        await self._intake.wait(turn.key)
        if fault:
            return await self._fail(fault, request, turn.key, self._reply(turn))
        if self._settings.latency:
            # While this call waited another one may have gone on with the conversation.
            turn = self._memory.turn(ask)
        reply = self._reply(turn)
        self._memory.advance(turn, reply["conversation_id"], reply["message_id"])
        self._stats.answered(turn.key, ask.message, again=turn.again)
        return json_response(reply)

    def _reply(self, turn: Turn) -> dict[str, Any]:
        known = self._memory.ids(turn, self._stats.times_answered(turn.key))
        text = answer_text(
            turn.ask.message,
            [file.sha256 for file in turn.files],
            seed=self._settings.seed,
            size=self._settings.answer_size,
        )
        reply = Reply(turn, *known).whole(text)
        if chance_of(turn.key, 1) < self._settings.asset_rate:
            settings = self._settings
            after = settings.asset_expire_after
            expires_at = time.time() + after if after else 0.0
            reply["downloads"] = [
                assets.link(
                    self._intake.origin, settings.seed, name, settings.asset_size, expires_at
                )
                for name in assets.asset_names(turn.key, settings.asset_count)
            ]
        return reply

    async def _upload(self, request: BaseRequest) -> web.StreamResponse:
        form = await receive(request, self._settings.max_upload_bytes)
        self._stats.bytes_in += form.size
        if form.conversation_id:
            self._memory.find(form.conversation_id)
        entry = self._memory.describe(form)
        key = digest(
            self._settings.seed, "upload", form.conversation_id, form.type, form.name, form.sha256
        )
        fault = self._faults.draw(key, form.name)
        await self._intake.wait(key)
        if fault and fault != "content-error":
            none = {"conversation_id": "", "attachment": None, "part": None}
            return await self._fail(fault, request, key, none)
        reply = self._memory.store(form, entry, key)
        self._stats.uploads_answered += 1
        return json_response(reply)

    async def _fail(
        self, fault: str, request: BaseRequest, key: bytes, reply: dict[str, Any]
    ) -> web.StreamResponse:
        self._stats.faults[fault] += 1
        if fault == "cut":
            return await cut(request, orjson.dumps(reply))
        if fault not in ("content-error", "empty"):
            return await self._intake.fail(fault, request, key)
        if fault == "content-error":
            error = {"error": ON_PURPOSE, "message": None}
            reply["contents"] = [{"conversation_id": reply["conversation_id"], **error}]
        elif key[0] % 3 == 0:
            reply["contents"] = []
        elif key[0] % 3 == 1:
            reply["contents"] = None
        else:
            reply.pop("contents", None)
        reply.pop("downloads", None)
        return json_response(reply)
