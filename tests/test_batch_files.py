"""OpenAI's batch files through whole runs: rows in order, resumed, killed, refused."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Until = Callable[[Callable[[], Any]], Any]

VLLM = (Path(__file__).parent / "data/batch/vllm_example.jsonl").read_bytes().splitlines()
"""The example of vLLM's documentation of `run-batch`."""


def request(custom_id: Any, text: str = "hello", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"custom_id": custom_id, "body": {"model": "m", "messages": messages}} | more


def words(bench: Bench, origin: str, *more: str) -> list[str]:
    given = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-g", "4", "-u", f"{origin}/v1"]
    return [*given, "--token", bench.token, *more]


def rows(bench: Bench, name: str = "out.jsonl") -> list[tuple[Any, Any, Any]]:
    """Return custom_id, status and code of the error of each row."""
    return [
        (
            row["custom_id"],
            (row["response"] or {}).get("status_code"),
            (row["error"] or {}).get("code"),
        )
        for row in bench.read(name)
    ]


async def test_example_of_others_runs_unchanged_and_in_order(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*VLLM)
    async with serving(jitter=0.9) as service:
        result = await bench.call(*words(bench, service.origin))
        assert result.code == 0, result.err
        assert rows(bench) == [("request-1", 200, None), ("request-2", 200, None)]
        again = await bench.call(*words(bench, service.origin, "-f"))
        assert again.code == 0
        assert service.stats.chats_answered == 2


async def test_every_address_below_the_base_is_called(bench: Bench, serving: Serving) -> None:
    embedding = {"custom_id": "e", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    response = {"custom_id": "r", "url": "/v1/responses", "body": {"model": "m", "input": "x"}}
    completion = {"custom_id": "c", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}
    bench.write(embedding, response, completion, request("m"))
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin, "-m", "m"))
    assert result.code == 0, result.err
    assert [row["response"]["body"]["object"] for row in bench.read()] == [
        *("list", "response", "text_completion", "chat.completion"),
    ]


async def test_edited_body_is_asked_again_and_a_moved_line_is_not(
    bench: Bench, serving: Serving
) -> None:
    bench.write(request("a", "one"), request("b", "two"), request("c", "three"))
    async with serving() as service:
        assert (await bench.call(*words(bench, service.origin))).code == 0
        bench.write(request("c", "three"), request("b", "TWO"), request("a", "one"))
        result = await bench.call(*words(bench, service.origin, "-f"))
        assert result.code == 0, result.err
        assert service.stats.chats_answered == 4
    assert [row[0] for row in rows(bench)] == ["c", "b", "a"]
    assert "TWO" in rawjson.dumps(bench.read()[1]).decode()


async def test_results_of_another_tool_are_taken_up_and_that_is_said_once(
    bench: Bench, serving: Serving
) -> None:
    bench.write(request("a"), request("b"), request("c"))
    good = {"status_code": 200, "request_id": "r", "body": {"id": "x", "choices": []}}
    bad = {"status_code": 500, "request_id": "r", "body": {"error": {"message": "x"}}}
    bench.write(
        {"id": "vllm-1", "custom_id": "b", "response": bad, "error": None},
        {"id": "vllm-2", "custom_id": "a", "response": good, "error": None},
        name="out.jsonl",
    )
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin, "-f"))
        assert result.code == 0, result.err
        assert service.stats.chats_answered == 2
    assert result.err.count("custom_id alone") == 1
    assert [row[:2] for row in rows(bench)] == [("a", 200), ("b", 200), ("c", 200)]


async def test_failures_are_rows_and_go_to_a_file_of_their_own_where_one_is_named(
    bench: Bench, serving: Serving
) -> None:
    bench.write(request("a"), request("b", "[[mock:400]]"), request("c"))
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin))
        assert result.code == 1
        assert rows(bench) == [("a", 200, None), ("b", 400, None), ("c", 200, None)]
        assert bench.read()[1]["response"]["body"]["error"]

        result = await bench.call(*words(bench, service.origin, "-f", "--error-file", "bad.jsonl"))
        assert result.code == 1, result.err
        assert rows(bench) == [("a", 200, None), ("c", 200, None)]
        assert rows(bench, "bad.jsonl") == [("b", 400, None)]
        assert service.stats.chats_answered == 2


async def test_requests_that_were_not_made_are_cancelled_and_made_later(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*(request(f"r-{number}", f"text {number}") for number in range(6)))
    async with serving() as service:
        first = await bench.call(*words(bench, service.origin, "--max-calls", "2"))
        assert first.code == 3
        codes = [code for _, _, code in rows(bench)]
        assert codes.count("batch_cancelled") == 4
        second = await bench.call(*words(bench, service.origin, "-f"))
        assert second.code == 0, second.err
        assert service.stats.chats_answered == 6
        assert service.stats.answered_twice == 0


async def test_killed_again_and_again_every_request_is_answered_once(
    bench: Bench, serving: Serving, until: Until
) -> None:
    count = 24
    bench.write(*(request(f"r-{number}", f"text {number}") for number in range(count)))
    async with serving(latency=0.05, jitter=0.5) as service:
        for _ in range(4):
            wanted = service.stats.chats_answered + 3
            async with bench.start(*words(bench, service.origin, "-f", "-g", "2")) as running:
                await until(partial(_has_answered, service, wanted))
                os.kill(running.process.pid, signal.SIGKILL)
                await running.end()
        result = await bench.call(*words(bench, service.origin, "-f"))
        assert result.code == 0, result.err
        assert service.stats.answered_twice <= 8
    assert [row[:2] for row in rows(bench)] == [(f"r-{number}", 200) for number in range(count)]


def _has_answered(service: MockService, wanted: int) -> bool:
    return service.stats.chats_answered >= wanted


async def test_standard_input_and_output(bench: Bench, serving: Serving) -> None:
    async with serving() as service:
        given = words(bench, service.origin, "-i", "-", "-o", "-", "--quiet")
        result = await bench.call(*given, stdin=b"\n".join(VLLM))
    assert result.code == 0, result.err
    found = {rawjson.loads(row)["custom_id"] for row in result.out.encode().splitlines()}
    assert found == {"request-1", "request-2"}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([request("a"), request("a")], "in.jsonl:2: custom_id 'a' stands in line 1 already"),
        ([request("a"), request("b", method="GET")], "only POST"),
        ([request("a"), {"asks": [{"content": "x"}]}], "in.jsonl:2: custom_id is missing"),
        ([{"asks": [{"content": "x"}]}, request("b")], "in.jsonl:2: asks is missing"),
        ([request("a", url="http://127.0.0.1:1/v1/chat")], "a path below the service's address"),
    ],
)
async def test_file_that_cannot_be_run_is_refused_before_the_first_call(
    bench: Bench, serving: Serving, lines: list[Any], reason: str
) -> None:
    bench.write(*lines)
    async with serving() as service:
        given = words(bench, service.origin, "-m", "m")
        result = await bench.call(*given)
        assert (result.code, service.stats.arrivals) == (2, 0), result.err
        assert reason in result.err
        checked = await bench.call("check", *given[1:])
        assert checked.code == 2
        assert reason in checked.out


async def test_service_of_the_other_kind_is_refused_a_batch_file(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*VLLM)
    async with serving() as service:
        result = await bench.call(*bench.batchsvc(service.origin))
        assert (result.code, service.stats.arrivals) == (2, 0)
    assert "--api openai" in result.err


async def test_error_file_needs_a_batch_file(bench: Bench, serving: Serving) -> None:
    bench.write(bench.line(1, "x"))
    async with serving() as service:
        result = await bench.call(*bench.batchsvc(service.origin, "--error-file", "bad.jsonl"))
        assert (result.code, service.stats.arrivals) == (2, 0)
    assert "--error-file bad.jsonl" in result.err


async def test_error_file_takes_the_place_of_no_pipe(bench: Bench, serving: Serving) -> None:
    bench.write(request("a"))
    os.mkfifo(bench.folder / "bad.jsonl")
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin, "--error-file", "bad.jsonl"))
        assert (result.code, service.stats.arrivals) == (2, 0)
    assert "--error-file bad.jsonl" in result.err
    assert (bench.folder / "bad.jsonl").is_fifo()


async def test_error_file_is_written_through_a_link(bench: Bench, serving: Serving) -> None:
    bench.write(request("a"), request("b", "[[mock:400]]"))
    (bench.folder / "bad.jsonl").symlink_to("real.jsonl")
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin, "--error-file", "bad.jsonl"))
    assert result.code == 1, result.err
    assert (bench.folder / "bad.jsonl").is_symlink()
    assert [row["custom_id"] for row in bench.read("real.jsonl")] == ["b"]


async def test_failures_of_an_earlier_run_are_moved_where_nothing_is_left_to_run(
    bench: Bench, serving: Serving
) -> None:
    bench.write(request("a"), request("b", "[[mock:400]]"))
    async with serving() as service:
        assert (await bench.call(*words(bench, service.origin))).code == 1
        more = ("-f", "--only", "a", "--error-file", "bad.jsonl")
        await bench.call(*words(bench, service.origin, *more))
    assert rows(bench) == [("a", 200, None)]
    assert rows(bench, "bad.jsonl") == [("b", 400, None)]


async def test_folder_of_the_error_file_that_vanished_is_told_as_such(
    bench: Bench, serving: Serving, until: Until
) -> None:
    bench.write(request("a"), request("b", "[[mock:400]]"))
    folder = bench.folder / "errors"
    folder.mkdir()
    async with serving(latency=0.2) as service:

        async def vanish() -> None:
            await until(lambda: service.stats.arrivals)
            folder.rmdir()

        more = ("--error-file", "errors/bad.jsonl")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vanish)
            result = await bench.call(*words(bench, service.origin, *more))
        assert result.code != 0
        assert f"cannot write {folder / 'bad.jsonl'} (--error-file)" in result.err
        folder.mkdir()
        again = await bench.call(*words(bench, service.origin, "-f", *more))
    assert (again.code, rows(bench)) == (1, [("a", 200, None)])


async def test_rows_are_not_asked_anew(bench: Bench, serving: Serving) -> None:
    bench.write(request("a"))
    async with serving() as service:
        assert (await bench.call(*words(bench, service.origin))).code == 0
        before = bench.read()
        result = await bench.call(*words(bench, service.origin, "-f", "--only", "a", "--redo"))
    assert (result.code, bench.read()) == (2, before)
    assert "--redo: the rows of a batch file have no place for what they had" in result.err


async def test_old_completions_are_not_asked_for_as_a_stream(
    bench: Bench, serving: Serving
) -> None:
    completion = {"custom_id": "c", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}
    bench.write(completion)
    async with serving() as service:
        result = await bench.call(*words(bench, service.origin, "--stream"))
    assert result.code == 0, result.err
    (choice,) = bench.read()[0]["response"]["body"]["choices"]
    assert (bool(choice["text"]), "message" in choice) == (True, False)


async def test_check_knows_the_keys_of_its_own_form(bench: Bench) -> None:
    bench.write(request("a"))
    result = await bench.call("check", "--mock", "--api", "openai", "-i", "in.jsonl")
    assert (result.code, "openai_batch" in result.out) == (0, False)


async def test_request_with_a_long_number_is_shown(bench: Bench, serving: Serving) -> None:
    line = request("a")
    line["body"]["seed"] = 2**70
    (bench.folder / "in.jsonl").write_bytes(
        rawjson.dumps(line).replace(b"1.1805916207174113e21", str(2**70).encode()) + b"\n"
    )
    async with serving() as service:
        assert (await bench.call(*words(bench, service.origin))).code == 0
    result = await bench.call("viewsvc", "out.jsonl", "-i", "in.jsonl", "--export", "r.html")
    assert result.code == 0, result.err
