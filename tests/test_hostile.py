"""Whatever the input, the service or the folder holds, the run goes on and loses nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from puppets import ask, read, saying, serving, settings, write

import gpt4batch
from chaos.properties import PROPERTIES, check
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings
from gpt4batch.service.retry import retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiohttp.web_request import BaseRequest


# -- replies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "http://[",
        "http://[::1",
        "http://xn--/a",
        "http://xn--zzzzzzzzzz99999/a",
        "http://ex\u2100mple.com/",
        "http://\ud800/",
        "http://a:99999999/",
        "http://a b/",
        "http:///nothing",
        "\x00",
        "http://" + "a" * 3000 + ".test/",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
async def test_a_link_that_is_no_address_fails_its_line_only(tmp_path: Path, link: str) -> None:
    write(tmp_path / "in.jsonl", ask())
    async with serving(saying(downloads=[link])) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
    (line,) = read(tmp_path / "out.jsonl")
    assert summary.exit_code == 1
    assert line["iErr"]["stage"] == "download"
    assert line["answers"][0]["contents"]


async def test_a_line_with_a_long_number_as_id_is_not_paid_for_twice(tmp_path: Path) -> None:
    line_id = 170135991163622164786776935302629425152
    line = f'{{"id":{line_id},"asks":[{{"content":"hello"}}]}}\n'
    (tmp_path / "in.jsonl").write_text(line + line.replace("hello", "again"))
    async with serving(saying(half="\ud83d")) as origin:
        await gpt4batch.run(settings(tmp_path, origin))
        out = tmp_path / "out.jsonl"
        out.write_bytes(b"".join(reversed(out.read_bytes().splitlines(keepends=True))))
        summary = await gpt4batch.run(settings(tmp_path, origin, fix=True))
    assert (summary.chats, summary.done, summary.done_before) == (0, 2, 2)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("half", ["", "\ud83d"])
@pytest.mark.parametrize(
    "shape",
    ['{"id":%d,"asks":[{"content":"hello"}]}\n', '{"asks":[{"id":%d,"content":"hello"}]}\n'],
)
async def test_long_numbers_that_differ_in_the_last_digit_are_two_ids(
    tmp_path: Path, shape: str, half: str, shuffled: bool
) -> None:
    ids = [1 << 64, (1 << 64) + 1, -(1 << 63) - 1, -(1 << 63) - 2, 10**400, 10**400 + 1]
    lines = [shape % number for number in ids]
    (tmp_path / "in.jsonl").write_text("".join(lines[:-1]))
    async with serving(saying(half=half)) as origin:
        assert (await gpt4batch.run(settings(tmp_path, origin, limit=3))).done == 3
        (tmp_path / "in.jsonl").write_text("".join(lines[::-1] if shuffled else lines))
        summary = await gpt4batch.run(settings(tmp_path, origin, fix=True))
    assert (summary.chats, summary.done, summary.done_before) == (3, 6, 3)
    found = (tmp_path / "out.jsonl").read_bytes().splitlines()
    for text, number in zip(found, ids[::-1] if shuffled else ids, strict=True):
        assert b'"id":%d,' % number in text or b'"id":%d}' % number in text


async def test_a_reply_nested_too_deeply_is_kept_and_not_paid_for_again(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    reply = b'{"contents":[{}],"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    asked = 0

    async def answer(request: BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await request.read()
        return web.Response(body=reply, content_type="application/json")

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, retries=3))
    (line,) = read(tmp_path / "out.jsonl")
    assert (asked, summary.exit_code) == (1, 1)
    assert line["iErr"]["message"] == "the reply is nested too deeply"
    assert line["iErr"]["reply"] == reply.decode()


@pytest.mark.parametrize("target", ["http://[", "http://xn--/", "//[::", "\ud800", "", "http://"])
async def test_a_redirect_to_no_address_fails_its_line_only(tmp_path: Path, target: str) -> None:
    write(tmp_path / "in.jsonl", ask())

    async def answer(request: BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            where = target.encode("utf-8", "surrogatepass").decode("latin-1")
            return web.Response(status=302, headers={"Location": where})
        origin = f"http://{request.headers['Host']}"
        return await saying(downloads=[f"{origin}/file"])(request)

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
    (line,) = read(tmp_path / "out.jsonl")
    assert summary.exit_code == 1
    assert line["iErr"]["stage"] == "download"


async def test_a_content_range_of_5000_digits_fails_its_line_only(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    asked = 0

    async def answer(request: BaseRequest) -> web.StreamResponse:
        nonlocal asked
        if request.method != "GET":
            origin = f"http://{request.headers['Host']}"
            return await saying(downloads=[f"{origin}/file"])(request)
        asked += 1
        if asked == 1:
            response = web.StreamResponse(headers={"Content-Length": "100", "ETag": '"e"'})
            await response.prepare(request)
            await response.write(b"x" * 50)
            assert request.transport is not None
            request.transport.close()
            return response
        headers = {"Content-Range": f"bytes {'9' * 5000}-1/2", "Content-Length": "0"}
        return web.Response(status=206, headers=headers)

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, retries=1))
    assert asked == 2
    assert summary.exit_code == 1
    assert read(tmp_path / "out.jsonl")[0]["answers"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nan",
        "inf",
        "-1",
        "1e999",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2030 00:00:00 +99999999999999999999",
        "\u0661",
        "a, b",
        "0x10",
    ],
)
def test_an_odd_retry_after_is_no_time_or_none(value: str) -> None:
    found = retry_after({"retry-after": value})
    assert found is None or 0 <= found < float("inf")


@pytest.mark.parametrize("field", ["error", "message", "detail"])
async def test_half_an_emoji_in_an_error_is_kept_in_the_line(tmp_path: Path, field: str) -> None:
    write(tmp_path / "in.jsonl", ask())

    async def answer(request: BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(text=f'{{"{field}": "half \\ud83d of it"}}')

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
    (line,) = read(tmp_path / "out.jsonl")
    assert line["iErr"]["reply"] == {field: "half \ud83d of it"}
    assert "half \ud83d of it" in line["iErr"]["message"]
    assert rawjson.loads(rawjson.pretty({"failures": summary.failures}))


async def test_an_attachment_with_a_name_that_is_no_utf8_is_sent(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("text")
    write(tmp_path / "in.jsonl", ask(files=["\udcff.txt"]), ask("other"))
    async with MockService(MockSettings(token="")) as service:
        summary = await gpt4batch.run(settings(tmp_path, service.origin, enable_download=False))
    assert summary.done == 2


async def test_a_reply_that_says_goodbye_in_every_type_fails_its_line_only(tmp_path: Path) -> None:
    replies: Iterator[Any] = iter(
        [
            [],
            1,
            "x",
            None,
            {"contents": {}},
            {"contents": [1]},
            {"contents": [None]},
            {"contents": [{"error": [[]]}]},
            {"contents": [{"error": {"message": 7}}]},
        ]
    )
    write(tmp_path / "in.jsonl", *[ask(str(number)) for number in range(9)])

    async def answer(request: BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=rawjson.dumps(next(replies)))

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, goroutine=1))
    assert summary.not_run == 0
    assert summary.failed + summary.done == 9


async def test_a_defect_in_one_line_costs_no_other_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(url: str, headers: object) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr("gpt4batch.service.downloads.suggested_name", broken)
    write(tmp_path / "in.jsonl", *[ask(str(number)) for number in range(9)])
    async with MockService(MockSettings(token="", asset_rate=0.5)) as service:
        summary = await gpt4batch.run(settings(tmp_path, service.origin))
        lines = read(tmp_path / "out.jsonl")
        assert summary.not_run == 0
        assert summary.failed
        assert summary.done
        assert all(line["answers"] for line in lines)
        assert {line["iErr"]["stage"] for line in lines if "iErr" in line} == {"internal"}
        monkeypatch.undo()
        again = await gpt4batch.run(settings(tmp_path, service.origin, fix=True))
        assert (again.done, again.chats) == (9, 0)


# -- the input -------------------------------------------------------------------------------


def test_lines_are_read_whole_while_a_snapshot_reads_them_too(tmp_path: Path) -> None:
    texts = [rawjson.dumps(ask(f"{number} " * (number * 97 % 5000))) for number in range(400)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(texts))
    source = Source(str(tmp_path / "in.jsonl"))
    source.scan(lambda _line: None)
    wrong: list[int] = []

    def look(order: Iterable[int]) -> None:
        for index in order:
            if source.raw(index) != texts[index]:
                wrong.append(index)

    threads = [
        Thread(target=look, args=([*order] * 32,)) for order in (range(400), range(399, -1, -1))
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
        source.close()
    assert not wrong


# -- any input -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(PROPERTIES)), ids=lambda n: PROPERTIES[n][0].__name__)
def test_a_property_holds_for_whatever_is_thrown_at_it(number: int) -> None:
    assert check(number, 60, 1)
