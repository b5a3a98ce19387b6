from __future__ import annotations

import random
import re
import shlex
import signal
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpt4batch.batch.preflight import Report
from gpt4batch.batch.progress import GROUPS, OTHER, Progress
from gpt4batch.batch.summary import Summary
from gpt4batch.batch.survey import Plan
from gpt4batch.cli.next_command import next_command
from gpt4batch.errors import AttachmentError, RejectedError
from gpt4batch.histogram import Histogram
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import calls_noted
from gpt4batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Until = Callable[[Callable[[], Any]], Awaitable[None]]

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]*)\|", re.MULTILINE)
TYPES = {"int": "integer", "float": "number", "str": "string", "list": "list of objects"}
TYPES |= {"dict": "object", "int | None": "integer or null", "float | None": "number or null"}


# The record and its page


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_names_every_key_in_order(language: str) -> None:
    run, check = (DOCS / language / "summary.md").read_text().split("## `gpt4batch check")
    assert [row[0] for row in ROW.findall(run)] == [field.name for field in fields(Summary)]
    keys = [field.name for field in fields(Report)]
    keys += [f"plan.{field.name}" for field in fields(Plan)]
    assert [row[0] for row in ROW.findall(check)] == keys


def test_page_names_every_type() -> None:
    text = (DOCS / "en/summary.md").read_text().partition("## ")[0]
    told = {name: kind.strip() for name, kind, _ in ROW.findall(text)}
    for field in fields(Summary):
        kind = re.sub(r"\[.*\]", "", str(field.type))
        assert told[field.name] == TYPES[kind], field.name


async def test_file_holds_every_key(bench: Bench) -> None:
    bench.write(bench.line(1, "hello"))
    result = await bench.call("batchsvc", "--mock", "-q=0", "-i=in.jsonl", "--summary=sum.json")
    assert result.code == 0, result.err
    record = rawjson.loads((bench.folder / "sum.json").read_bytes())
    assert list(record) == [field.name for field in fields(Summary)]
    assert record["chats"] == record["done"] == record["lines"] == 1
    assert record["next"] == ""
    assert set(record["latency"]) == {"p50", "p90", "p99"}


async def test_summary_that_cannot_be_written_is_refused(bench: Bench) -> None:
    bench.write(bench.line(1, "hello"))
    result = await bench.call("batchsvc", "--mock", "-q=0", "-i=in.jsonl", "--summary=no/sum.json")
    assert result.code == 2
    assert result.last == "gpt4batch: --summary no/sum.json: No such file or directory"
    assert not (bench.folder / "out.jsonl").exists()


# Calls, this run and all


async def test_chats_without_a_reply_are_counted_and_shown(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "a [[mock:reset*1]]"), bench.line(2, "b [[mock:cut*1]]"))
    words = bench.batchsvc(service.origin, "--summary", "sum.json")
    result = await bench.call(*words)
    assert result.code == 0
    assert rawjson.loads((bench.folder / "sum.json").read_bytes())["unanswered"] == 2
    assert "2 chats without a reply, which may be paid for" in result.err


async def test_chats_that_were_never_sent_are_not_counted_as_unanswered(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    summary = await bench.run("http://127.0.0.1:9", retries=0)
    assert (summary.failed, summary.unanswered) == (1, 0)


async def test_chats_given_up_are_counted_as_unanswered(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(bench.line(1, "a [[mock:hang]]"), bench.line(2, "b [[mock:hang]]"))
    async with bench.start(*bench.batchsvc(service.origin, "--summary", "sum.json")) as running:
        await until(lambda: service.stats.now == 2)
        running.process.send_signal(signal.SIGINT)
        await running.says("no new lines")
        running.process.send_signal(signal.SIGINT)
        result = await running.end()
    assert result.code == 130, result.err
    assert rawjson.loads((bench.folder / "sum.json").read_bytes())["unanswered"] == 2


async def test_chats_in_flight_at_a_kill_are_counted_and_shown(
    bench: Bench, service: MockService, until: Until
) -> None:
    asked = ("a", "b [[mock:hang*1]]", "c [[mock:hang*1]]")
    bench.write(*[bench.line(n, text) for n, text in enumerate(asked)])
    async with bench.start(*bench.batchsvc(service.origin)) as running:
        noted = bench.folder / "out.jsonl.inflight"
        await until(lambda: service.stats.now == 2 and service.stats.chats_answered == 1)
        await until(lambda: int(noted.read_bytes()) == 2)
        running.process.kill()
        await running.end()
    assert "out.jsonl.inflight" in bench.names()
    result = await bench.call(*bench.batchsvc(service.origin, "-f", "--summary", "sum.json"))
    assert result.code == 0, result.err
    assert rawjson.loads((bench.folder / "sum.json").read_bytes())["killed_in_flight"] == 2
    assert (
        "chats without a reply when an earlier run was killed: 2 at most; they may be paid for"
        in result.err
    )
    assert (
        "at most 2 chats without a reply when an earlier run was killed, which may be paid for"
        in result.err
    )
    assert "out.jsonl.inflight" not in bench.names()
    result = await bench.call(*bench.batchsvc(service.origin, "-f"))
    assert "killed" not in result.err


async def test_calls_are_counted_over_all_runs(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a [[mock:500*1]]"), bench.line(2, "b [[mock:400*2]]"))
    first = await bench.run(service.origin)
    assert (first.chats, first.chats_in_all, first.retries) == (3, 3, 1)
    second = await bench.run(service.origin, fix=True)
    assert (second.chats, second.chats_in_all) == (1, 4)
    third = await bench.run(service.origin, fix=True)
    assert (third.chats, third.chats_in_all, third.done) == (1, 5, 2)
    assert service.stats.arrivals == 5
    idle = await bench.run(service.origin, fix=True)  # has nothing to do
    assert (idle.chats, idle.chats_in_all) == (0, 5)


async def test_calls_of_answers_without_meta_count_once(bench: Bench, service: MockService) -> None:
    done = bench.line(1, "a", answers=[{"contents": [{}]}])
    bench.write(done, bench.line(2, "b"))
    summary = await bench.run(service.origin, fix=True)
    assert (summary.chats, summary.chats_in_all) == (1, 2)


def test_calls_are_read_from_the_line_itself_only() -> None:
    hostile = {"id": 1, "asks": [{"content": ',"meta":{"started":1,"calls":99'}]}
    line = rawjson.dumps(hostile | {"answers": [{"meta": {"started": 1, "calls": 99}}]})
    record = line[:-1] + b',"meta":{"started":"x","calls":2,"asks":[{"attempts":7}]}}'
    assert calls_noted(record) == 2


# Failures by cause


def test_messages_that_differ_in_names_are_one_cause() -> None:
    progress = Progress()
    for number in range(7):
        text = f"cannot read the attachment img/{number}.png: No such file or directory"
        progress.line_failed(f"q-{number}", AttachmentError(text))
    progress.line_failed("x", RejectedError("400 Bad Request: too long", code=400))
    first, second = progress.failures.values()
    assert (first.count, first.examples) == (7, [f"q-{number}" for number in range(5)])
    assert "img/0.png" in first.message
    assert (second.stage, second.code, second.examples) == ("chat", 400, ["x"])


def test_causes_beyond_the_limit_are_gathered() -> None:
    progress = Progress()
    for number in range(3 * GROUPS):
        text = "x" * (number + 1)
        progress.line_failed(number, RejectedError(text, code=400))
    assert len(progress.failures) == GROUPS + 1
    assert progress.failures["chat", 400, OTHER].count == 2 * GROUPS


async def test_end_is_told_in_words(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a [[mock:400*1]]"), bench.line(2, "b", files=["x"]))
    result = await bench.call(*bench.batchsvc(service.origin))
    assert "1 of 2 lines done, 1 failed; took" in result.err
    assert "2 chat calls\n" in result.err
    assert (
        "  1 × service error: 400 Bad Request: the mock service fails on purpose (id 1)"
        in result.err
    )
    assert f"output: {bench.folder}/out.jsonl" in result.err
    assert service.token not in result.err


async def test_end_is_told_in_chinese(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a [[mock:400*1]]"))
    env = {"LC_ALL": "zh_CN.UTF-8"}
    result = await bench.call(*bench.batchsvc(service.origin), env=env)
    assert "1 行中完成 0 行，失败 1；用时" in result.err
    assert "续跑命令：gpt4batch batchsvc" in result.err


# The command to run next


async def test_next_command_goes_on(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a [[mock:400*1]]"))
    words = bench.batchsvc(service.origin, "-o", "my out.jsonl", "--quiet", "--summary", "s.json")
    assert (await bench.call(*words)).code == 1
    command, _, rest = rawjson.loads((bench.folder / "s.json").read_bytes())["next"].partition(
        "   "
    )
    assert rest == "(and --token as before)"
    again = [*shlex.split(command)[1:], "--token", service.token]
    result = await bench.call(*again)
    assert result.code == 0, result.err
    assert len(bench.read("my out.jsonl")[0]["answers"]) == 1


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, "-f"),
        ({"fix": True, "qps": 2.5, "rdb": False}, "-q 2.5 -r=false -f"),
        ({"input": "-", "out": "o.jsonl"}, "-i o.jsonl -o o.jsonl -f"),
        ({"input": "my file", "mock": True}, "-i 'my file' --mock -f"),
        ({"log_level": "debug", "quiet": True, "progress_interval": 1.0}, "-f"),
        ({"token": "secret-1", "limit": 3}, "--limit 3 -f   (and --token as before)"),
        ({"proxy": "http://u:secret-1@p"}, "-f   (and --proxy as before)"),
        ({"nsq_auth_secret": "secret-1"}, "-f   (and --nsq-auth-secret as before)"),
    ],
)
def test_next_command_has_what_is_needed_and_no_secret(given: dict[str, Any], command: str) -> None:
    assert next_command(Settings(**given)) == f"gpt4batch batchsvc {command}"


def test_next_command_leaves_to_the_environment_what_it_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPT4BATCH_TOKEN", "secret-1")
    monkeypatch.setenv("GPT4BATCH_MODEL", "gpt-4")
    settings = Settings(token="secret-1", model="gpt-4", gizmo_id="g-1")
    assert next_command(settings) == "gpt4batch batchsvc -z g-1 -f"


# The histogram


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_right_to_two_and_a_half_percent(seed: int) -> None:
    rand = random.Random(seed)
    histogram = Histogram()
    values = sorted(rand.lognormvariate(1, 1.5) for _ in range(5000))
    for value in values:
        histogram.add(value)
    for share in (1, 50, 90, 99, 100):
        exact = values[max(0, -(-5000 * share // 100) - 1)]
        assert histogram.percentile(share) == pytest.approx(exact, rel=0.026)
    assert histogram.count == 5000
    assert histogram.total == pytest.approx(sum(values))


def test_times_beyond_the_classes_are_counted() -> None:
    histogram = Histogram()
    assert histogram.percentile(50) == 0.0
    for value in (0.0, 1e-9, 1e9):
        histogram.add(value)
    assert histogram.percentile(100) <= 1e9
    assert histogram.percentile(1) < 0.0011
    assert dict(histogram.up_to((0.01, 1.0))) == {0.01: 2, 1.0: 2}


async def test_wrong_path_of_the_address_is_named_where_nothing_is_found(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "x"), bench.line(2, "y"))
    result = await bench.call(*bench.batchsvc(f"{service.origin}/nowhere"))
    assert "every call got 404: is -u the right address?" in result.err
