"""Judged by services that nobody here wrote: their limits, their faults, their keys."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from conftest import Bench, Result

    Until = Callable[[Callable[[], Any]], Awaitable[None]]

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("GPT4BATCH_REQUIRE_STRANGERS") == "1"
LLMOCK = Path(sys.executable).with_name("llmock")
AIMOCK = ROOT / ".venv/aimock/node_modules/.bin/llmock"
VLLM = Path(__file__).parent / "data/batch/vllm_example.jsonl"
KEY = "a-key-of-theirs"
FIXTURE = {"fixtures": [{"match": {"userMessage": "number"}, "response": {"content": "Theirs."}}]}
SPOILT = "malformed_chunk_ignored"
JITTER = {"no_backoff"}
"""What llmock takes for a lack of backoff is chance in a few of many calls: waits are random."""


@asynccontextmanager
async def serving(*words: str | Path, path: str, **env: str) -> AsyncIterator[str]:
    """Start a service on a free port, `{port}` in its words, and wait until it answers a path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(word).format(port=port) for word in words]
    origin = f"http://127.0.0.1:{port}"
    async with (
        await anyio.open_process(
            command, env=os.environ | env, stdout=None, stderr=None
        ) as process,
        httpx.AsyncClient(trust_env=False, verify=False) as http,
    ):
        try:
            with anyio.fail_after(30):
                while await answers(http, origin + path) is None:
                    assert process.returncode is None
                    await anyio.sleep(0.05)
            yield origin
        finally:
            process.terminate()


async def answers(http: httpx.AsyncClient, url: str) -> httpx.Response | None:
    try:
        return await http.get(url)
    except httpx.TransportError:
        return None


def questions(bench: Bench, count: int) -> None:
    bench.write(*(bench.line(place, f"question number {place}") for place in range(count)))


async def run(bench: Bench, origin: str, *words: str, **env: str) -> Result:
    command = ["batchsvc", "--api", "openai", "-u", f"{origin}/v1", "-m", "gpt-4o-mini", "-q", "0"]
    return await bench.call(
        *command, "-i", "in.jsonl", "--retries", "9", *words, env={"OPENAI_API_KEY": KEY, **env}
    )


def llmock(*words: str) -> AbstractAsyncContextManager[str]:
    serve: list[str | Path] = [LLMOCK, "serve", "--port", "{port}", "--log-level", "error"]
    return serving(*serve, *words, path="/_llmock/verdict")


async def verdict(origin: str) -> Any:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return (await http.get(f"{origin}/_llmock/verdict")).json()


@pytest.mark.skipif(not LLMOCK.exists() and not REQUIRED, reason="the group `strangers` is missing")
async def test_llmock_finds_no_fault_with_2000_lines_through_its_faults_and_limits(
    bench: Bench,
) -> None:
    lines = 2000
    questions(bench, lines)
    faults = ["--error-rate", "500=0.1", "--error-rate", "503=0.1"]
    # Its buckets are full at first: these let 2,100 calls through at once, and then 35 a second.
    limits = ["--rpm", "2200", "--tpm", "38000"]
    async with llmock(*faults, *limits) as origin:
        ran = await run(bench, origin, "-g", "100")
        judged = await verdict(origin)
    assert ran.code == 0, ran.err
    assert sum("iErr" not in line for line in bench.read()) == lines
    assert judged["calls"] == lines
    assert judged["faults_injected"] > 0.15 * lines
    assert judged["passed"], judged["findings"][:5]
    assert {found["code"] for found in judged["findings"]} <= JITTER


@pytest.mark.skipif(not LLMOCK.exists() and not REQUIRED, reason="the group `strangers` is missing")
async def test_llmock_finds_no_fault_with_streams_that_are_cut(bench: Bench) -> None:
    lines = 400
    questions(bench, lines)
    cuts = ("truncate=0.05", "disconnect=0.05", "malformed=0.05")
    async with llmock(*(word for cut in cuts for word in ("--stream-fault", cut))) as origin:
        ran = await run(bench, origin, "--stream")
        judged = await verdict(origin)
    assert ran.code == 0, ran.err
    assert len(bench.read()) == lines
    assert judged["faults_injected"] > 0.1 * lines
    assert judged["passed"], judged["findings"][:5]
    codes = [found["code"] for found in judged["findings"]]
    assert set(codes) <= JITTER | {SPOILT}
    # A stream with a spoilt event ends well for llmock: that it was asked for again is a new call.
    assert judged["calls"] == lines + codes.count(SPOILT) > lines


@pytest.mark.skipif(not LLMOCK.exists() and not REQUIRED, reason="the group `strangers` is missing")
async def test_vllms_example_is_killed_and_done_at_llmock_and_read_by_its_clients(
    bench: Bench, until: Until
) -> None:
    openai = pytest.importorskip("openai.types.chat")
    kills, goroutines, copies = 10, 8, 60
    example = [rawjson.loads(line) for line in VLLM.read_bytes().splitlines()]
    bench.write(
        *[
            line | {"custom_id": f"{line['custom_id']}-{n}"}
            for n in range(copies)
            for line in example
        ]
    )
    words = ["batchsvc", "-i", "in.jsonl", "-f", "-q", "100", "-g", str(goroutines)]
    out = bench.folder / "out.jsonl"
    async with llmock() as origin:
        words += ["-u", f"{origin}/v1"]
        for kill in range(kills):
            async with bench.start(*words, env={"OPENAI_API_KEY": KEY}) as running:
                wanted = 10 * (kill + 1)
                await until(partial(has_records, out, wanted))
                running.process.kill()
                await running.process.wait()
        ran = await bench.call(*words, env={"OPENAI_API_KEY": KEY})
        judged = await verdict(origin)
    assert ran.code == 0, ran.err
    rows = bench.read()
    assert [row["custom_id"] for row in rows] == [
        line["custom_id"] for line in bench.read("in.jsonl")
    ]
    for row in rows:
        body = row["response"]["body"]
        assert openai.ChatCompletion.model_validate(body, strict=True).to_dict() == body
    assert len(rows) <= judged["calls"] <= len(rows) + kills * goroutines
    assert judged["passed"], judged["findings"][:5]


def has_records(out: Path, count: int) -> bool:
    return out.exists() and out.read_bytes().count(b"\n") >= count


@pytest.mark.skipif(
    not (AIMOCK.exists() and shutil.which("node"))
    and not (REQUIRED and shutil.which("npm") is not None),
    reason="needs npm and `make strangers`",
)
@pytest.mark.parametrize("header", ["Authorization", "api-key"])
async def test_aimock_takes_the_key_and_its_faults_are_overcome(bench: Bench, header: str) -> None:
    questions(bench, 100)
    (bench.folder / "fixtures").mkdir()
    (bench.folder / "fixtures/all.json").write_bytes(rawjson.dumps(FIXTURE))
    chaos = ["--chaos-disconnect", "0.05", "--chaos-malformed", "0.05", "--chaos-drop", "0.02"]
    words: list[str | Path] = [
        AIMOCK,
        "-p",
        "{port}",
        "-f",
        bench.folder / "fixtures",
        "--strict",
        *chaos,
    ]
    named = [] if header == "Authorization" else ["--header", f"{header}: {KEY}"]
    env = {"AIMOCK_API_KEYS": KEY}
    async with serving(*words, "--log-level", "silent", path="/v1/models", **env) as origin:
        ran = await run(bench, origin, *named)
        wrong = await run(bench, origin, "-o", "wrong.jsonl", OPENAI_API_KEY="wrong")
    assert ran.code == 0, ran.err
    said = {line["answers"][0]["choices"][0]["message"]["content"] for line in bench.read()}
    assert said == {"Theirs."}
    assert wrong.code == 3
    assert "OPENAI_API_KEY" in wrong.err
    assert KEY not in ran.err + (bench.folder / "out.jsonl").read_text()
