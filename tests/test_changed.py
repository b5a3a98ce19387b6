"""An input that is edited in place while the run is on."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from puppets import ask, read, reply_of, serving, settings, write

import gpt4batch
from gpt4batch.errors import InputChanged, OutputError
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import State, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aiohttp.web_request import BaseRequest
    from puppets import Answer

# Longer than what is read at a time: a line that was read before the change is asked as it was.
LINES = [ask(f"ask {number}", id=number, pad="x" * 70_000) for number in range(10, 16)]
INSERTED = ask("ask 99", id=99)


def counting(asked: Counter[str], change: Callable[[], object]) -> Answer:
    """Answer every chat; before the first one is answered, something happens."""

    async def answer(request: BaseRequest) -> web.StreamResponse:
        message = rawjson.loads(await request.read())["message"]
        if not asked:
            change()
        asked[message] += 1
        return web.Response(body=rawjson.dumps(reply_of(text=message)))

    return answer


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["asks"][0]["content"] for line in lines]


@pytest.mark.parametrize(
    "edited",
    [
        [INSERTED, *LINES],
        LINES[::-1],
        LINES[1:],
        [*LINES[:-1], ask("ask 77", id=15)],
        [],
        [ask("a line of another length", id=1), *LINES],
    ],
    ids=["inserted", "reversed", "removed", "one line", "emptied", "torn"],
)
async def test_an_input_edited_in_place_stops_the_run_and_no_line_is_asked_twice(
    tmp_path: Path, edited: list[dict[str, Any]]
) -> None:
    path = write(tmp_path / "in.jsonl", *LINES)
    asked: Counter[str] = Counter()
    async with serving(counting(asked, lambda: write(path, *edited))) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, goroutine=1))
        assert summary.exit_code == 3
        assert f"the input {path} was changed" in summary.stopped
        assert f"are in {tmp_path / 'out.jsonl'}" in summary.stopped
        assert "-f" in summary.stopped
        assert (tmp_path / "out.jsonl").read_bytes().startswith(b"\t \t")
        assert not list(tmp_path.glob(".*"))
        assert asked == {"ask 10": 1}
        write(path, *(edited or LINES))
        again = await gpt4batch.run(settings(tmp_path, origin, fix=True))
    assert again.exit_code == 0
    assert set(asked.values()) == {1}
    assert texts(read(tmp_path / "out.jsonl")) == texts(edited or LINES)


@pytest.mark.parametrize("way", ["grown", "touched", "rewritten", "replaced", "removed"])
async def test_an_input_that_holds_the_same_lines_still_is_no_obstacle(
    tmp_path: Path, way: str
) -> None:
    path = write(tmp_path / "in.jsonl", *LINES)

    def change() -> None:
        if way == "grown":
            with path.open("ab") as file:
                file.write(rawjson.dumps(INSERTED) + b"\n")
        elif way == "touched":
            os.utime(path, (1, 1))
        elif way == "rewritten":
            path.write_bytes(path.read_bytes())
        else:
            path.unlink()
        if way == "replaced":
            write(path, INSERTED, *LINES)

    asked: Counter[str] = Counter()
    async with serving(counting(asked, change)) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, goroutine=1))
    assert (summary.exit_code, summary.done) == (0, len(LINES))
    assert texts(read(tmp_path / "out.jsonl")) == texts(LINES)


async def test_an_input_edited_after_its_last_line_was_begun_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *LINES[:1])
    asked: Counter[str] = Counter()
    async with serving(counting(asked, lambda: write(path, INSERTED))) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
    assert (summary.exit_code, summary.done) == (0, 1)
    assert texts(read(tmp_path / "out.jsonl")) == texts(LINES[:1])


async def test_a_change_seen_at_the_end_leaves_the_log_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *LINES)
    asked: Counter[str] = Counter()
    async with serving(counting(asked, lambda: write(path, INSERTED, *LINES))) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, limit=1))
        assert summary.exit_code == 3
        assert "was changed" in summary.stopped
        (kept,) = read(tmp_path / "out.jsonl")
        assert kept["asks"] == LINES[0]["asks"]
        assert (await gpt4batch.run(settings(tmp_path, origin, fix=True))).done == 7
    assert set(asked.values()) == {1}


async def test_an_input_that_is_the_output_may_grow_and_be_run_on(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", *LINES)
    asked: Counter[str] = Counter()
    async with serving(counting(asked, lambda: None)) as origin:
        given = settings(tmp_path, origin, fix=True, input=str(tmp_path / "out.jsonl"))
        assert (await gpt4batch.run(given)).exit_code == 0
    assert set(asked.values()) == {1}


# -- the journal -----------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    write(tmp_path / "in.jsonl", *LINES)
    journal, source = Journal(tmp_path / "out.jsonl"), Source(str(tmp_path / "in.jsonl"))
    journal.lock()
    journal.open(source, fix=True)
    journal.start(fix=True)
    yield journal
    journal.close()
    source.close()


async def test_a_snapshot_of_a_changed_input_is_not_written(
    tmp_path: Path, journal: Journal
) -> None:
    write(tmp_path / "in.jsonl", INSERTED, *LINES)
    with pytest.raises(InputChanged):
        await journal.snapshot(tmp_path / "shot.jsonl")
    assert not list(tmp_path.glob("*shot*"))


async def test_a_record_that_somebody_overwrote_is_named_and_nothing_is_written(
    tmp_path: Path, journal: Journal
) -> None:
    out = tmp_path / "out.jsonl"
    journal.log.append(0, State.DONE, render(rawjson.dumps(LINES[0]), [rawjson.dumps(reply_of())]))
    spoilt = b"x" * out.stat().st_size
    out.write_bytes(spoilt)
    with pytest.raises(OutputError, match="cannot be read"):
        await journal.snapshot(tmp_path / "shot.jsonl")
    with pytest.raises(OutputError, match="cannot be read"):
        journal.line(0)
    with pytest.raises(OutputError, match="cannot be read"):
        journal.finish()
    assert out.read_bytes() == spoilt


@pytest.mark.parametrize("place", [0, (1 << 20) - 1, 1 << 20, -2])
def test_a_change_anywhere_in_a_large_input_is_seen(tmp_path: Path, place: int) -> None:
    path = write(tmp_path / "in.jsonl", *[ask("x" * 700_000) for _ in range(5)])
    source = Source(str(path))
    source.scan(lambda _line: None)
    with path.open("ab") as file:
        file.write(b"more\n")
    assert not source.is_changed()
    with path.open("r+b") as file:
        file.seek(place if place >= 0 else source.size + place)
        file.write(b"?")
    source.raw(1)
    assert source.is_changed()
    source.close()
