"""The dialect openai of the embedded service: calls that hold all that they are about."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from gpt4batch.mock import openai_asks, openai_replies
from gpt4batch.mock.digests import chance_of, digest
from gpt4batch.mock.faults import Faults
from gpt4batch.mock.intake import ON_PURPOSE
from gpt4batch.mock.limits import limit_headers
from gpt4batch.mock.openai_asks import Question, parse_body
from gpt4batch.mock.openai_errors import shaped
from gpt4batch.mock.openai_replies import Making
from gpt4batch.mock.openai_sending import Sending
from gpt4batch.mock.refusal import Refusal, json_response
from gpt4batch.mock.settings import CHAT_FAULTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.web_request import BaseRequest

    from gpt4batch.mock.intake import Intake
    from gpt4batch.mock.openai_asks import Said

    Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]

BASE = "/v1/"
"""The base under which calls are counted, whatever theirs is."""
ROUTES = (
    re.compile(r".*?/(chat/completions|completions|embeddings|responses)"),
    re.compile(r".*?/(models(?:/.+)?)"),
)
"""Addresses by their end: every service has a base of its own."""
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)")
"""Where the older addresses of Azure name the model."""
MODELS = ("mock-model", "mock-embedding")
FINISHES = ("length", "content-filter", "refusal", "unfinished")
"""The faults that are replies in which the text ends otherwise."""
PAID = ("length", "refusal")
"""Those of them that answer; so does an unfinished reply that is no stream: it is there whole."""
IN_REPLIES = (*FINISHES, "cut", "stall", "content-error", "empty")
"""The faults that come after a status of 200."""
HARD = "Please check your plan and billing details."


class Kind(NamedTuple):
    """One kind of call: how its body is read, how it is answered, whether in pieces if wanted."""

    read: Callable[[dict[str, Any]], tuple[Said, ...]]
    reply: Callable[[Question, Making], dict[str, Any]]
    streams: bool = False


KINDS = {
    "chat/completions": Kind(openai_asks.chat, openai_replies.chat_completion, streams=True),
    "completions": Kind(openai_asks.completion, openai_replies.completion, streams=True),
    "embeddings": Kind(openai_asks.embedding, openai_replies.embeddings),
    "responses": Kind(openai_asks.response, openai_replies.response),
}


def route(path: str) -> str:
    """Return the end of an address of this dialect, which says what is called; else nothing."""
    found = ROUTES[0].fullmatch(path) or ROUTES[1].fullmatch(path)
    return found[1] if found else ""


def question_key(seed: int, path: str, question: Question) -> bytes:
    """Return the digest by which a question is counted, drawn and answered."""
    return digest(seed, route(path), question.asked())


class OpenAi:
    """The calls of the dialect."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._settings = intake.settings
        self._stats = intake.stats
        self._faults = Faults(intake.settings, CHAT_FAULTS)
        self._models = tuple(filter(None, intake.settings.models.split(",")))

    def authorization(self, headers: Mapping[str, str]) -> str | None:
        """Return the Authorization of a call, or what stands for it.

        That is Azure's `api-key`, and nothing at all where any key is accepted.
        """
        wanted, key = self._settings.key_header, headers.get("api-key")
        given = headers.get("Authorization") if wanted != "api-key" else None
        if given is None and key and wanted != "bearer":
            given = f"Bearer {key}"
        return given or (None if self._settings.token else "Bearer none")

    def refused(self, refusal: Refusal) -> web.Response:
        """Return the response to a call that is refused."""
        shape = self._settings.error_shape
        headers = {**self._headers(), **(refusal.headers if shape != "list" else {})}
        body = shaped(refusal, shape)
        return json_response(body, status=refusal.status, headers=headers)

    def show_models(self, path: str) -> web.StreamResponse:
        """Return the models there are, or the one that a path names."""
        models = [
            {"id": name, "object": "model", "created": 1700000000, "owned_by": "mock"}
            for name in self._models or MODELS
        ]
        wanted = unquote(route(path).partition("/")[2])
        if not wanted:
            return json_response({"object": "list", "data": models})
        self._check_model(wanted)
        return json_response({**models[0], "id": wanted})

    def routes(self) -> dict[str, Handler]:
        """Return what answers each path."""
        return dict.fromkeys([BASE + end for end in KINDS], self._answer)

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        kind = KINDS[route(path)]
        deployment = DEPLOYMENT.match(path)
        model = unquote(deployment[1]) if deployment else ""
        body = parse_body(await self._intake.body(request), model)
        question = Question(body, body["model"], kind.read(body))
        key = question_key(self._settings.seed, path, question)
        self._check(question, kind)
        fault = self._faults.draw(key, question.said)
        reply = kind.reply(question, self._making(question, key, fault))
        cost = (reply["usage"] if self._settings.usage else reply.pop("usage"))["total_tokens"]
        self._intake.tokens.take(cost, time.monotonic(), question.model)
        sending = Sending(request, question, self._headers(), self._settings.keep_alive)
        if fault:
            self._stats.faults[fault] += 1
        if fault and fault not in IN_REPLIES:
            await self._intake.wait(key)
            if fault == "quota":
                raise self._no_quota()
            return await self._intake.fail(fault, request, key)
        await sending.wait(self._intake.latency(key))
        answers = not fault or fault in PAID or (fault == "unfinished" and not question.streamed)
        if not answers:
            return await self._spoil(fault, sending, reply, key)
        self._stats.answered(key, question.said)
        return await sending.whole(reply)

    def _making(self, question: Question, key: bytes, fault: str) -> Making:
        effort = question.body.get("reasoning_effort")
        return Making(
            key,
            self._settings.seed,
            self._settings.answer_size,
            self._stats.times_answered(key),
            reasoning=effort not in (None, "none")
            or question.body.get("enable_thinking") is True
            or chance_of(key, 3) < self._settings.reasoning_rate,
            finish=fault if fault in FINISHES else "",
        )

    def _check(self, question: Question, kind: Kind) -> None:
        settings = self._settings
        self._check_model(question.model)
        if question.streamed and not kind.streams:
            raise openai_asks.wrong("This call cannot be streamed.", "stream")
        if settings.stream_only and kind.streams and not question.streamed:
            raise Refusal(
                400,
                "This model only support stream mode, please enable the stream parameter to"
                " access the model. ",
                code="invalid_parameter_error",
            )
        if settings.context_length and question.tokens > settings.context_length:
            raise openai_asks.wrong(
                f"This model's maximum context length is {settings.context_length} tokens. However,"
                f" your messages resulted in {question.tokens} tokens. Please reduce the length of"
                " the messages.",
                "messages",
                "context_length_exceeded",
            )
        if self._intake.quota.used_up(self._stats.chats_answered, time.monotonic()):
            raise self._no_quota()

    def _check_model(self, model: str) -> None:
        if self._models and model not in self._models:
            raise Refusal(
                404,
                f"The model `{model}` does not exist or you do not have access to it.",
                code="model_not_found",
            )

    def _no_quota(self) -> Refusal:
        code, status = self._settings.quota_code, self._settings.quota_status
        words = f"You exceeded your current quota. {HARD}" if status == 429 else f"{code}. {HARD}"
        return Refusal(status, words, code=code, kind=code)

    def _headers(self) -> dict[str, str]:
        intake = self._intake
        headers = {"x-request-id": f"req_{intake.stats.arrivals:032x}"}
        style = self._settings.limit_headers
        return headers | limit_headers(style, intake.requests, intake.tokens, time.monotonic())

    async def _spoil(
        self,
        fault: str,
        sending: Sending,
        reply: dict[str, Any],
        key: bytes,
    ) -> web.StreamResponse:
        """Send a reply with status 200 that is no answer."""
        if fault == "cut":
            return await sending.cut(reply)
        if fault == "stall":
            return await sending.stall(reply)
        if fault == "content-error":
            error = shaped(Refusal(502, ON_PURPOSE), self._settings.error_shape)
            return await sending.error(reply, error)
        if fault == "unfinished":
            return await sending.unfinished(reply, ended=key[0] % 2 == 0)
        if fault == "empty":
            reply = openai_replies.emptied(reply, key[0] % 3)
        return await sending.whole(reply)
