"""`--only`: a run takes on the lines that were named, and leaves the others as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from conftest import Bench

    from gpt4batch.mock.server import MockService

WAITS = {"code": 400, "message": "resource is not ready"}


async def run(bench: Bench, service: MockService, *words: str) -> int:
    given = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-u", f"{service.origin}/standard/all-tools"]
    return (await bench.call(*given, "--token", bench.token, *words)).code


async def test_only_the_lines_that_were_named_are_run(bench: Bench, service: MockService) -> None:
    bench.write(*[bench.line(n, f"question {n}") for n in range(6)])
    assert await run(bench, service, "--only", "1, 4") == 0
    assert [line["id"] for line in bench.read() if line["answers"]] == [1, 4]
    assert all(line["iErr"] == WAITS for line in bench.read() if not line["answers"])
    assert await run(bench, service, "-f", "--only", "4,5,2", "--limit", "1") == 0
    assert [line["id"] for line in bench.read() if line["answers"]] == [1, 2, 4]
    assert await run(bench, service, "-f") == 0
    assert service.stats.chats_answered == 6


@pytest.mark.parametrize("command", ["batchsvc", "check"])
async def test_line_that_is_not_there_is_refused_before_anything_is_done(
    bench: Bench, command: str
) -> None:
    bench.write(bench.line("a", "question"))
    (bench.folder / "out.jsonl").write_bytes(b"")
    words = [command, "-i", "in.jsonl", "--only", "a,b", "--token", "x"]
    result = await bench.call(*words, "-u", "http://127.0.0.1:9/standard/all-tools")
    assert result.code == 2
    assert "--only b: in.jsonl has no line with that id" in result.out + result.err
    assert [path.name for path in bench.folder.glob("out*.jsonl")] == ["out.jsonl"]


async def test_check_plans_for_the_lines_that_were_named(bench: Bench) -> None:
    bench.write(*[bench.line(n, f"question {n}") for n in range(6)])
    words = ["check", "--mock", "-i", "in.jsonl", "--only", "3,5"]
    result = await bench.call(*words)
    assert result.code == 0
    assert "6 lines: 2 to run" in result.out


# --redo


async def test_line_that_is_done_is_asked_anew_and_what_it_had_is_kept(
    bench: Bench, service: MockService
) -> None:
    bench.write(*[bench.line(n, f"question {n}", "and then?") for n in range(3)])
    assert await run(bench, service) == 0
    before = bench.read()
    assert await run(bench, service, "-f", "--only", "1", "--redo") == 0
    assert service.stats.chats_answered == 8
    after = bench.read()
    assert [after[0], after[2]] == [before[0], before[2]]
    assert after[1]["meta"]["superseded"] == before[1]["answers"]
    assert len(after[1]["answers"]) == 2
    ids = {reply["message_id"] for line in (before[1], after[1]) for reply in line["answers"]}
    assert len(ids) == 4
    assert await run(bench, service, "-f") == 0
    assert service.stats.chats_answered == 8
    assert bench.read() == after


async def test_line_that_is_not_answered_anew_stays_as_it_was(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line("a", "question"), bench.line("b", "question"))
    assert await run(bench, service) == 0
    before = bench.read()
    words = ["batchsvc", "-i", "in.jsonl", "-f", "--only", "b", "--redo", "--retries", "0"]
    words += ["-u", "http://127.0.0.1:9/standard/all-tools", "--token", bench.token]
    result = await bench.call(*words)
    assert result.code == 1
    assert "in.jsonl:2 (id b): not answered anew: what it had stays" in result.err
    assert bench.read() == before


async def test_what_was_answered_anew_outlives_a_crash(bench: Bench, service: MockService) -> None:
    bench.write(bench.line("a", "one", "two"))
    assert await run(bench, service) == 0
    done = (bench.folder / "out.jsonl").read_bytes()
    first = bench.read()[0]
    assert await run(bench, service, "-f", "--only", "a", "--redo") == 0
    anew = bench.read()[0]
    half = {**anew, "answers": anew["answers"][:1]}  # what the log had when the run was killed
    half["meta"] = {**anew["meta"], "asks": anew["meta"]["asks"][:1], "go": "x.1"}
    record = b"\t \t" + orjson.dumps(half) + b"\n"
    (bench.folder / "out.jsonl").write_bytes(done + record)
    assert await run(bench, service, "-f") == 0
    assert service.stats.chats_answered == 5
    found = bench.read()[0]
    assert found["answers"][0] == anew["answers"][0]
    assert found["meta"]["superseded"] == first["answers"]


async def test_line_that_is_asked_anew_is_asked_as_the_input_says_now(
    bench: Bench, service: MockService
) -> None:
    line = bench.line("a", "question")
    bench.write({**line, "extra": {"n": 1}})
    assert await run(bench, service) == 0
    (first,) = bench.read()
    bench.write({**line, "extra": {"n": 2}, "model": "another"})
    assert await run(bench, service, "-f", "--only", "a", "--redo") == 0
    (found,) = bench.read()
    assert (found["extra"], found["model"]) == ({"n": 2}, "another")
    assert found["meta"]["superseded"] == first["answers"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--redo",), "--redo: name the lines with --only, and the output with -f"),
        (("--redo", "--only", "a"), "--redo: name the lines with --only"),
        (("--redo", "--only", "c", "-f"), "in.jsonl:3: another line has the same id and asks"),
    ],
)
async def test_redo_is_refused_where_it_would_be_guessing(
    bench: Bench, service: MockService, words: tuple[str, ...], reason: str
) -> None:
    same = bench.line("c", "twice")
    bench.write(bench.line("a", "question"), same, same)
    assert await run(bench, service) == 0
    result = await bench.call(
        "batchsvc", "-i", "in.jsonl", "-u", f"{service.origin}/standard/all-tools",
        "--token", bench.token, *words,
    )  # fmt: skip
    assert result.code == 2
    assert reason in result.err
    assert service.stats.chats_answered == 3
