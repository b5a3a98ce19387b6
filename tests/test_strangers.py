"""Judged by programs that nobody here wrote, as clients of the embedded service.

Those that contradict what this tool is built on live in places of their own: `make strangers`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpt4batch.lines import rawjson
from gpt4batch.mock.replies import answer_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gpt4batch.mock.server import MockService

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("GPT4BATCH_REQUIRE_STRANGERS") == "1"
LITELLM = ROOT / ".venv/litellm/bin/python"
MODELS = """
- model_id: mock
  model_name: mock-model
  api_base: {origin}/v1
  api_key_name: mock
  vision: true
"""
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080400000"
    "0b51c0c020000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)

if REQUIRED:
    import openai
else:
    openai = pytest.importorskip("openai", reason="the group `strangers` is not installed")

from openai.types import CreateEmbeddingResponse  # noqa: E402
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "required": ["city"]}},
}


@pytest.fixture
async def sdk(service: MockService) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"{service.origin}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key=service.token, max_retries=0) as client:
        yield client


# The SDK of OpenAI


def asked(content: str = "hello") -> Any:
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


async def test_sdk_takes_a_reply_without_a_field_too_many_or_of_another_type(
    sdk: openai.AsyncOpenAI,
) -> None:
    told = await sdk.chat.completions.with_raw_response.create(**asked(), reasoning_effort="high")
    reply = ChatCompletion.model_validate_json(told.content, strict=True)
    assert reply.choices[0].message.content == answer_text("hello")
    assert reply.usage is not None
    assert told.request_id
    assert reply.choices[0].message.model_extra == {
        "reasoning_content": "Mock reasoning of seed 0 on: hello"
    }


async def test_sdk_folds_a_stream_into_the_same_reply(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(**asked(), tools=[TOOL])
    async with sdk.chat.completions.stream(
        **asked(), tools=[TOOL], stream_options={"include_usage": True}
    ) as stream:
        folded = await stream.get_final_completion()
    calls = folded.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.arguments == '{"city":"hello"}'
    assert folded.choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"
    assert folded.usage == whole.usage


async def test_sdk_takes_every_chunk_of_a_stream(sdk: openai.AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await sdk.chat.completions.create(**asked(), stream=True)]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
        assert not chunk.model_extra
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == answer_text("hello")


async def test_sdk_takes_embeddings_models_responses_and_completions(
    sdk: openai.AsyncOpenAI,
) -> None:
    vectors = await sdk.embeddings.create(model="m", input=["a", "b"])
    CreateEmbeddingResponse.model_validate(vectors.model_dump(), strict=True)
    assert [len(item.embedding) for item in vectors.data] == [16, 16]
    assert "mock-model" in [model.id async for model in sdk.models.list()]
    assert (await sdk.responses.create(model="m", input="hello")).output_text == answer_text(
        "hello"
    )
    plain = await sdk.completions.create(model="m", prompt="hello")
    assert plain.choices[0].text == answer_text("hello")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("400", openai.BadRequestError),
        ("403", openai.PermissionDeniedError),
        ("404", openai.NotFoundError),
        ("422", openai.UnprocessableEntityError),
        ("rate-limit", openai.RateLimitError),
        ("quota", openai.RateLimitError),
        ("error", openai.InternalServerError),
        ("reset", openai.APIConnectionError),
    ],
)
async def test_sdk_knows_every_refusal(
    sdk: openai.AsyncOpenAI, fault: str, error: type[Exception]
) -> None:
    question = asked(f"[[mock:{fault}]]")
    with pytest.raises(error):
        await sdk.chat.completions.create(**question)


async def test_sdk_knows_an_error_inside_a_stream(sdk: openai.AsyncOpenAI) -> None:
    question = asked("[[mock:content-error]]")
    with pytest.raises(openai.APIError, match="on purpose"):
        async for _ in await sdk.chat.completions.create(**question, stream=True):
            pass


async def test_sdk_waits_as_long_as_a_refusal_says(
    serving: Callable[..., MockService], sdk: openai.AsyncOpenAI
) -> None:
    question = asked("[[mock:rate-limit*1]]")
    async with serving(retry_after=0.2) as service:
        client = sdk.with_options(base_url=f"{service.origin}/v1", max_retries=1)
        await client.chat.completions.create(**question)
        assert 0.2 <= service.stats.last_arrival - service.stats.first_arrival < 5


async def test_sdk_of_azure_finds_its_address_and_key(
    serving: Callable[..., MockService],
) -> None:
    async with (
        serving(key_header="api-key") as service,
        openai.AsyncAzureOpenAI(
            azure_endpoint=service.origin, api_key=service.token, api_version="2024-10-21"
        ) as client,
    ):
        reply = await client.chat.completions.create(**asked())
    assert reply.choices[0].message.content == answer_text("hello")


# llm


@pytest.fixture
def llm(service: MockService, tmp_path: Path) -> Callable[..., Any]:
    """Return how to run the command `llm` against the service."""
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text(MODELS.format(origin=service.origin))
    (folder / "keys.json").write_text(f'{{"mock": "{service.token}"}}')

    async def run(*words: str) -> tuple[str, str]:
        done = await anyio.run_process(
            [sys.executable, "-m", "llm", *words],
            env={**os.environ, "LLM_USER_PATH": str(folder), "PYTHONWARNINGS": "ignore"},
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(), done.stderr.decode()

    return run


async def test_llm_reads_streams_and_replies_with_their_usage(llm: Callable[..., Any]) -> None:
    for how in ([], ["--no-stream"]):
        out, err = await llm("-m", "mock", "-u", *how, "hello")
        assert out.strip() == answer_text("hello")
        assert "Token usage: 6 input, 8 output" in err


async def test_llm_sends_a_picture_and_a_thread(
    llm: Callable[..., Any], service: MockService, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    out, _ = await llm("-m", "mock", "hello", "-a", str(tmp_path / "a.png"))
    assert "sha256 1: " in out
    out, _ = await llm("-c", "and then?")
    assert "after 2 messages of sha256" in out
    assert service.stats.chats_answered == 2


# litellm


@pytest.mark.skipif(not LITELLM.exists() and not REQUIRED, reason="needs `make strangers`")
async def test_litellm_reads_everything(service: MockService) -> None:
    script = ROOT / "tests/strangers/ask_litellm.py"
    done = await anyio.run_process(
        [str(LITELLM), str(script), f"{service.origin}/v1", service.token],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told = rawjson.loads(done.stdout.splitlines()[-1])
    for way in ("whole", "stream"):
        choice = told[way]["choices"][0]
        assert choice["message"]["content"] == answer_text("hello")
        assert choice["finish_reason"] == "stop"
        assert told[way]["usage"]["total_tokens"] == 14
    assert (told["tool"], told["vectors"]) == ("weather", [16, 16])
    assert "too many requests" in told["refusal"]
