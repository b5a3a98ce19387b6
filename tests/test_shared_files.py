"""Files that are named twice, of which one would destroy the other."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import COMMAND

if TYPE_CHECKING:
    from conftest import Bench

    from gpt4batch.mock.server import MockService


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--summary", "out.jsonl"], "-o out.jsonl and --summary out.jsonl"),
        (["--summary", "./link"], "-i in.jsonl and --summary ./link"),
        (["--log-file", "in.jsonl"], "-i in.jsonl and --log-file in.jsonl"),
        (["--log-file", "hard"], "-i in.jsonl and --log-file hard"),
        (["--summary", "s", "--log-file", "sub/../s"], "--summary s and --log-file sub/../s"),
        (["--summary", "out.jsonl.lock"], "--summary out.jsonl.lock and out.jsonl.lock of the run"),
        (["--log-file", ".out.jsonl.tmp"], "and .out.jsonl.tmp of the run"),
        (["-i", "out.jsonl.fleet"], "-i out.jsonl.fleet and out.jsonl.fleet of the run"),
        (["-o", "-", "--summary", "gpt4batch.nsq-spool"], "and gpt4batch.nsq-spool of the run"),
    ],
)
async def test_file_that_two_flags_name_is_refused_before_anything_is_written(
    bench: Bench, service: MockService, words: list[str], names: str
) -> None:
    bench.write(bench.line(1, "one"))
    (bench.folder / "link").symlink_to("in.jsonl")
    (bench.folder / "hard").hardlink_to(bench.folder / "in.jsonl")
    (bench.folder / "sub").mkdir()
    before = {name: (bench.folder / name).read_bytes() for name in bench.names()}
    run = bench.batchsvc(service.origin, *words)
    result = await bench.call(*run)
    assert result.code == 2
    assert names in result.last
    assert "are the same file, /" in result.last
    checked = await bench.call("check", *run[1:])
    assert checked.code == 2
    assert result.last.removeprefix("gpt4batch: ") in checked.out
    assert {name: (bench.folder / name).read_bytes() for name in bench.names()} == before
    assert service.stats.arrivals == 0


async def test_devices_and_pipes_may_be_shared(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "one"))
    both = ["--summary", "/dev/stderr", "--log-file", "/dev/stderr"]
    result = await bench.call(*bench.batchsvc(service.origin, *both, "-o", "/dev/null"))
    assert result.code == 0, result.err


async def test_standard_input_that_is_the_summary_is_refused(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"))
    words = bench.batchsvc(service.origin, "-i", "-", "--summary", "in.jsonl")
    with (bench.folder / "in.jsonl").open("rb") as file, anyio.fail_after(60):
        done = await anyio.run_process(
            [*COMMAND, *words], stdin=file, check=False, cwd=bench.folder
        )
    assert done.returncode == 2
    assert b"-i - and --summary in.jsonl are the same file" in done.stderr


# The report of viewsvc


@pytest.mark.parametrize("name", ["out.jsonl", "in.jsonl", "link"])
async def test_report_never_replaces_what_it_is_made_from(bench: Bench, name: str) -> None:
    bench.write(bench.line(1, "one"))
    bench.write(bench.line(1, "one", answers=[{"contents": [{}]}]), name="out.jsonl")
    (bench.folder / "link").symlink_to("out.jsonl")
    before = [bench.read(name) for name in ("in.jsonl", "out.jsonl")]
    result = await bench.call("viewsvc", "out.jsonl", "-i", "in.jsonl", "--export", name)
    assert result.code == 2
    assert f"--export {name}: the report would replace" in result.last
    assert [bench.read(name) for name in ("in.jsonl", "out.jsonl")] == before


async def test_report_goes_into_a_pipe_and_through_a_link(bench: Bench) -> None:
    bench.write(bench.line(1, "one", answers=[{"contents": [{}]}]), name="out.jsonl")
    kept, link, pipe = (bench.folder / name for name in ("kept.html", "link.html", "pipe.html"))
    (bench.folder / "stdout").symlink_to("/proc/self/fd/1")
    kept.touch()
    link.symlink_to("kept.html")
    os.mkfifo(pipe)
    assert (await bench.call("viewsvc", "out.jsonl", "--export", "link.html")).code == 0
    assert link.is_symlink()
    assert b"</html>" in kept.read_bytes()
    found = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.call, "viewsvc", "out.jsonl", "--export", "pipe.html")
        found.append(await anyio.to_thread.run_sync(pipe.read_bytes))
    assert b"</html>" in found[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    result = await bench.call("viewsvc", "out.jsonl", "--export", "stdout")
    assert "</html>" in result.out
