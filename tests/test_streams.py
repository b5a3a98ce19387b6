"""Streams that are closed, full, broken or of another encoding, and signals at the very end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import COMMAND

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Until = Callable[[Callable[[], Any]], Awaitable[None]]


async def shell(
    bench: Bench, redirected: str, *words: str, before: str = "", **env: str
) -> tuple[int, str, str]:
    """Run the real command with its streams redirected; return its code and what it said."""
    line = f'{before} "$@" {redirected}; code=$?; exit $code'
    command = ["bash", "-c", line, "bash", *COMMAND, *words]
    with anyio.fail_after(60):
        done = await anyio.run_process(
            command, check=False, cwd=bench.folder, env=os.environ | env, stdin=subprocess.DEVNULL
        )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize(
    "redirected", ["2>/dev/full", "2>&-", "2> >(exec true)", ">&-", "<&-", "<&- >&- 2>&-"]
)
async def test_run_with_a_stream_that_is_no_use_ends_with_its_own_code(
    bench: Bench, service: MockService, redirected: str, quiet: bool
) -> None:
    bench.write(bench.line(1, "one [[mock:500*1]]"), bench.line(2, "two"))
    more = ["--quiet"] if quiet else ["--progress-interval", "0.1"]
    code, _, err = await shell(bench, redirected, *bench.batchsvc(service.origin, *more))
    assert code == 0, err
    assert all(line["answers"] for line in bench.read())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flag", "redirected", "ending"),
    [("-i", "<&-", (2, "input")), ("-o", ">&-", (4, "output"))],
)
async def test_standard_stream_that_is_needed_and_closed_is_refused(
    bench: Bench, service: MockService, flag: str, redirected: str, ending: tuple[int, str]
) -> None:
    bench.write(bench.line(1, "one"))
    code, _, err = await shell(bench, redirected, *bench.batchsvc(service.origin, flag, "-"))
    assert code == ending[0]
    assert err == f"gpt4batch: {flag} -: standard {ending[1]} is closed: nothing was called\n"
    assert service.stats.arrivals == 0


async def test_log_on_a_full_disk_is_said_once_and_stops_nothing(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one [[mock:404]]"), bench.line(2, "two [[mock:404]]"))
    words = bench.batchsvc(service.origin, "--quiet", "--log-file", "/dev/full")
    result = await bench.call(*words)
    assert result.code == 1
    text = "No space left on device; the run goes on without it"
    assert result.err == f"gpt4batch: --log-file /dev/full: {text}\n"


@pytest.mark.parametrize("words", [["-h"], ["check", "-h"], ["--version"], ["check", "--mock"]])
async def test_standard_output_that_is_full_is_said_in_a_line(
    bench: Bench, words: list[str]
) -> None:
    bench.write(bench.line(1, "one"), name="example.jsonl")
    code, _, err = await shell(bench, ">/dev/full", *words)
    assert code == 4
    assert err == "gpt4batch: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", [["-h"], ["--version"], ["check", "--mock"]])
async def test_standard_output_whose_reader_has_left_is_no_defect(
    bench: Bench, words: list[str]
) -> None:
    bench.write(bench.line(1, "one"), name="example.jsonl")
    reader, writer = os.pipe()
    os.close(reader)
    with anyio.fail_after(60):
        command = [*COMMAND, *words]
        done = await anyio.run_process(command, check=False, stdout=writer, cwd=bench.folder)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


async def test_token_that_is_stored_and_cannot_be_told_is_no_defect(
    bench: Bench, service: MockService
) -> None:
    url = f"{service.origin}/console/access_token"
    words = ["authsvc", "-e", "mock@example.com", "-p", "mock-password", "-u", url]
    code, _, err = await shell(bench, ">/dev/full", *words)
    assert code == 4
    assert err == "gpt4batch: standard output cannot be written: No space left on device\n"
    assert (bench.folder / "user" / ".gpt4api-sk.pub").exists()


async def test_help_is_shown_where_the_encoding_lacks_its_characters(bench: Bench) -> None:
    env = {"LANG": "zh_CN.UTF-8", "PYTHONIOENCODING": "latin-1"}
    code, out, err = await shell(bench, "", "-h", **env)
    assert (code, err) == (0, "")
    assert r"\u6279\u91cf" in out


@pytest.mark.parametrize(
    "words",
    [
        ["batchsvc", "--mock"],
        ["batchsvc", "--mock", "-i", "-", "-o", "-"],
        ["check", "--mock"],
    ],
)
async def test_working_folder_that_is_gone_is_said_in_a_line(
    bench: Bench, words: list[str]
) -> None:
    before = 'mkdir gone; cd gone; rmdir "$PWD";'
    code, _, err = await shell(bench, "", *words, before=before)
    assert code == 2, err
    text = "the working folder is gone: go to one that is there and run this again"
    assert err == f"gpt4batch: {text}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_after_the_last_line_takes_nothing_from_the_end(
    bench: Bench, service: MockService, until: Until, number: signal.Signals
) -> None:
    bench.write(bench.line(1, "one"))
    os.mkfifo(bench.folder / "sum.fifo")
    pipe = os.open(bench.folder / "sum.fifo", os.O_RDWR | os.O_NONBLOCK)
    filled = os.write(pipe, bytes(1 << 20))  # the run cannot end before this is read
    words = bench.batchsvc(service.origin, "--summary", "sum.fifo")

    async with bench.start(*words) as running:

        def has_ended() -> bool:  # signals are ignored from then on
            status = Path(f"/proc/{running.process.pid}/status").read_text()
            ignored = re.search(r"^SigIgn:\s*(\w+)", status, re.MULTILINE)
            return ignored is not None and bool(int(ignored[1], 16) >> (number - 1) & 1)

        await until(has_ended)
        running.process.send_signal(number)
        running.process.send_signal(number)
        found = b""
        while b"}\n" not in found[filled:]:
            await anyio.wait_readable(pipe)
            found += os.read(pipe, 1 << 20)
        result = await running.end()
    os.close(pipe)
    assert result.code == 0, result.err
    assert "1 of 1 lines done" in result.err
    assert rawjson.loads(found[filled:])["stopped"] == ""
