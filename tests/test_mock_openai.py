"""The second dialect of the embedded service, asked by hand."""

from __future__ import annotations

import struct
import time
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import orjson
import pytest

from gpt4batch.errors import UsageError
from gpt4batch.mock.limits import Limit, Quota, TokenLimit, duration
from gpt4batch.mock.openai import question_key
from gpt4batch.mock.openai_asks import Question, Said, chat
from gpt4batch.mock.openai_replies import thread_text
from gpt4batch.mock.refusal import Refusal
from gpt4batch.mock.replies import answer_text
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHAT = "/v1/chat/completions"
PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


class Caller:
    """A client that knows the key and the calls."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={"model": "m", **body})

    async def chat(self, content: Any = "hello", **body: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": content}], **body}
        return await self.post(CHAT, **body)

    async def stream(self, content: Any = "hello", **body: Any) -> list[Any]:
        """Return the events of a stream; comments as text."""
        response = await self.chat(content, stream=True, **body)
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return events_of(response.text)

    async def stats(self) -> dict[str, Any]:
        seen: dict[str, Any] = (await self.http.get("/stats")).json()
        return seen


def events_of(text: str) -> list[Any]:
    *events, rest = text.split("\n\n")
    assert rest == ""
    told = [event.removeprefix("data: ") for event in events]
    return [orjson.loads(it) if it.startswith("{") else it for it in told]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[MockService, Caller]]:
    async with (
        MockService(MockSettings(**settings)) as service,
        httpx.AsyncClient(
            base_url=service.origin,
            headers={"Authorization": f"Bearer {service.token}"},
            trust_env=False,
            timeout=10,
            verify=False,
        ) as http,
    ):
        yield service, Caller(http)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with serving() as (_, caller):
        yield caller


def text_of(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def joined(events: list[Any], name: str = "content") -> str:
    """Return what a stream says."""
    choices = [event["choices"] for event in events if isinstance(event, dict)]
    return "".join(it[0]["delta"].get(name) or "" for it in choices if it)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


# Answers


async def test_chat_gets_the_documented_object(caller: Caller) -> None:
    response = await caller.chat()
    reply = response.json()
    assert list(reply) == (
        [
            "id",
            "object",
            "created",
            "model",
            "choices",
            "usage",
            "service_tier",
            "system_fingerprint",
        ]
    )
    assert reply["object"] == "chat.completion"
    choice = reply["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"] == {
        "role": "assistant",
        "content": answer_text("hello"),
        "refusal": None,
        "annotations": [],
    }
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert response.headers["x-request-id"].startswith("req_")


async def test_answer_holds_the_digest_of_what_was_said_before(caller: Caller) -> None:
    first = text_of((await caller.chat("one")).json())
    thread = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "two"},
    ]
    second = text_of((await caller.chat(messages=thread)).json())
    said = [Said(it["role"], it["content"]) for it in thread]
    assert second == thread_text(said)
    assert second.startswith(answer_text("two"))
    thread[2]["content"] = "something else"
    assert text_of((await caller.chat(messages=thread)).json()) != second


async def test_stream_is_the_same_reply_in_pieces(caller: Caller) -> None:
    whole = (await caller.chat("你好" * 20)).json()
    events = await caller.stream("你好" * 20, stream_options={"include_usage": True})
    assert events.pop() == "[DONE]"
    *chunks, last = events
    assert {chunk["object"] for chunk in events} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in events}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert joined(events) == text_of(whole)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


async def test_stream_tells_its_usage_only_if_asked_to(caller: Caller) -> None:
    events = await caller.stream()
    assert not any("usage" in event for event in events[:-1])
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_most_tokens_cut_the_answer_short(caller: Caller) -> None:
    reply = (await caller.chat(max_completion_tokens=3)).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 3
    assert text_of(reply) == answer_text("hello")[:12]


async def test_several_choices_differ(caller: Caller) -> None:
    choices = (await caller.chat(n=3)).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) == 3


async def test_tool_is_called_when_the_user_asks_and_answered_after_its_result(
    caller: Caller,
) -> None:
    reply = (await caller.chat("Berlin", tools=TOOLS)).json()
    choice = reply["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Berlin"}'}
    events = await caller.stream("Berlin", tools=TOOLS)
    parts = [it["choices"][0]["delta"].get("tool_calls") for it in events[:-1]]
    told = "".join(part[0]["function"]["arguments"] for part in parts if part)
    assert told == '{"city":"Berlin"}'
    thread = [
        {"role": "user", "content": "Berlin"},
        choice["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
    ]
    after = (await caller.chat(messages=thread, tools=TOOLS)).json()
    assert after["choices"][0]["finish_reason"] == "stop"
    assert (await caller.chat(tools=TOOLS, tool_choice="none")).json()["choices"][0]["message"][
        "content"
    ]


async def test_reasoning_is_told_when_it_is_asked_for(caller: Caller) -> None:
    reply = (await caller.chat("why", reasoning_effort="high")).json()
    reasoning = reply["choices"][0]["message"]["reasoning_content"]
    assert "why" in reasoning
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    events = await caller.stream("why", enable_thinking=True)
    assert joined(events, "reasoning_content") == reasoning
    async with serving(reasoning_rate=1) as (_, other):
        assert "reasoning_content" in (await other.chat()).json()["choices"][0]["message"]


async def test_long_prompts_are_cached_but_for_their_end(caller: Caller) -> None:
    before = {"role": "system", "content": "x" * 8192}
    reply = (await caller.chat(messages=[before, {"role": "user", "content": "hi"}])).json()
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 2048


async def test_picture_and_file_are_answered_by_their_digests(caller: Caller) -> None:
    url = "data:image/png;base64," + b64encode(PNG).decode()
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,YWJj"}
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "file", "file": file},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    text = text_of((await caller.chat(content)).json())
    said = chat({"messages": [{"role": "user", "content": content}]})[0]
    assert text == answer_text("look", said.sha256s)
    assert len(said.sha256s) == 3


async def test_models_are_listed_and_found(caller: Caller) -> None:
    listed = (await caller.http.get("/v1/models")).json()
    assert [model["object"] for model in listed["data"]] == ["model", "model"]
    assert (await caller.http.get("/v1/models/some/name")).json()["id"] == "some/name"


async def test_model_that_is_not_there_is_refused() -> None:
    async with serving(models="one,two") as (_, caller):
        listed = (await caller.http.get("/v1/models")).json()["data"]
        refused = [await caller.chat(), await caller.http.get("/v1/models/m")]
        assert (await caller.chat(model="two")).status_code == 200
    assert [model["id"] for model in listed] == ["one", "two"]
    assert [response.status_code for response in refused] == [404, 404]
    assert error_of(refused[0])["code"] == "model_not_found"


@pytest.mark.parametrize("given", ["text", ["text"], [1, 2], [[1, 2]]])
async def test_embeddings_have_length_one(caller: Caller, given: Any) -> None:
    reply = (await caller.post("/v1/embeddings", input=given)).json()
    vector = reply["data"][0]["embedding"]
    assert sum(number * number for number in vector) == pytest.approx(1)
    assert reply["usage"]["total_tokens"] > 0


async def test_embeddings_follow_from_the_text_in_numbers_or_as_bytes(caller: Caller) -> None:
    given = {"input": ["a", "b", "a"], "dimensions": 8}
    numbers = (await caller.post("/v1/embeddings", **given)).json()["data"]
    packed = (await caller.post("/v1/embeddings", **given, encoding_format="base64")).json()["data"]
    assert numbers[0]["embedding"] == numbers[2]["embedding"] != numbers[1]["embedding"]
    bytes_ = b64decode(packed[0]["embedding"])
    assert struct.unpack("<8f", bytes_) == pytest.approx(numbers[0]["embedding"])


async def test_responses_and_completions_answer(caller: Caller) -> None:
    response = (await caller.post("/v1/responses", input="hello")).json()
    assert response["output"][0]["content"][0]["text"] == answer_text("hello")
    assert response["status"] == "completed"
    plain = (await caller.post("/v1/completions", prompt="hello")).json()
    assert plain["choices"][0]["text"] == answer_text("hello")
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    again = (await caller.post("/v1/responses", input=items)).json()
    assert again["output"][0]["content"] == response["output"][0]["content"]


@pytest.mark.parametrize(
    "base",
    [
        "/v1",
        "/v1beta/openai",
        "/compatible-mode/v1",
        "/openai/v1",
        "/openai/deployments/m",
        "",
    ],
)
async def test_every_base_is_served_and_counted_as_one(caller: Caller, base: str) -> None:
    response = await caller.chat()
    address = f"{base}/chat/completions?api-version=2024-10-21"
    assert text_of((await caller.post(address, messages=[{"role": "user", "content": "a"}])).json())
    assert (await caller.stats())["calls"] == {CHAT: {"200": 2}}
    assert response.status_code == 200


async def test_model_stands_in_an_address_of_azure(caller: Caller) -> None:
    body = {"messages": [{"role": "user", "content": "a"}]}
    address = "/openai/deployments/gpt-x/chat/completions?api-version=1"
    assert (await caller.http.post(address, json=body)).json()["model"] == "gpt-x"


# Refusals


def picture(url: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ]
    }


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, "missing_required_parameter", "'messages'"),
        ({"messages": []}, "invalid_value", "at least one"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "invalid_value", "'robot'"),
        ({"messages": [{"role": "user"}]}, "invalid_type", "got null"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "missing_required_parameter", "tool_"),
        ({"messages": [{"role": "user", "content": "a"}], "n": 0}, "invalid_value", "'n'"),
        (
            {"messages": [{"role": "user", "content": "a"}], "stream_options": {}},
            "invalid_value",
            "stream",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "invalid_value", "'x'"),
        (picture("file:///etc/passwd"), "invalid_image", "no data URL"),
        (picture("data:image/png;base64,%%"), "invalid_base64", "base64"),
        (picture("data:image/tiff;base64,SUkqAA=="), "invalid_image_format", "unsupported"),
    ],
)
async def test_wrong_chat_is_refused_in_words(
    caller: Caller, body: dict[str, Any], code: str, words: str
) -> None:
    response = await caller.post(CHAT, **body)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, code)
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


async def test_chat_without_model_is_refused(caller: Caller) -> None:
    response = await caller.chat(model=None)
    assert (response.status_code, error_of(response)["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("wanted", "header", "status"),
    [
        ("any", "Authorization", 200),
        ("any", "api-key", 200),
        ("bearer", "api-key", 401),
        ("api-key", "Authorization", 401),
        ("api-key", "api-key", 200),
    ],
)
async def test_key_is_taken_from_its_header(wanted: str, header: str, status: int) -> None:
    async with serving(key_header=wanted) as (service, caller):
        del caller.http.headers["Authorization"]
        key = service.token if header == "api-key" else f"Bearer {service.token}"
        caller.http.headers[header] = key
        response = await caller.chat()
        assert (await caller.http.get("/v1/models")).status_code == status
    assert response.status_code == status
    if status == 401:
        assert error_of(response)["code"] == "invalid_api_key"


async def test_no_key_is_needed_where_any_is_accepted() -> None:
    async with serving(token="") as (_, caller):
        del caller.http.headers["Authorization"]
        assert (await caller.chat()).status_code == 200
        assert (await caller.http.post("/standard/all-tools", json={})).status_code == 401


async def test_service_of_streams_refuses_all_else() -> None:
    async with serving(stream_only=True) as (_, caller):
        refused = await caller.chat()
        events = await caller.stream()
    assert "only support stream mode" in error_of(refused)["message"]
    assert refused.status_code == 400
    assert events[-1] == "[DONE]"


async def test_question_that_is_too_long_is_refused() -> None:
    async with serving(context_length=20) as (_, caller):
        refused = await caller.chat("x" * 80)
        assert (await caller.chat("x" * 40)).status_code == 200
    assert (refused.status_code, error_of(refused)["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("shape", "code"), [("nested", "invalid_value"), ("number", 400), ("list", 400)]
)
async def test_errors_come_in_the_shapes_of_services(shape: str, code: object) -> None:
    async with serving(error_shape=shape) as (_, caller):
        body: Any = (await caller.chat(n=0)).json()
    (inner,) = body if shape == "list" else [body]
    assert list(inner) == ["error"]
    assert inner["error"]["code"] == code


async def test_wait_stands_in_the_body_where_errors_are_a_list() -> None:
    async with serving(error_shape="list", retry_after=27) as (_, caller):
        response = await caller.chat("[[mock:rate-limit]]")
    (found,) = response.json()
    assert found["error"]["details"][0]["retryDelay"] == "27s"
    assert "Retry-After" not in response.headers


async def test_errors_can_be_words_alone() -> None:
    async with serving(error_shape="text") as (_, caller):
        assert "'n'" in (await caller.chat(n=0)).json()["error"]


async def test_flat_errors_have_the_status_for_their_code() -> None:
    async with serving(error_shape="flat") as (_, caller):
        body = (await caller.chat(n=0)).json()
    assert (body["object"], body["type"], body["code"]) == ("error", "BadRequestError", 400)


# Limits


async def test_tokens_a_minute_are_refused_in_the_known_words() -> None:
    async with serving(limit_tpm=60) as (_, caller):
        responses = [await caller.chat(str(place)) for place in range(8)]
    first, *_, last = responses
    assert first.headers["x-ratelimit-limit-tokens"] == "60"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 60
    assert first.headers["x-ratelimit-reset-tokens"].endswith("s")
    error = error_of(last)
    assert (last.status_code, error["type"], error["code"]) == (
        429,
        "tokens",
        "rate_limit_exceeded",
    )
    assert "tokens per min (TPM): Limit 60, Used" in error["message"]
    wait = int(last.headers["retry-after-ms"]) / 1000
    assert f"Please try again in {duration(wait)}" in error["message"]


def test_bucket_of_tokens_fills_evenly() -> None:
    limit = TokenLimit(60)
    limit.take(60, 0.0, "m")
    for moment in (0.0, 9.9):
        with pytest.raises(Refusal, match="try again"):
            limit.take(10, moment, "m")
    limit.take(10, 10.0, "m")
    assert limit.state(20.0) == (60, 10, 50.0)
    with pytest.raises(Refusal, match="too large"):
        limit.take(61, 1000.0, "m")


def test_limit_tells_what_is_left() -> None:
    limit = Limit(4)
    limit.allows(10.0)
    limit.allows(10.5)
    assert limit.state(10.75) == (4, 2, 0.75)
    assert limit.state(12.0) == (4, 4, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0121, "13ms"), (1, "1s"), (5.289, "5.289s"), (60, "1m0s"), (360, "6m0s"), (62.5, "1m2.5s")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_limit_headers_come_in_the_styles_of_services() -> None:
    found = {}
    for style in ("seconds", "epoch", "unknown", "none"):
        async with serving(limit_headers=style, limit_qps=5, limit_tpm=1000) as (_, caller):
            headers = (await caller.chat()).headers
        found[style] = {
            name: value for name, value in headers.items() if name.startswith("x-ratelimit")
        }
    assert found["none"] == {}
    assert set(found["unknown"].values()) == {"-1"}
    assert found["seconds"]["x-ratelimit-reset-requests"] == "1"
    assert float(found["epoch"]["x-ratelimit-reset"]) / 1000 == pytest.approx(time.time(), abs=60)
    assert found["epoch"]["x-ratelimit-remaining"] == "4"


async def test_empty_account_stays_empty_in_the_words_of_the_service() -> None:
    async with serving(quota=1) as (_, caller):
        responses = [await caller.chat(str(place)) for place in range(3)]
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert error_of(responses[1])["code"] == "insufficient_quota"
    named: dict[str, Any] = {"quota_code": "Insufficient Balance", "quota_status": 402}
    async with serving(quota=1, **named) as (_, caller):
        responses = [await caller.chat(str(place)) for place in range(2)]
    assert responses[1].status_code == 402


def test_empty_account_is_filled_again_after_its_time() -> None:
    quota = Quota(2, passes=10)
    seen = [(1, 0.0), (2, 1.0), (2, 10.9), (2, 11.0), (3, 12.0), (4, 13.0), (4, 22.0), (4, 23.0)]
    assert [quota.used_up(answered, moment) for answered, moment in seen] == [
        *(False, True, True, False, False, True, True, False)
    ]


# Faults


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [("rate-limit*1", [429, 200]), ("503*1", [503, 200]), ("quota*1", [429, 200]), ("xyz", [422])],
)
async def test_message_directs_its_own_fault(
    caller: Caller, fault: str, statuses: list[int]
) -> None:
    responses = [await caller.chat(f"[[mock:{fault}]]") for _ in statuses]
    assert [response.status_code for response in responses] == statuses


async def test_first_dialect_does_not_know_the_faults_of_the_second(caller: Caller) -> None:
    body = {"message": "[[mock:length]]", "model": "m"}
    assert (await caller.http.post("/standard/all-tools", json=body)).status_code == 422


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset", "cut"])
async def test_connection_breaks(caller: Caller, fault: str, stream: bool) -> None:
    with pytest.raises(httpx.TransportError):
        await caller.chat(f"[[mock:{fault}]]", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
async def test_error_stands_inside_a_reply(caller: Caller, stream: bool) -> None:
    response = await caller.chat("[[mock:content-error]]", stream=stream)
    assert response.status_code == 200
    error = events_of(response.text)[-2] if stream else response.json()
    assert error["error"]["message"] == "the mock service fails on purpose"


async def test_reply_can_be_empty_in_three_ways() -> None:
    async with serving(empty_rate=1) as (_, caller):
        replies = [(await caller.chat(str(place))).json() for place in range(12)]
    said = {it["choices"][0]["message"]["content"] if it["choices"] else () for it in replies}
    assert said == {(), "", None}


@pytest.mark.parametrize(
    ("fault", "finish", "paid"),
    [("length", "length", 1), ("content-filter", "content_filter", 0), ("refusal", "stop", 1)],
)
async def test_reply_ends_otherwise(caller: Caller, fault: str, finish: str, paid: int) -> None:
    choice = (await caller.chat(f"[[mock:{fault}]]")).json()["choices"][0]
    assert choice["finish_reason"] == finish
    assert bool(choice["message"]["refusal"]) == (fault == "refusal")
    assert (await caller.stats())["chats_answered"] == paid


async def test_unfinished_stream_stops_without_a_reason_or_an_end() -> None:
    async with serving(unfinished_rate=1) as (_, caller):
        streams = [await caller.stream(str(place)) for place in range(12)]
        assert (await caller.stats())["chats_answered"] == 0
        assert (await caller.chat()).json()["choices"][0]["finish_reason"] is None
        assert (await caller.stats())["chats_answered"] == 1
    assert {stream[-1] == "[DONE]" for stream in streams} == {True, False}
    finishes = [it["choices"][0]["finish_reason"] for stream in streams for it in stream[:-1]]
    assert set(finishes) == {None}


@pytest.mark.parametrize("stream", [False, True])
async def test_stalled_reply_shows_signs_of_life_and_nothing_else(stream: bool) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "[[mock:stall]]"}],
        "stream": stream,
    }
    async with (
        serving(keep_alive=0.01) as (_, caller),
        caller.http.stream("POST", CHAT, json=body) as response,
    ):
        signs = 0
        with anyio.fail_after(5):
            async for line in response.aiter_lines():
                signs += line == (": keep-alive" if stream else "")
                if signs > 5:
                    break
    assert response.status_code == 200


async def test_slow_call_is_kept_alive_with_blanks_or_comments() -> None:
    async with serving(latency=0.1, keep_alive=0.02) as (_, caller):
        response = await caller.chat()
        events = (await caller.chat(stream=True)).text.split("\n\n")
    assert response.text.startswith("\n\n")
    assert text_of(response.json()) == answer_text("hello")
    assert events[0] == ": keep-alive"
    assert events[-2] == "data: [DONE]"


async def test_usage_can_be_left_out() -> None:
    async with serving(usage=False) as (_, caller):
        assert "usage" not in (await caller.chat()).json()


@pytest.mark.parametrize(
    "settings", [{"quota_status": 200}, {"error_shape": "odd"}, {"stall_rate": 2}]
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MockSettings(**settings)


# Duplicates


async def test_every_question_is_counted_however_it_is_sent(caller: Caller) -> None:
    await caller.chat("a")
    await caller.stream("a")
    await caller.chat("b")
    await caller.chat("[[mock:error]]")
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    key = question_key(0, CHAT, Question(body, "m", chat(body)))
    answers: dict[str, int] = (await caller.http.get("/stats/answers")).json()
    assert sorted(answers.values()) == [1, 2]
    assert answers[key.hex()] == 2
    assert (await caller.stats())["answered_twice"] == {
        "count": 1,
        "examples": [{"message": "a", "times": 2}],
    }
