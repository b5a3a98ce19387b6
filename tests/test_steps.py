"""The log grows by what is new of a line, and a line is put together again from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.links import with_downloads
from gpt4batch.lines.parse import parse_line
from gpt4batch.lines.record import State
from gpt4batch.lines.steps import Standing, folded, step

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

ASKS = 12
LONG = "x" * 5000


def talking(folder: Path, logs: list[bytes]) -> Any:
    """Answer every chat at length, and note what the log holds before the answer."""

    async def answer(request: web.BaseRequest) -> web.Response:
        body = rawjson.loads(await request.read())
        logs.append((folder / "out.jsonl").read_bytes())
        text = f"{body['message']} {LONG}"
        return web.json_response(
            {"contents": [{"t": text}], "conversation_id": "c", "message_id": "m"}
        )

    return answer


async def half_way(bench: Bench, scripted: Any, asks: int = ASKS) -> bytes:
    """Run a conversation and return its log as it was before the last answer."""
    bench.write(bench.line("q", *[f"ask {number}" for number in range(asks)], extra={"n": 1e-7}))
    logs: list[bytes] = []
    async with scripted(talking(bench.folder, logs)) as server:
        assert (await bench.run(server.origin)).done == 1
    return logs[-1]


async def test_log_of_a_long_conversation_is_as_long_as_its_answers(
    bench: Bench, scripted: Any
) -> None:
    log = await half_way(bench, scripted)
    assert len(log) < 1.2 * (ASKS - 1) * len(LONG) + 2000
    records = [rawjson.loads(text) for text in log.split(b"\n")[:-1]]
    assert [record["answers"][0]["contents"][0]["t"][:5] for record in records] == ["ask 0"] + [
        f"ask {number}"[:5] for number in range(1, ASKS - 1)
    ]
    assert [record["ask"] for record in records[1:]] == [f"a-{n}" for n in range(2, ASKS)]
    [line] = bench.read()
    assert list(line) == ["id", "asks", "answers", "extra", "meta"]
    assert len(line["answers"]) == len(line["meta"]["asks"]) == ASKS
    assert "go" not in line["meta"]


@pytest.mark.parametrize("way", ["output", "input", "both"])
async def test_log_cut_anywhere_goes_on_where_its_whole_records_end(
    bench: Bench, scripted: Any, way: str
) -> None:
    log = await half_way(bench, scripted, 4)
    ends = [place for place, byte in enumerate(log) if byte == ord("\n")]
    source = "in.jsonl" if way == "output" else "out.jsonl"
    out = bench.folder / ("out2.jsonl" if way == "input" else "out.jsonl")
    for cut in sorted({*range(0, len(log), 97), *ends, *(end + 1 for end in ends), len(log)}):
        (bench.folder / "out.jsonl").write_bytes(log[:cut])
        out.unlink() if way == "input" and out.exists() else None
        journal, found = Journal(out), Source(str(bench.folder / source))
        journal.open(found, fix=True)
        journal.start(fix=True)
        kept = sum(end <= cut for end in ends)
        if len(found):
            assert journal.line(0).answered == kept, cut
            journal.finish()
            [line] = bench.read(out.name)
            assert len(line["answers"] or ()) == kept
            assert "go" not in (line.get("meta") or {})
        found.close()
        journal.close()


async def test_killed_conversation_is_gone_on_with_nothing_asked_twice(
    bench: Bench, scripted: Any
) -> None:
    log = await half_way(bench, scripted)
    (bench.folder / "out.jsonl").write_bytes(log)
    logs: list[bytes] = []
    async with scripted(talking(bench.folder, logs)) as server:
        summary = await bench.run(server.origin, fix=True)
    assert (summary.chats, summary.done) == (1, 1)
    texts = [answer["contents"][0]["t"] for answer in bench.read()[0]["answers"]]
    assert texts == [f"ask {number} {LONG}" for number in range(ASKS)]


async def test_each_download_adds_a_little_to_the_log(bench: Bench, scripted: Any) -> None:
    count, sizes = 40, []

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            host = request.headers["Host"]
            links = [f"http://{host}/file{number}?{'s' * 300}" for number in range(count)]
            return web.json_response({"contents": [{"t": "x"}], "downloads": links})
        sizes.append((bench.folder / "out.jsonl").stat().st_size)
        return web.Response(body=b"content")

    bench.write(bench.line(1, "one"))
    async with scripted(answer) as server:
        summary = await bench.run(
            server.origin, download_dir=str(bench.folder / "d"), allow_private_downloads=True
        )
    assert (summary.done, summary.downloads) == (1, count)
    assert sizes[-1] - sizes[0] < count * 1000
    [answer_] = bench.read()[0]["answers"]
    assert [item["origin"] for item in answer_["spec_downloads"]] == answer_["downloads"]


ITEMS = st.lists(st.sampled_from(["answer", "link", "upload"]), max_size=8)


@given(ITEMS)
def test_steps_put_together_are_the_whole_record(kinds: list[str]) -> None:
    raw = b'{"id":1.0,"extra":1.10,"k":1,"k":2,"asks":[%s]}' % b",".join([b'{"content":"a"}'] * 9)
    line = parse_line(raw)
    links = [f"l{number}" for number in range(9)]
    reply = rawjson.dumps({"contents": [1], "downloads": links})[:-1] + b',"n":1.000}'
    now = Standing(line, [reply], None, {"started": 1, "calls": 1, "asks": [{"s": 1}]})
    texts = [now.whole("g")]
    for number, kind in enumerate(kinds, 1):
        before = now
        answers, meta = list(before.answers), dict(before.meta)
        if kind == "answer":
            answers.append(reply)
            meta["asks"] = [*meta["asks"], {"s": number}]
            meta.pop("uploads", None)
        elif kind == "link":
            notes = [{"origin": link, "local": "x"} for link in links[:number]]
            answers[-1] = with_downloads(answers[-1], notes)
        else:
            meta["uploads"] = [*meta.get("uploads", []), {"path": str(number)}]
        meta["calls"] = number
        now = Standing(line, answers, None, meta)
        text = step(before, now, "g", number)
        assert text is not None
        texts.append(text)
    together = rawjson.loads(folded(texts))
    together["meta"].pop("go", None)
    assert together == rawjson.loads(now.whole())
    assert folded([*texts[:1], *texts[1:]]).count(b'"n":1.000') == len(now.answers)


def test_anything_but_an_addition_is_written_whole(bench: Bench) -> None:
    bench.write(bench.line(1, "one", "two"))
    with_answer = b'{"contents":[1]}'
    source = Source(str(bench.folder / "in.jsonl"))
    journal = Journal(bench.folder / "out.jsonl")
    journal.open(source, fix=False)
    journal.start(fix=False)
    line = journal.line(0)
    journal.log.advance(0, State.PARTIAL, Standing(line, [with_answer], None, {"started": 1}))
    journal.log.advance(
        0, State.PARTIAL, Standing(line, [b'{"contents":[2]}'], None, {"started": 1})
    )
    log = (bench.folder / "out.jsonl").read_bytes().splitlines()
    assert all("asks" in rawjson.loads(raw) for raw in log)
    done = [b'{"contents":[2]}', b'{"contents":[3]}']
    journal.log.advance(0, State.DONE, Standing(line, done, None, {"started": 1}))
    assert journal.line(0).answers() == done
    journal.finish()
    assert [answer["contents"] for answer in bench.read()[0]["answers"]] == [[2], [3]]
    journal.close()
    source.close()
