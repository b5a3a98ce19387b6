"""`--only`: a run takes on the lines that were named, and leaves the others as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
