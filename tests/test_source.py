from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

    from gpt4batch.lines.parse import Line
    from gpt4batch.mock.server import MockService

GOOD = b'{"id":%d,"asks":[{"content":"a"}]}'
BAD = [
    (b"not json", "not JSON"),
    (b"[1]", "not a JSON object but a list"),
    (b'{"id":3}', "asks is missing"),
    (b'{"id":4,"asks":[]}', "asks must be a list of at least one ask"),
    (b'{"id":5,"asks":[{"content":5}]}', "asks[0].content must be text, not a number"),
]


def scan(path: Path) -> tuple[Source, list[Line]]:
    lines: list[Line] = []
    source = Source(str(path))
    source.scan(lines.append)
    return source, lines


@pytest.mark.parametrize(
    ("content", "ids", "numbers"),
    [
        (b"", [], []),
        (b"\n\n", [], []),
        (GOOD % 1, [1], [1]),
        (GOOD % 1 + b"\n" + GOOD % 2, [1, 2], [1, 2]),
        (b"\xef\xbb\xbf" + GOOD % 1 + b"\n", [1], [1]),
        (b"\xef\xbb\xbf\n" + GOOD % 1, [1], [2]),
        (GOOD % 1 + b"\r\n" + GOOD % 2 + b"\r\n", [1, 2], [1, 2]),
        (b"\n" + GOOD % 1 + b"\n \t\r\n\n" + GOOD % 2 + b"\n\n", [1, 2], [2, 5]),
        (b"  " + GOOD % 1 + b"  \n", [1], [1]),
    ],
)
def test_lines_are_found_whatever_stands_between_them(
    bench: Bench, content: bytes, ids: list[int], numbers: list[int]
) -> None:
    path = bench.folder / "in.jsonl"
    path.write_bytes(content)
    source, lines = scan(path)
    assert [line.id for line in lines] == ids
    assert [line.number for line in lines] == numbers
    assert [source.line(place).id for place in range(len(source))] == ids
    source.close()


@given(st.lists(st.text(alphabet="a\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e你😀", max_size=5)))
def test_only_a_newline_byte_ends_a_line(texts: list[str]) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        raw = [rawjson.dumps({"asks": [{"content": text}]}) for text in texts]
        path.write_bytes(b"\n".join(raw))
        source, lines = scan(path)
        source.close()
    assert [line.asks[0].content for line in lines] == texts


async def test_all_bad_lines_are_listed_before_the_first_call(
    bench: Bench, service: MockService
) -> None:
    bench.write(GOOD % 1, *[raw for raw, _ in BAD], GOOD % 2)
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 2
    for number, (_, reason) in enumerate(BAD, 2):
        assert f"in.jsonl:{number}: {reason}" in result.err
    assert "--skip-bad-lines" in result.err
    assert "Traceback" not in result.err
    assert service.stats.arrivals == 0
    assert bench.names("*.jsonl") == ["in.jsonl"]


async def test_bad_lines_leave_an_earlier_output_untouched(
    bench: Bench, service: MockService
) -> None:
    bench.write(b"bad")
    bench.write(GOOD % 9, name="out.jsonl")
    before = (bench.folder / "out.jsonl").read_bytes()
    for words in ((), ("-f",)):
        result = await bench.call(*bench.batchsvc(service.origin, *words))
        assert result.code == 2
        assert (bench.folder / "out.jsonl").read_bytes() == before
    assert bench.names("*.jsonl") == ["in.jsonl", "out.jsonl"]


async def test_many_bad_lines_do_not_flood_the_terminal(bench: Bench, service: MockService) -> None:
    bench.write(GOOD % 1, *[b"bad"] * 250)
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 2
    for number in range(2, 12):
        assert f"in.jsonl:{number}: " in result.err
    assert result.err.count("in.jsonl:") == 10
    assert "and 240 more" in result.err
    assert "gpt4batch check --json -i in.jsonl" in result.last
    result = await bench.call("check", "--mock", "--json", "-i", "in.jsonl")
    assert result.out.count("in.jsonl:") == 250


@pytest.mark.parametrize("command", ["batchsvc", "check"])
async def test_file_that_is_no_jsonl_is_told_as_such(bench: Bench, command: str) -> None:
    bench.write(*[b"id,content"] * 30, name="q.csv")
    result = await bench.call(command, "--mock", "-i", "q.csv")
    assert result.code == 2
    assert "q.csv is not JSONL" in result.out + result.err
    assert "gpt4batch convert q.csv" in result.out + result.err
    assert (result.out + result.err).count("q.csv:") <= 20


async def test_bad_lines_are_skipped_and_kept_verbatim_in_their_places(
    bench: Bench, service: MockService
) -> None:
    torn = b'{"id":7,"asks":[{"content":"\xff\xfe"'
    bench.write(GOOD % 1, *[raw for raw, _ in BAD], torn, GOOD % 2)
    summary = await bench.run(service.origin, skip_bad_lines=True)
    assert (summary.lines, summary.done, summary.failed, summary.exit_code) == (8, 2, 6, 1)
    lines = bench.read()
    assert [bool(line.get("answers")) for line in lines] == [True, *[False] * 6, True]
    for line, (raw, reason) in zip(lines[1:6], BAD, strict=True):
        assert line["iErr"]["line"].encode() == raw
        assert reason in line["iErr"]["message"]
        assert isinstance(line["iErr"]["code"], int)
    assert lines[6]["iErr"]["line"] == torn.decode(errors="backslashreplace")


@pytest.mark.parametrize("source", ["in.jsonl", "out.jsonl"])
async def test_kept_bad_lines_stay_through_resumed_runs(
    bench: Bench, service: MockService, source: str
) -> None:
    bench.write(GOOD % 1, b"bad \xe4\xbd", GOOD % 2)
    await bench.run(service.origin, skip_bad_lines=True)
    first = (bench.folder / "out.jsonl").read_bytes()
    summary = await bench.run(service.origin, skip_bad_lines=True, fix=True, input=source)
    assert (summary.done, summary.done_before, summary.failed, summary.chats) == (2, 2, 1, 0)
    assert summary.exit_code == 1
    assert (bench.folder / "out.jsonl").read_bytes() == first
