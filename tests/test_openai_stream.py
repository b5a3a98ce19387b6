"""Streams of chat completions: whole or cut, asked for or not, become one answer or none."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from completions import (
    USAGE,
    chunk,
    completion,
    completions,
    events,
    once,
    saying,
    streamed,
    streaming,
)

from gpt4batch.dialects.openai_stream import Fold
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from aiohttp import web
    from conftest import Bench

DONE = b"data: [DONE]\n\n"


async def run(bench: Bench, origin: str, **settings: Any) -> Any:
    given = {"url": f"{origin}/v1", "model": "m", "token": "", "retries": 0, "stream": True}
    return await bench.run(origin, **given | settings)


def closed(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def text(record: Any, place: int = 0) -> Any:
    return record["answers"][place]["choices"][0]["message"]["content"]


async def test_stream_is_asked_for_with_usage_and_becomes_one_completion(bench: Bench) -> None:
    bench.write(bench.line(1, "hello", "more"))
    async with completions() as service:
        summary = await run(bench, service.origin)
    assert summary.done == 1
    assert [(b["stream"], b["stream_options"]) for b in service.bodies] == [
        (True, {"include_usage": True})
    ] * 2
    assert service.bodies[1]["messages"][1] == {"role": "assistant", "content": "re: hello"}
    (record,) = bench.read()
    assert record["answers"][0] == completion("re: hello")


@pytest.mark.parametrize(
    "kind", ["text/event-stream; charset=utf-8", "text/plain", "application/json"]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_stream_is_read_whether_asked_for_or_not_and_whatever_it_is_called(
    bench: Bench, kind: str, stream: bool
) -> None:
    bench.write(bench.line(1, "a"))
    async with completions(a=streaming(b": hi\n\n", *events("hello"), kind=kind)) as service:
        assert (await run(bench, service.origin, stream=stream)).done == 1
    assert bench.read()[0]["answers"][0] == completion("hello")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_json_is_read_though_a_stream_was_asked_for(bench: Bench, kind: str) -> None:
    bench.write(bench.line(1, "a"))
    way = saying(200, completion("plain"), **{"content-type": kind})
    async with completions(a=way) as service:
        assert (await run(bench, service.origin)).done == 1
    assert text(bench.read()[0]) == "plain"


async def test_packed_stream_is_read(bench: Bench) -> None:
    body = gzip.compress(b"".join(events("hello")))
    way = saying(200, body, **{"content-type": "text/event-stream", "content-encoding": "gzip"})
    bench.write(bench.line(1, "a"))
    async with completions(a=way) as service:
        assert (await run(bench, service.origin)).done == 1
    assert text(bench.read()[0]) == "hello"


CUT = {
    "nothing": [],
    "only comments": [b": keep-alive\n\n"] * 3,
    "in the text": events("hello")[:2],
    "without a finish": [*events("hello")[:3], DONE],
    "without DONE": events("hello")[:-1],
    "inside an event": [*events("hello")[:2], b'data: {"id":"c-1","cho'],
    "damaged": [events("hello")[0], b"data: {nonsense\n\n", *events("hello")[1:]],
}


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("pieces", CUT.values(), ids=CUT)
async def test_stream_without_its_end_is_no_answer_and_is_tried_again(
    bench: Bench, pieces: list[bytes], cut: bool
) -> None:
    bench.write(bench.line(1, "a", "b"))
    async with completions(b=once(streaming(*pieces, cut=cut))) as service:
        summary = await run(bench, service.origin, retries=1)
    assert summary.done == 1
    assert service.counts == {"a": 1, "b": 2}
    assert text(bench.read()[0], 1) == "re: b"
    assert summary.unanswered == 1


@pytest.mark.parametrize("event", [b'{"choices":[{"p":NaN}]}', b'{"a":"\xff"}'])
async def test_whole_stream_with_an_event_that_cannot_be_read_is_kept_and_not_asked_again(
    bench: Bench, event: bytes
) -> None:
    bench.write(bench.line(1, "a"))
    pieces = [*events("hello")[:2], b"data: " + event + b"\n\n", *events("hello")[2:]]
    async with completions(a=streaming(*pieces)) as service:
        summary = await run(bench, service.origin, retries=3)
    assert (summary.failed, summary.exit_code, service.counts["a"]) == (1, 1, 1)
    error = bench.read()[0]["iErr"]
    assert "an event of the stream is not" in error["message"]
    assert "hello" in str(error)
    assert event.decode(errors="surrogateescape") in error["reply"]


@pytest.mark.parametrize("ending", [b"\r", b"\r\n"])
async def test_stream_whose_lines_end_with_returns_is_read(bench: Bench, ending: bytes) -> None:
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    pieces = [event.replace(b"\n", ending) for event in events("hello")]
    bytewise = [bytes([byte]) for byte in b"".join(pieces)]
    async with completions(a=streaming(*pieces), b=streaming(*bytewise)) as service:
        assert (await run(bench, service.origin, retries=0)).done == 2
    assert [text(record) for record in bench.read()] == ["hello", "hello"]


async def test_whole_stream_is_kept_though_its_connection_broke_after_it(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    async with completions(a=streaming(*events("hello"), cut=True)) as service:
        summary = await run(bench, service.origin)
    assert (summary.done, summary.unanswered, service.counts["a"]) == (1, 0, 1)


async def test_whole_stream_is_kept_though_its_connection_stays_open(bench: Bench) -> None:
    async def linger(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        response = await streamed(request, events("hello"))
        await service.hang.wait()
        return response

    bench.write(bench.line(1, "a"))
    async with completions(a=linger) as service:
        summary = await run(bench, service.origin, idle_timeout=0.3)
    assert (summary.done, service.counts["a"]) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "upstream broke", "code": 502}},
        {"error": {"message": "upstream broke"}, "choices": []},
        {"object": "error", "message": "upstream broke", "code": 400},
    ],
)
async def test_error_inside_a_stream_is_no_answer_and_what_came_is_kept(
    bench: Bench, error: dict[str, Any]
) -> None:
    event = b"event: error\ndata: " + rawjson.dumps(error) + b"\n\n"
    bench.write(bench.line(1, "a"))
    async with completions(a=streaming(*events("hello")[:2], event, cut=True)) as service:
        summary = await run(bench, service.origin, retries=2)
    assert (summary.done, service.counts["a"]) == (0, 1)
    told = bench.read()[0]["iErr"]
    assert told["message"] == "the reply says: upstream broke"
    assert told["reply"]["choices"][0]["message"]["content"] == "hel"


async def test_silence_ends_a_stream_and_keep_alives_are_silence(bench: Bench) -> None:
    async def whisper(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        response = await streamed(request, events("hello")[:2])
        while not service.hang.is_set() and not closed(request):
            await response.write(b": keep-alive\n\n")
            await anyio.sleep(0.02)
        return response

    bench.write(bench.line(1, "a"))
    async with completions(a=once(whisper)) as service:
        summary = await run(bench, service.origin, idle_timeout=0.3, timeout=30.0)
    assert "--idle-timeout" in bench.read()[0]["iErr"]["message"]
    assert summary.unanswered == 1


async def test_events_keep_a_stream_alive_for_longer_than_the_silence_that_is_allowed(
    bench: Bench,
) -> None:
    async def slow(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        first, last = chunk({"role": "assistant", "content": ""}), chunk({}, "stop")
        response = await streamed(request, [first])
        for _ in range(12):
            await response.write(chunk({"content": "x"}))
            await anyio.sleep(0.1)
        await response.write(last + DONE)
        return response

    bench.write(bench.line(1, "a"))
    async with completions(a=slow) as service:
        assert (await run(bench, service.origin, idle_timeout=0.8)).done == 1
    assert text(bench.read()[0]) == "x" * 12


# Folding


def folded(*events: bytes) -> Any:
    fold = Fold()
    for event in events:
        for place in range(0, len(event), 7):  # however the bytes come
            fold.feed(event[place : place + 7])
    fold.close()
    assert fold.ended
    return rawjson.loads(fold.reply())


def test_texts_tools_and_probabilities_are_folded_by_their_places() -> None:
    call = {"index": 0, "id": "t-1", "type": "function", "function": {"name": "f", "arguments": ""}}
    other = {"index": 1, "id": "t-2", "function": {"name": "g", "arguments": "[]"}}
    part = {"index": 0, "id": "", "function": {"arguments": '{"a"'}}
    reply = folded(
        chunk({"role": "assistant", "content": None, "reasoning_content": "h"}, service_tier=None),
        chunk({"reasoning_content": "m"}, service_tier="flex"),
        chunk({"content": "a"}),
        chunk({"content": "b"}),
        chunk({"refusal": "no"}),
        chunk({"refusal": "!"}),
        chunk({"tool_calls": [call, other]}),
        chunk({"tool_calls": [part]}),
        chunk({"tool_calls": [{**part, "function": {"arguments": ":1}"}}]}, "tool_calls"),
        chunk(None, usage=USAGE),
        DONE,
    )
    assert reply == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "service_tier": "flex",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "ab",
                    "reasoning_content": "hm",
                    "refusal": "no!",
                    "tool_calls": [
                        {
                            "id": "t-1",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                        },
                        {"id": "t-2", "function": {"name": "g", "arguments": "[]"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
    }


def test_several_choices_are_folded_apart() -> None:
    def of(index: int, content: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
        return b"data: " + rawjson.dumps({"choices": [choice]}) + b"\r\n\r\n"

    reply = folded(of(1, "x"), of(0, "a"), of(1, "y", "stop"), of(0, "b", "length"), DONE)
    said = [(c["message"]["content"], c["finish_reason"]) for c in reply["choices"]]
    assert said == [("ab", "length"), ("xy", "stop")]


def test_numbers_and_unknown_fields_pass_as_they_were_written() -> None:
    text = (
        b'data: {"created":12345678901234567890123,"x":{"cost":0.10},"choices":[{"index":0,'
        b'"delta":{"content":"a","odd":[{"n":1.0}]},"logprobs":{"content":[{"logprob":-1e-05}]},'
        b'"finish_reason":"stop","safe":{"score":0.50}}]}\n\n'
    )
    fold = Fold()
    fold.feed(text + DONE)
    raw = fold.reply()
    for part in (
        b'"created":12345678901234567890123',
        b'"x":{"cost":0.10}',
        b'"odd":[{"n":1.0}]',
        b'"logprobs":{"content":[{"logprob":-1e-05}]}',
        b'"safe":{"score":0.50}',
    ):
        assert part in raw


def test_message_that_is_said_again_at_the_end_is_taken_once() -> None:
    whole = {"role": "assistant", "content": "ab"}
    choice = {"index": 0, "delta": {"content": "b"}, "message": whole, "finish_reason": "stop"}
    last = {"index": 0, "delta": {}, "message": whole, "finish_reason": ""}
    said = [chunk({"content": "a"}), *(chunk(None, choices=[one]) for one in (choice, last))]
    (found,) = folded(*said, DONE)["choices"]
    assert (found["message"]["content"], found["finish_reason"]) == ("ab", "stop")


def test_stream_of_half_an_emoji_is_folded() -> None:
    reply = folded(
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00"},"finish_reason":"stop"}]}\n\n',
        DONE,
    )
    assert reply["choices"][0]["message"]["content"] == "\U0001f600"


def test_message_of_parts_and_text_is_folded_in_its_order() -> None:
    thinking = {"type": "thinking", "thinking": "so"}
    reply = folded(
        chunk({"content": ""}),
        chunk({"content": [thinking]}),
        chunk({"content": "an"}),
        chunk({"content": "swer"}, "stop"),
        DONE,
    )
    said = reply["choices"][0]["message"]["content"]
    assert said == [thinking, {"type": "text", "text": "answer"}]


def test_calls_of_tools_that_all_have_one_index_stay_apart() -> None:
    def call(name: str, arguments: str) -> dict[str, Any]:
        return {"index": 0, "id": f"id-{name}", "function": {"name": name, "arguments": arguments}}

    more = {"index": 0, "function": {"arguments": "}"}}
    first, second = [call("f", "{}")], [call("g", "{"), more]
    reply = folded(chunk({"tool_calls": first}), chunk({"tool_calls": second}, "stop"), DONE)
    calls = reply["choices"][0]["message"]["tool_calls"]
    assert [(one["id"], one["function"]["arguments"]) for one in calls] == [
        *(("id-f", "{}"), ("id-g", "{}")),
    ]


def test_call_of_a_tool_that_is_none_is_passed_on() -> None:
    reply = folded(chunk({"tool_calls": [None, "x"]}, "stop"), DONE)
    assert reply["choices"][0]["message"]["tool_calls"] == [None, "x"]
