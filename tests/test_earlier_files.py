"""Files that commit 75af0e8 wrote: a killed run's log, an ordered output with failures.

Its log has the whole line again at each step. `in.jsonl` is the input of both.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from conftest import Bench

DATA = Path(__file__).parent / "data" / "earlier"
LOG = (DATA / "killed.jsonl").read_bytes().splitlines(keepends=True)
ORDERED = (DATA / "ordered.jsonl").read_bytes().splitlines(keepends=True)


def answered(records: list[bytes]) -> Counter[str]:
    """Return the questions that have answers: by the latest record of each line.

    The two lines of id 5 are equal and always got equally far.
    """
    latest = {record["id"]: record for record in map(rawjson.loads, records)}
    found: Counter[str] = Counter()
    for name, record in latest.items():
        for ask, _ in zip(record["asks"], record["answers"] or (), strict=False):
            found[ask["content"]] += 2 if name == 5 else 1
    return found


@pytest.mark.parametrize("way", ["output", "input"])
@pytest.mark.parametrize(
    "records", [LOG, LOG[:6], LOG[:12], ORDERED], ids=["killed", "upload", "earlier", "ordered"]
)
async def test_file_of_an_earlier_version_is_taken_up_with_nothing_asked_twice(
    bench: Bench, scripted: Any, records: list[bytes], way: str
) -> None:
    shutil.copytree(DATA / "img", bench.folder / "img")
    uploads = [
        item for record in records for item in rawjson.loads(record)["meta"].get("uploads", ())
    ]
    if uploads:
        when = uploads[0]["version"][1]
        os.utime(bench.folder / "img" / "note.txt", ns=(when, when))
    whole = (DATA / "in.jsonl").read_bytes()
    (bench.folder / "in.jsonl").write_bytes(whole)
    given = b"".join(records)
    # A log as the only input lacks the lines that were not begun: the input's own stand before it.
    name = "out.jsonl" if way == "output" else "in.jsonl"
    before = b"" if way == "output" or records is ORDERED else whole
    (bench.folder / name).write_bytes(before + given)
    asked: Counter[str] = Counter()
    sent = 0

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal sent
        if request.path.endswith("/uploaded"):
            sent += 1
            return web.json_response({"attachment": {"id": 1}, "conversation_id": "c"})
        asked[rawjson.loads(await request.read())["message"]] += 1
        ids = {"conversation_id": "c", "message_id": "m"}
        return web.json_response({"contents": [{"t": "x"}], **ids})

    async with scripted(answer) as server:
        summary = await bench.run(server.origin, fix=True, enable_download=False)
    assert (summary.done, summary.lines, summary.exit_code) == (7, 7, 0)
    everything = Counter(
        ask["content"] for line in map(rawjson.loads, whole.splitlines()) for ask in line["asks"]
    )
    assert asked == everything - answered(records)
    assert sent == (records is ORDERED)
    [line] = [line for line in bench.read() if line["id"] == "q-0"]
    kept = [rawjson.loads(record) for record in records if b'"q-0"' in record][-1]
    assert line["answers"][: len(kept["answers"])] == kept["answers"]
