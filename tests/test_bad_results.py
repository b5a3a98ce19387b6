"""An output that -f finds damaged, re-written by another tool, or of another input."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from gpt4batch.batch.preflight import check
from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.view.record import State, examine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench

    from gpt4batch.mock.server import MockService


async def finished(bench: Bench, service: MockService, count: int = 6) -> Path:
    """Write an input and have it run to its end."""
    bench.write(*[bench.line(f"q-{number}", f"ask {number}") for number in range(count)])
    assert (await bench.run(service.origin)).done == count
    return bench.folder / "out.jsonl"


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda text: text[:200],
    "glued": lambda text: text + text,
    "quotes": lambda text: text.replace(b'"message_id"', b"message_id", 1),
    "encoding": lambda text: text.replace(b'"message_id":"', b'"message_id":"\xff', 1),
    "two answers": lambda text: text.replace(b'"answers":[', b'"answers":[{},', 1),
    "a number": lambda text: text.replace(b'"answers":[', b'"answers":[1,', 1),
    "error text": lambda text: text.replace(b',"meta"', b',"iErr":"","meta"', 1),
    "error NaN": lambda text: text.replace(b',"meta"', b',"iErr":NaN,"meta"', 1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_damaged_record_is_run_again_told_and_kept(
    bench: Bench,
    service: MockService,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    out = await finished(bench, service)
    lines = out.read_bytes().split(b"\n")
    lines[-2] = damage(lines[-2])
    out.write_bytes(b"\n".join(lines))
    assert examine(lines[-2]).state == State.FAILED
    report = await check(bench.settings(service.origin, fix=True))
    assert report.plan is not None
    assert (report.plan.done, report.exit_code) == (5, 0)
    assert f"{out}:6: " in " ".join(item.message for item in report.findings)
    summary = await bench.run(service.origin, fix=True)
    assert (summary.chats, summary.done_before, summary.done) == (1, 5, 6)
    assert f"{out}:6: " in caplog.text
    [aside] = bench.names("out.2*.jsonl")
    assert (bench.folder / aside).read_bytes().strip() == lines[-2].strip()
    assert all(examine(line).state == State.DONE for line in out.read_bytes().split(b"\n")[:-1])


async def test_empty_answer_is_no_answer_for_run_and_viewer(
    bench: Bench, service: MockService
) -> None:
    out = await finished(bench, service, 2)
    text = re.sub(
        rb'"answers":\[.*\],"meta"', b'"answers":[null],"meta"', out.read_bytes(), count=1
    )
    out.write_bytes(text)
    assert examine(text.split(b"\n")[0]).state == State.NOT_RUN
    summary = await bench.run(service.origin, fix=True)
    assert (summary.chats, summary.done) == (1, 2)


REWRITES: dict[str, Callable[[bytes], bytes]] = {
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.decode().encode("utf-16-le"),
    "UTF-16 big": lambda text: text.decode().encode("utf-16-be"),
    "array": lambda text: b"[" + text.strip().replace(b"\n", b",") + b"]",
    "array, no newline": lambda text: b"[" + text.strip().replace(b"\n", b",\n") + b"]",
    "pretty": lambda text: b"".join(
        rawjson.pretty(rawjson.loads(line)) for line in text.splitlines()
    ),
    "error text": lambda text: text.replace(b',"meta"', b',"iErr":"","meta"'),
    "error NaN": lambda text: text.replace(b',"meta"', b',"iErr":NaN,"meta"'),
    "other keys": lambda text: text.replace(b'"asks"', b'"questions"'),
    "CSV": lambda _text: b"id,answer\nq-0,yes\n",
    "gzip": gzip.compress,
    "garbage": lambda _text: b"\x00\x01garbage",
    "one line": lambda text: text.replace(b"\n", b""),
    "carriage returns": lambda text: text.replace(b"\n", b"\r"),
    "no text": lambda text: text.replace(b"\n", b"")[::-1],
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
async def test_output_that_cannot_be_read_is_refused_untouched(
    bench: Bench, service: MockService, rewrite: Callable[[bytes], bytes]
) -> None:
    out = await finished(bench, service)
    out.write_bytes(spoilt := rewrite(out.read_bytes()))
    asked = service.stats.arrivals
    with pytest.raises(UsageError, match=rf"{re.escape(str(out))}:\d: .*(?s:.)*--skip-bad-results"):
        await bench.run(service.origin, fix=True)
    report = await check(bench.settings(service.origin, fix=True))
    assert report.exit_code == 2
    assert any(f"{out}:" in item.message for item in report.findings)
    assert out.read_bytes() == spoilt
    assert service.stats.arrivals == asked
    assert bench.names("out.2*") == []
    summary = await bench.run(service.origin, fix=True, skip_bad_results=True)
    assert summary.done == 6
    kept = b"".join((bench.folder / name).read_bytes() for name in bench.names("out.2*"))
    assert re.sub(rb"[\s\0]", b"", spoilt) == re.sub(rb"[\s\0]", b"", kept)


async def test_torn_line_and_hole_are_a_crash_and_never_refused(
    bench: Bench, service: MockService, caplog: pytest.LogCaptureFixture
) -> None:
    out = await finished(bench, service)
    lines = out.read_bytes().splitlines(keepends=True)
    half = lines[1][:100] + b"\0" * 4000
    out.write_bytes(lines[0] + half + lines[2] + b"\0" * 9 + lines[3] + lines[4] + lines[5][:50])
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done_before, summary.chats, summary.done) == (4, 2, 6)
    assert "an incomplete last line (50 bytes) was dropped" in caplog.text
    assert "have holes" in caplog.text


async def test_answers_in_a_torn_last_line_are_kept_aside(
    bench: Bench, service: MockService, caplog: pytest.LogCaptureFixture
) -> None:
    out = await finished(bench, service)
    torn = out.read_bytes()[:-3]
    out.write_bytes(torn)
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done_before, summary.chats, summary.done) == (5, 1, 6)
    (aside,) = bench.names("out.2*")
    assert (bench.folder / aside).read_bytes().strip() == torn.splitlines()[-1]
    assert "an incomplete last line" in caplog.text
    assert aside in caplog.text


async def test_results_of_another_input_are_named_before_the_first_call(
    bench: Bench, service: MockService, caplog: pytest.LogCaptureFixture
) -> None:
    first = [bench.line(f"a-{number}", f"of A {number}") for number in range(3)]
    other = [bench.line(f"b-{number}", f"of B {number}") for number in range(3)]
    bench.write(*first)
    await bench.run(service.origin)
    bench.write(*other, name="other.jsonl")
    await bench.run(service.origin, fix=True, input="other.jsonl")
    [aside] = bench.names("out.2*")
    assert f"3 results belong to no line of {bench.folder / 'other.jsonl'}" in caplog.text
    assert str(bench.folder / aside) in caplog.text
    caplog.clear()
    report = await check(bench.settings(service.origin, fix=True))
    words = f"-i {bench.folder / 'in.jsonl'} -o {bench.folder / aside} -f"
    assert any(words in item.message for item in report.findings)
    again = await bench.run(service.origin, fix=True, out=aside)
    assert (again.chats, again.done) == (0, 3)


@pytest.mark.parametrize(
    ("given", "made"),
    [("0", 0), ("7", 7.0), (7, "7"), (8, "8.0")],
    ids=["to number", "to float", "to text", "to text of a float"],
)
async def test_id_that_changed_its_type_is_told_before_paying(
    bench: Bench,
    service: MockService,
    caplog: pytest.LogCaptureFixture,
    given: object,
    made: object,
) -> None:
    bench.write(bench.line(given, "one"))
    await bench.run(service.origin)
    out = bench.folder / "out.jsonl"
    record = rawjson.loads(out.read_bytes())
    out.write_bytes(rawjson.dumps(record | {"id": made}) + b"\n")
    await bench.run(service.origin, fix=True)
    assert "only because the id has another type" in caplog.text
    assert rawjson.dumps(given).decode() in caplog.text


async def test_what_is_kept_aside_is_kept_once_however_often_a_run_begins(
    bench: Bench, service: MockService
) -> None:
    await finished(bench, service, 3)
    bench.write(bench.line("new", "new"), bench.line("newer", "newer"))
    for _ in range(2):
        killed = bench.settings(service.origin, fix=True)
        log = (bench.folder / "out.jsonl").read_bytes()
        assert (await bench.run(service.origin, fix=killed.fix)).done == 2
        (bench.folder / "out.jsonl").write_bytes(log)
    assert len(bench.names("out.2*")) == 1
