"""What a service means by a refusal, and what a run does about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench, Scripted

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Scripting = Callable[[Handler], Any]


def answer(body: dict[str, Any], **more: Any) -> web.StreamResponse:
    content = {"error": None, "message": {"content": {"parts": [body["message"]]}}}
    reply = {"message_id": "m", "conversation_id": "c", "contents": [content]}
    return web.json_response(reply | more)


def refusing(last: str, status: int, refusal: Any) -> Handler:
    """Answer every ask but one."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        if body["message"] == last:
            return web.json_response(refusal, status=status)
        return answer(body)

    return handler


def asked(server: Scripted) -> list[str]:
    return [body["message"] for body in server.bodies()]


# Forgotten


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, {"detail": "the last message contains disallowed content"}),
        (400, {"detail": "An unknown error occurred in this conversation"}),
        (400, {"detail": "The file part of your conversation is not found to be useful"}),
        (400, {"detail": "your message 'conversation not found' was refused"}),
        (403, {"detail": "this conversation has expired content in its last message"}),
        (404, {"detail": "The model gpt-9 does not exist"}),
        (404, {"error": {"message": "gizmo g-1 not found", "code": "gizmo_not_found"}}),
        (404, {"error": {"message": "no such thing", "code": "model_not_found"}}),
        (404, {"detail": "account suspended or not found"}),
        (404, {"detail": "there is no /standard/all-tools here"}),
        (404, {"detail": "Cannot POST /standard/all-tools"}),
        (410, {"detail": "this endpoint is gone"}),
        (200, {"contents": [{"error": "the last message contains disallowed content"}]}),
    ],
)
async def test_refusal_of_a_resumed_ask_that_forgets_nothing_fails_the_line_and_keeps_its_answers(
    bench: Bench, scripted: Scripting, status: int, refusal: Any
) -> None:
    bench.write(bench.line(1, "one", "two"))
    async with scripted(refusing("two", status, refusal)) as server:
        for _ in range(3):
            assert (await bench.run(server.origin, fix=True, retries=0)).exit_code == 1
        assert asked(server) == ["one", "two", "two", "two"]
    [line] = bench.read()
    assert len(line["answers"]) == 1
    assert "superseded" not in line["meta"]


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (404, {"detail": "Not Found"}),
        (410, {}),
        (404, {"error": {"code": 404, "message": "conversation 8-4 not found"}}),
        (400, {"error": {"code": "conversation_not_found", "message": "sorry"}}),
        (400, {"error": {"code": "invalid", "message": "Conversation 8-4 has expired."}}),
        (200, {"contents": [{"error": "conversation not found"}]}),
        (200, {"error": {"code": "conversation_expired", "message": "sorry"}}),
    ],
)
async def test_conversation_that_is_named_as_forgotten_begins_anew_once(
    bench: Bench, scripted: Scripting, status: int, refusal: Any
) -> None:
    bench.write(bench.line(1, "one", "two"))
    async with scripted(refusing("two", status, refusal)) as server:
        for _ in range(4):
            assert (await bench.run(server.origin, fix=True, retries=0)).exit_code == 1
        assert asked(server).count("one") == 2
    assert len(bench.read()[0]["answers"]) == 1


# The thread


async def test_ids_that_are_missing_at_the_top_of_a_reply_are_taken_from_its_contents(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        contents = [
            {"conversation_id": "c-1", "message": {"id": "question", "content": {}}},
            {"conversation_id": "c-1", "message": {"id": "reply-1", "content": {}}},
            {"conversation_id": "c-1", "error": None, "message": None},
        ]
        return web.json_response({"created": 1, "contents": contents})

    bench.write(bench.line(1, "one", "two"))
    async with scripted(handler) as server:
        assert (await bench.run(server.origin)).done == 1
        second = server.bodies()[1]
    assert (second["conversation_id"], second["parent_message_id"]) == ("c-1", "reply-1")


@pytest.mark.parametrize("missing", ["message_id", "conversation_id"])
async def test_answer_without_its_place_is_kept_and_no_new_conversation_is_begun(
    bench: Bench, scripted: Scripting, missing: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answer(rawjson.loads(await request.read()), **{missing: None})

    bench.write(bench.line(1, "one", "two"), bench.line(2, "alone"))
    async with scripted(handler) as server:
        for _ in range(2):
            summary = await bench.run(server.origin, fix=True)
            assert (summary.done, summary.exit_code) == (1, 1)
        assert sorted(asked(server)) == ["alone", "one"]
    line = bench.read()[0]
    assert len(line["answers"]) == 1
    assert "ask 2 was not asked" in line["iErr"]["message"]
    assert line["iErr"]["stage"] == "reply"


@pytest.mark.parametrize("wait", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_wait_of_nothing_slows_no_other_line_down(
    bench: Bench, scripted: Scripting, wait: str
) -> None:
    tries: dict[str, int] = {}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        tries[body["message"]] = tries.get(body["message"], 0) + 1
        if tries[body["message"]] < 3:
            headers = {"retry-after": wait}
            return web.json_response({"error": "busy"}, status=503, headers=headers)
        return answer(body)

    bench.write(*(bench.line(number, f"question {number}") for number in range(12)))
    async with scripted(handle) as server:
        summary = await bench.run(server.origin)
    assert summary.done == 12
    assert summary.seconds < 20


async def test_input_that_is_not_there_is_refused_before_a_token_that_is_not(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-i", "gone.jsonl")
    told = "gpt4batch: cannot read the input gone.jsonl: No such file or directory\n"
    assert (result.code, result.err) == (2, told)
    assert bench.names() == []
