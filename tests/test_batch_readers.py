"""What is written for batch files is read by programs that nobody here wrote."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

openai = pytest.importorskip("openai", reason="the group `strangers` is not installed")
steadybatch = pytest.importorskip("steadybatch.providers.openai_batch")

EXAMPLE = Path(__file__).parent / "data/batch/vllm_example.jsonl"


def read_by_steadybatch(output: bytes, errors: bytes = b"") -> list[Any]:
    """Read results as out of the files of a batch that has ended."""
    files = {"output": output.decode(), "errors": errors.decode()}
    batch = SimpleNamespace(output_file_id="output", error_file_id="errors")
    client = SimpleNamespace(
        batches=SimpleNamespace(retrieve=lambda _id: batch),
        files=SimpleNamespace(content=lambda name: SimpleNamespace(text=files[name])),
    )
    return list(steadybatch.OpenAIBatch(client).results("batch"))


async def test_output_is_read_by_others_with_nothing_missing(
    bench: Bench, serving: Callable[..., MockService]
) -> None:
    from openai.types.chat import ChatCompletion

    failing = {"model": "m", "messages": [{"role": "user", "content": "[[mock:400]]"}]}
    refused = rawjson.dumps({"custom_id": "bad", "body": failing})
    bench.write(*EXAMPLE.read_bytes().splitlines(), refused)
    async with serving() as service:
        given = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-u", f"{service.origin}/v1"]
        given += ["--token", bench.token, "--error-file", "errors.jsonl"]
        result = await bench.call(*given)
    assert result.code == 1, result.err

    for row in bench.read():
        body = row["response"]["body"]
        read = ChatCompletion.model_validate(body, strict=True)
        assert read.to_dict() == body

    output, errors = ((bench.folder / n).read_bytes() for n in ("out.jsonl", "errors.jsonl"))
    found = {item.custom_id: item for item in read_by_steadybatch(output, errors)}
    assert {name: item.ok for name, item in found.items()} == {
        "request-1": True,
        "request-2": True,
        "bad": False,
    }
    assert "Hello world!" in found["request-1"].text
    assert found["request-1"].output_tokens > 0
    assert "HTTP 400" in found["bad"].error
