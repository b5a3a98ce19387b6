"""The viewer over HTTP: what it shows, what it serves, whom it serves."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tomllib
import zlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from gpt4batch.errors import UsageError
from gpt4batch.histogram import Histogram
from gpt4batch.lines import rawjson
from gpt4batch.lines.reading import parse
from gpt4batch.lines.record import LOG_MARK
from gpt4batch.price import Price
from gpt4batch.view import report
from gpt4batch.view.detail import conversation
from gpt4batch.view.figures import MOST_BUCKETS, Timeline, shown
from gpt4batch.view.files import Folders
from gpt4batch.view.index import Index, Output, open_file
from gpt4batch.view.record import State, examine
from gpt4batch.view.search import Filter, Question
from gpt4batch.view.server import PAGE, Show, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

FAILED = {"code": 429, "message": "429 Too Many Requests", "stage": "chat", "attempts": 6}
NOT_READY = {"code": 400, "message": "resource is not ready"}


def reply(text: str, downloads: Iterable[str] = ()) -> dict[str, Any]:
    message = {
        "author": {"role": "assistant"},
        "content": {"content_type": "text", "parts": [text]},
        "recipient": "all",
        "metadata": {"model_slug": "gpt-4"},
    }
    files = [{"origin": f"https://files.test/{name}", "local": name} for name in downloads]
    return {"contents": [{"error": None, "message": message}], "spec_downloads": files}


def line(name: str, *answers: str, asks: int = 1, **fields: Any) -> dict[str, Any]:
    content = [{"id": f"{name}-{turn}", "content": f"ask {name}"} for turn in range(asks)]
    return {"id": name, "asks": content, "answers": [reply(text) for text in answers], **fields}


def timed(record: dict[str, Any], *seconds: float) -> dict[str, Any]:
    calls = [{"seconds": item, "attempts": 2} for item in seconds]
    finished = "2026-11-22T03:00:00+00:00"
    return {**record, "meta": {"started": finished, "finished": finished, "asks": calls}}


def written(path: Path, records: Iterable[Any], mark: bytes = b"") -> Path:
    texts = (item if isinstance(item, bytes) else rawjson.dumps(item) for item in records)
    path.write_bytes(b"".join(mark + text + b"\n" for text in texts))
    return path


def append(path: Path, *records: Any) -> None:
    with path.open("ab") as file:
        file.writelines(LOG_MARK + rawjson.dumps(record) + b"\n" for record in records)


def append_bytes(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def picture(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def indexed(path: Path, source: Path | None = None) -> Output:
    output = Output(path, source)
    output.follow()
    output.follow()
    return output


def ids(index: Index) -> list[Any]:
    return [(parse(index.read(row)) or {}).get("id", "") for row in range(len(index.rows))]


def states(index: Index) -> list[str]:
    return [State(value).name for value in index.rows.state]


@dataclass
class Site:
    client: httpx.AsyncClient
    url: str
    outputs: list[Output]

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(self.url + path, params=query or None)

    async def json(self, name: str, **query: Any) -> Any:
        answer = await self.get(f"api/{name}", **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, name: str, **query: Any) -> Any:
        with anyio.fail_after(5):
            while not (answer := await self.json(name, **query))["complete"]:
                await anyio.sleep(0.01)
        return answer


@asynccontextmanager
async def site(
    *paths: Path, source: Path | None = None, downloads: Path | None = None
) -> AsyncIterator[Site]:
    outputs = [indexed(path, source) for path in paths]
    folder = (source or paths[0]).parent
    server = await serve(Show(outputs, Folders(folder, downloads or folder)))
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            yield Site(client, server.url, outputs)
    finally:
        await server.close()


# Who is served


async def test_page_without_the_secret_is_not_found(tmp_path: Path) -> None:
    async with site(written(tmp_path / "out.jsonl", [line("a", "yes")])) as page:
        root = page.url.rsplit("/", 2)[0]
        for path in ("/", "/x/", "/api/overview", f"/{'A' * 32}/api/overview", "/favicon.ico"):
            assert (await page.client.get(root + path)).status_code == 404
        assert (await page.get("")).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"]
)
async def test_foreign_host_header_is_refused(tmp_path: Path, host: str) -> None:
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        name = host.format(port=httpx.URL(page.url).port)
        answer = await page.client.get(page.url, headers={"Host": name})
        assert answer.status_code == 421


async def test_request_from_another_site_is_refused_but_a_link_works(tmp_path: Path) -> None:
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert (await page.client.get(page.url, headers=foreign)).status_code == 403
        link = {**foreign, "Sec-Fetch-Mode": "navigate"}
        assert (await page.client.get(page.url, headers=link)).status_code == 200


async def test_every_response_carries_the_protecting_headers(tmp_path: Path) -> None:
    async with site(written(tmp_path / "out.jsonl", [line("a", "yes")])) as page:
        for path in (
            "",
            "page/main.js",
            "api/overview",
            "file?home=in&name=none",
            "page/../secret",
        ):
            headers = (await page.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"


async def test_other_methods_are_refused(tmp_path: Path) -> None:
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        for method in ("POST", "PUT", "DELETE"):
            assert (await page.client.request(method, page.url + "api/overview")).status_code == 405


@pytest.mark.parametrize("query", ["row=-1", "row=x", "run=9", "row=9999", "row=1e3", "row=²"])
async def test_senseless_numbers_are_refused(tmp_path: Path, query: str) -> None:
    async with site(written(tmp_path / "out.jsonl", [line("a", "yes")])) as page:
        assert (await page.get(f"api/line?{query}")).status_code in (400, 404)


# Files


async def test_picture_is_shown_by_its_content_not_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "photo.bin")
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        answer = await page.get("file", home="in", name="photo.bin")
        assert answer.headers["Content-Type"] == "image/png"
        assert "Content-Disposition" not in answer.headers
        assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("x.png", b"<html><script>alert(1)</script></html>"),
        ("x.html", b"<script>alert(1)</script>"),
        ("x.pdf", b"%PDF-1.7"),
        ('a"b;\r\nX-Evil: 1.txt', b"text"),
    ],
)
async def test_other_files_are_only_saved(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        answer = await page.get("file", home="dl", name=name)
        assert answer.content == content
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment; ")
        assert "X-Evil" not in answer.headers


async def test_file_outside_the_folders_is_not_found(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    home = tmp_path / "place"
    home.mkdir()
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    (home / "folder").symlink_to(tmp_path)
    os.mkfifo(home / "pipe")
    outside = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "folder/secret.png"]
    async with site(written(home / "out.jsonl", [])) as page:
        for name in [*outside, ".", "pipe", "x\0y", "a" * 5000]:
            assert (await page.get("file", home="in", name=name)).status_code == 404
        assert (await page.get("file", home="etc", name="out.jsonl")).status_code == 404


async def test_picture_by_absolute_path_inside_the_folder_is_served(tmp_path: Path) -> None:
    path = picture(tmp_path / "img" / "1.png")
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        assert (await page.get("file", home="in", name=str(path))).status_code == 200


async def test_page_serves_nothing_beside_itself(tmp_path: Path) -> None:
    async with site(written(tmp_path / "out.jsonl", [])) as page:
        for name in (
            "..%2fserver.py",
            "../server.py",
            "vendor/vendor.toml",
            "vendor",
            "%2fetc%2fpasswd",
        ):
            assert (await page.get(f"page/{name}")).status_code == 404


# Lines and states


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (line("a", "yes"), State.DONE),
        (line("a", "yes", asks=2), State.PARTLY),
        (line("a", "yes", asks=2, iErr=NOT_READY), State.PARTLY),
        (line("a", iErr=NOT_READY), State.NOT_RUN),
        (line("a"), State.NOT_RUN),
        (line("a", iErr=FAILED), State.FAILED),
        (line("a", "yes", iErr={"code": 502, "message": "x", "stage": "download"}), State.FAILED),
        ({"id": "a", "asks": [{"content": "x"}], "answers": None, "iErr": None}, State.NOT_RUN),
        ({"id": 7, "asks": None, "answers": 5, "iErr": "odd"}, State.FAILED),
        ({}, State.FAILED),
        (line("a", "yes", "no"), State.FAILED),
        (line("a") | {"answers": [None]}, State.NOT_RUN),
    ],
)
def test_state_of_a_line(record: dict[str, Any], state: State) -> None:
    assert examine(rawjson.dumps(record)).state == state


@pytest.mark.parametrize("raw", [b"[1]", b'{"id":', b"\xff\xfe", b'"x"', b"[" * 5000])
def test_line_that_is_no_object_counts_as_failed(raw: bytes) -> None:
    facts = examine(raw)
    assert facts.state == State.FAILED
    assert facts.cause is not None
    assert facts.cause.stage == "unreadable"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'{"a":"x\ud83dy"}', "x\ufffdy"),
        (rb'{"a":"x\ud83d\ude00"}', "x\U0001f600"),
        (rb'{"a":"\\ud83d"}', r"\ud83d"),
        (rb'{"a":"\uDE00"}', "\ufffd"),
        (b'\xef\xbb\xbf{"a":"bom"}', "bom"),
    ],
)
def test_half_an_emoji_does_not_make_a_line_unreadable(raw: bytes, text: str) -> None:
    assert parse(raw) == {"a": text}


def test_equal_lines_have_one_key_whichever_way_attachments_are_written() -> None:
    one = {"id": "a", "asks": [{"id": 1, "content": "x", "image": "p.png"}], "extra": 1}
    other = {"id": "a", "asks": [{"content": "x", "images": ["p.png"], "files": None, "id": 1}]}
    third = {"id": "a", "asks": [{"content": "y", "images": ["p.png"], "id": 1}]}
    keys = [examine(rawjson.dumps(item)).key for item in (one, other, third)]
    assert keys[0] == keys[1] != keys[2]


async def test_rows_come_in_input_order_with_their_states(tmp_path: Path) -> None:
    records = [line("a", "yes"), line("b", iErr=FAILED), line("c", iErr=NOT_READY)]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        answer = await page.json("rows", run=0, count=50)
        assert [row["id"] for row in answer["rows"]] == ["a", "b", "c"]
        assert [State(row["state"]) for row in answer["rows"]] == [
            State.DONE,
            State.FAILED,
            State.NOT_RUN,
        ]
        assert answer["rows"][1]["error"] == "429 Too Many Requests"
        assert (answer["total"], answer["of"], answer["complete"]) == (3, 3, True)


async def test_overview_counts_states_causes_and_calls(tmp_path: Path) -> None:
    records = [
        timed(line("a", "yes"), 2.0),
        timed(line("b", "yes", "no", asks=2), 1.0, 4.0),
        line("c", iErr=FAILED),
        line("d", iErr=FAILED),
        line("e", iErr={"code": 500, "message": "oops", "stage": "upload"}),
    ]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        (run,) = (await page.json("overview"))["runs"]
        assert run["states"] == {"done": 2, "failed": 3, "not_run": 0, "partly": 0}
        causes = [(cause["code"], cause["stage"], cause["count"]) for cause in run["causes"]]
        assert causes == [(429, "chat", 2), (500, "upload", 1)]
        assert run["latency"]["calls"] == 3
        assert run["latency"]["p50"] == pytest.approx(2.0, rel=0.06)
        assert run["calls"] == 6
        assert sum(run["timeline"]["calls"]) == 3


async def test_output_of_the_original_tool_has_causes_but_no_timings(tmp_path: Path) -> None:
    asks = [{"id": "pid: 0", "content": "x"}]
    errors = [
        {"code": 501, "message": "failed to chat: 429 Too Many Requests"},
        {"code": 501, "message": "failed to upload 1708834483542: 500"},
        {"code": 501, "message": "failed to upload 9999999999999: 500"},
    ]
    records = [{"id": "id: 0", "asks": asks, "answers": None, "iErr": error} for error in errors]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        (run,) = (await page.json("overview"))["runs"]
        assert run["latency"] is None
        assert [cause["count"] for cause in run["causes"]] == [2, 1]
        assert run["causes"][1]["stage"] == "failed to chat: 429 Too Many Requests"


async def test_conversation_holds_asks_answers_tools_and_files(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "1.png")
    picture(tmp_path / "chart.png")
    record = line("a")
    record["asks"][0] |= {"images": ["img/1.png"], "files": ["gone.txt"]}
    answer = reply("**yes**", ["chart.png"])
    tool = {
        "author": {"role": "tool", "name": "python"},
        "content": {"content_type": "x", "result": "42"},
    }
    hidden = {"author": {"role": "user"}, "content": {"parts": ["ask a"]}}
    answer["contents"][:0] = [{"message": tool}, {"message": hidden}]
    record["answers"] = [answer]
    async with site(written(tmp_path / "out.jsonl", [timed(record, 3.5)])) as page:
        shown = await page.json("line", run=0, row=0)
        (turn,) = shown["turns"]
        assert turn["ask"]["text"] == "ask a"
        assert [asset["kind"] for asset in turn["assets"]] == ["picture", "missing"]
        assert [item["text"] for item in turn["answer"]["messages"]] == ["42", "**yes**"]
        assert turn["answer"]["downloads"][0]["kind"] == "picture"
        assert turn["seconds"] == 3.5
        raw = await page.json("raw", run=0, row=0)
        assert rawjson.loads(raw["text"].encode())["id"] == "a"


async def test_unknown_shape_of_a_reply_is_shown_as_json(tmp_path: Path) -> None:
    record = {"id": 1, "asks": [{"content": "x"}], "answers": [{"choices": ["y"]}]}
    async with site(written(tmp_path / "out.jsonl", [record])) as page:
        (turn,) = (await page.json("line", run=0, row=0))["turns"]
        assert turn["answer"]["messages"][0]["kind"] == "json"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            '{"id": 123456789012345678901234567890,"asks": [], "id":2}',
            '{\n  "id": 123456789012345678901234567890,\n  "asks": [],\n  "id": 2\n}',
        ),
        (
            '{"asks":[{"content":"你 \\u4f60 \\"["}]}',
            '{\n  "asks": [\n    {\n      "content": "你 \\u4f60 \\"["\n    }\n  ]\n}',
        ),
        ("我 [is, no JSON", "我 [is, no JSON"),
    ],
    ids=["long number, equal keys", "not ASCII, spaces of other tools", "no JSON"],
)
async def test_raw_json_is_indented_and_else_as_it_is(
    tmp_path: Path, text: str, shown: str
) -> None:
    async with site(written(tmp_path / "out.jsonl", [text.encode()])) as page:
        raw = await page.json("raw", run=0, row=0)
        assert raw == {"text": shown, "length": len(shown)}


async def test_long_raw_json_is_cut_and_counted_in_characters(tmp_path: Path) -> None:
    record = {"id": 1, "asks": [{"content": "字" * 1_000_000}]}
    async with site(written(tmp_path / "out.jsonl", [record])) as page:
        raw = await page.json("raw", run=0, row=0)
        assert raw["length"] == len(rawjson.dumps(record).decode())
        assert len(raw["text"]) == 512 * 1024


async def test_huge_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    records = [line("a", "x" * 10_000_000)]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        answer = await page.get("api/line", run=0, row=0)
        assert len(answer.content) < 1_000_000
        part = answer.json()["turns"][0]["answer"]["messages"][0]
        assert part["length"] == 10_000_000 > len(part["text"])
        assert len((await page.get("api/raw", run=0, row=0)).content) < 3_000_000
        assert len((await page.get("api/rows", run=0, count=50)).content) < 10_000


# Filters


async def found(page: Site, **query: Any) -> list[str]:
    answer = await page.until("rows", run=0, count=100, **query)
    assert answer["total"] == len(answer["rows"])
    return [row["id"] for row in answer["rows"]]


async def test_filters_by_state_cause_and_pictures(tmp_path: Path) -> None:
    with_picture = line("p", "yes")
    with_picture["answers"][0] = reply("see", ["chart.PNG"])
    records = [line("a", "yes"), line("b", iErr=FAILED), line("c", iErr={"code": 1}), with_picture]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        assert await found(page, state="failed") == ["b", "c"]
        assert await found(page, state="done,failed") == ["a", "b", "c", "p"]
        assert await found(page, cause=1) == ["b"]
        assert await found(page, pictures=1) == ["p"]
        assert await found(page, state="done", q="see") == ["p"]
        assert (await page.get("api/rows", run=0, state="nonsense")).status_code == 400


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("HELLO", ["a"]),
        ('say "hi"', ["b"]),
        ("图片", ["c", "d"]),
        ("a/b <c> & d", ["e"]),
        ("straße", ["f"]),
        ("é", ["g"]),
        ("429 too", ["h"]),
        ("contents", []),
        ("two\nlines", ["i"]),
        ("\\", ["b"]),
        ("k", ["k", "h"]),
        ("ask i-0", []),
        ("i-0", ["i"]),
    ],
)
async def test_text_is_found_as_it_is_shown(tmp_path: Path, text: str, names: list[str]) -> None:
    def plain(name: str, answer: str) -> dict[str, Any]:
        return {
            "id": name,
            "asks": [{"id": f"{name}-0", "content": ""}],
            "answers": [reply(answer)],
        }

    escaped = rawjson.dumps(plain("d", "PIC")).replace(b"PIC", rb"\u56fe\u7247")
    slashed = rawjson.dumps(plain("e", "TEXT")).replace(b"TEXT", rb"a\/b \u003cc\u003e \u0026 d")
    records = [
        plain("a", "well Hello there"),
        plain("b", 'say "hi" \\'),
        plain("c", "描述下图片"),
        escaped,
        slashed,
        plain("f", "STRASSE"),
        plain("g", "CAFÉ"),
        {"id": "h", "asks": [], "iErr": FAILED | {"message": "429 Too quicK"}},
        plain("i", "two\nlines"),
        plain("k", ""),
    ]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        assert sorted(await found(page, q=text)) == sorted(names)


def test_filter_follows_lines_that_come_and_change(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", iErr=FAILED), line("b", iErr=FAILED)])
    output = indexed(path)
    chosen = Filter(output.index, Question(states=frozenset({State.FAILED})))
    chosen.advance()
    assert list(chosen.rows) == [0, 1]
    append(path, line("a", "yes"), line("c", iErr=FAILED))
    output.follow()
    chosen.advance()
    assert list(chosen.rows) == [1, 2]
    output.close()


# While the run is on


def test_log_record_replaces_the_line_it_continues(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [])
    output = indexed(path)
    append(path, timed(line("a", "one", asks=2), 1.0), line("b", iErr=FAILED))
    output.follow()
    assert states(output.index) == ["PARTLY", "FAILED"]
    append(path, timed(line("a", "one", "two", asks=2), 1.0, 2.0), line("b", "yes"))
    output.follow()
    assert states(output.index) == ["DONE", "DONE"]
    figures = output.index.public()
    assert figures["states"] == {"done": 2, "failed": 0, "not_run": 0, "partly": 0}
    assert (figures["causes"], figures["latency"]["calls"], figures["calls"]) == ([], 2, 4)
    output.close()


def test_equal_lines_of_an_ordered_file_stay_lines_of_their_own(tmp_path: Path) -> None:
    path = written(
        tmp_path / "out.jsonl", [line("a", "yes"), line("a", iErr=FAILED), line("a", iErr=FAILED)]
    )
    output = indexed(path)
    assert states(output.index) == ["DONE", "FAILED", "FAILED"]
    append(path, line("a", "again"))
    output.follow()
    assert sorted(states(output.index)) == ["DONE", "DONE", "FAILED"]
    append(path, line("a", "again"))
    output.follow()
    assert states(output.index) == ["DONE", "DONE", "DONE"]
    output.close()


def test_torn_last_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", "yes")])
    output = indexed(path)
    record = LOG_MARK + rawjson.dumps(line("b", "yes")) + b"\n"
    append_bytes(path, record[:30])
    output.follow()
    output.follow()
    assert ids(output.index) == ["a"]
    append_bytes(path, record[30:])
    output.follow()
    assert ids(output.index) == ["a", "b"]
    output.close()


def test_last_line_without_an_end_counts_once_it_no_longer_grows(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", "yes")])
    append_bytes(path, rawjson.dumps(line("b", "yes")))
    output = Output(path)
    output.follow()
    output.follow()
    assert ids(output.index) == ["a", "b"]
    append_bytes(path, b"\n" + rawjson.dumps(line("c", "yes")) + b"\n")
    output.follow()
    assert ids(output.index) == ["a", "b", "c"]
    output.close()


def test_file_put_in_order_is_shown_from_its_new_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("b", "yes"), line("a", "yes")], mark=LOG_MARK)
    output = indexed(path)
    first = output.index
    fresh = written(
        tmp_path / "new", [line("a", "yes"), line("b", "yes"), line("c", iErr=NOT_READY)]
    )
    fresh.replace(path)
    assert ids(first) == ["b", "a"]
    output.follow()
    assert ids(output.index) == ["a", "b", "c"]
    assert output.index.generation == first.generation + 1
    assert first.read(0) == b""
    output.close()


def test_file_cut_in_place_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", "yes"), line("b", "yes")])
    output = indexed(path)
    written(path, [line("c", "yes")])
    output.follow()
    assert ids(output.index) == ["c"]
    output.close()


def test_file_that_goes_away_stays_readable(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", "yes")])
    output = indexed(path)
    path.unlink()
    output.follow()
    assert ids(output.index) == ["a"]
    assert output.public()["rows"] == 1
    output.close()


def test_input_shows_lines_that_did_not_run_in_input_order(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [line("a"), line("b"), line("b"), line("c")])
    path = written(tmp_path / "out.jsonl", [line("c", "yes"), line("b", "first")], mark=LOG_MARK)
    output = indexed(path, source)
    assert ids(output.index) == ["a", "b", "b", "c"]
    assert states(output.index) == ["NOT_RUN", "DONE", "NOT_RUN", "DONE"]
    append(path, line("b", "second"), line("x", "unknown"))
    output.follow()
    assert states(output.index) == ["NOT_RUN", "DONE", "DONE", "DONE", "DONE"]
    assert output.index.public()["states"]["not_run"] == 1
    output.close()


def test_input_that_is_the_output_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", "yes")])
    output = indexed(path, tmp_path / "." / "out.jsonl")
    assert ids(output.index) == ["a"]
    output.close()


async def test_page_sees_a_running_batch_grow_and_end(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("b", "yes")], mark=LOG_MARK)
    async with site(path) as page:
        key = (await page.json("line", run=0, row=0))["key"]
        append(path, line("a", "yes"))
        with anyio.fail_after(5):
            while (await page.json("rows", run=0, count=9))["total"] != 2:
                await anyio.sleep(0.02)
        written(tmp_path / "new", [line("a", "yes"), line("b", "yes")]).replace(path)
        with anyio.fail_after(5):
            while (await page.json("overview"))["runs"][0]["generation"] != 2:
                await anyio.sleep(0.02)
        assert (await page.json("find", run=0, key=key))["row"] == 1
        assert (await page.json("find", run=0, key="zz"))["row"] is None


def test_run_of_batchsvc_is_followed_line_by_line(tmp_path: Path) -> None:
    asks = [{"id": turn, "content": f"turn {turn}"} for turn in range(2)]
    source = written(tmp_path / "in.jsonl", [{"id": n, "asks": asks} for n in range(12)])
    out = written(tmp_path / "out.jsonl", [])
    output = Output(out, source)
    argv = [sys.executable, "-m", "gpt4batch", "batchsvc", "--mock", "-f", "-q", "0", "-g", "4"]
    environment = {**os.environ, "GPT4BATCH_LATENCY": "0.2"}
    files = ["-i", str(source), "-o", str(out), "--quiet"]
    seen = set()
    with subprocess.Popen([*argv, *files], env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            output.follow()
            seen |= set(states(output.index))
            assert len(output.index.rows) <= 12
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
    output.follow()
    assert process.returncode == 0
    assert seen == {"NOT_RUN", "PARTLY", "DONE"}
    assert ids(output.index) == list(range(12))
    assert states(output.index) == ["DONE"] * 12
    latency = output.index.public()["latency"]
    assert latency["calls"] == 24
    assert latency["p50"] >= 0.05
    output.close()


# Saving


async def test_failed_lines_are_saved_as_they_are(tmp_path: Path) -> None:
    failed = rawjson.dumps(line("b", iErr=FAILED))
    path = written(tmp_path / "out.jsonl", [line("a", "yes"), failed], mark=LOG_MARK)
    async with site(path) as page:
        answer = await page.get("api/save", run=0, state="failed")
        assert answer.content == failed + b"\n"
        assert 'filename="out.failed.jsonl"' in answer.headers["Content-Disposition"]


async def test_results_are_saved_as_csv_with_formulas_disarmed(tmp_path: Path) -> None:
    records = [
        line("a", "=cmd|calc", "-5", asks=2),
        timed(line("b", 'quote " and, comma\nline'), 1.5),
        line("c", iErr=FAILED),
    ]
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        answer = await page.get("api/save", run=0, **{"as": "csv"})
        assert answer.content.startswith("\ufeff".encode())
        rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
        assert [row["answer"] for row in rows] == [
            "'=cmd|calc",
            "-5",
            'quote " and, comma\nline',
            "",
        ]
        assert [row["state"] for row in rows] == ["done", "done", "done", "failed"]
        assert (rows[2]["seconds"], rows[3]["code"], rows[3]["stage"]) == ("1.5", "429", "chat")


async def test_long_ids_keep_their_digits_on_the_page_and_in_csv(tmp_path: Path) -> None:
    records = []
    for number in (12345678901234567890123, 12345678901234567890124):
        record = line("x", "yes")
        record["id"], record["asks"][0]["id"], record["extra"] = number, -number, {"n": number}
        records.append(record)
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        answer = await page.get("api/save", run=0, **{"as": "csv"})
        rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
        wanted = ["12345678901234567890123", "12345678901234567890124"]
        assert [row["id"] for row in rows] == wanted
        assert [row["ask_id"] for row in rows] == [f"-{text}" for text in wanted]
        shown = await page.json("rows", run=0, count=2)
        assert [item["id"] for item in shown["rows"]] == wanted
        assert shown["rows"][0]["key"] != shown["rows"][1]["key"]


# Pictures and comparison


async def test_pictures_are_paged_over_all_lines(tmp_path: Path) -> None:
    records = []
    for number in range(10):
        record = line(f"r{number}", "yes")
        record["asks"][0]["images"] = [f"img/{number}-{n}.png" for n in range(number % 4)]
        records.append(record)
    picture(tmp_path / "img" / "3-2.png")
    async with site(written(tmp_path / "out.jsonl", records)) as page:
        names, answer = [], {}
        for start in range(0, 20, 4):
            answer = await page.json("pictures", run=0, count=4, **{"from": start})
            names += [item["name"] for item in answer["pictures"]]
        assert names == [f"img/{number}-{n}.png" for number in range(10) for n in range(number % 4)]
        assert answer["total"] == len(names) == 13


async def test_two_runs_are_compared_line_by_line(tmp_path: Path) -> None:
    left = [
        line("a", "same"),
        line("b", "old"),
        line("c", iErr=FAILED),
        line("d", "yes"),
        line("e", "yes"),
        line("a", "twice"),
    ]
    right = [
        line("a", "same"),
        line("a", "TWICE"),
        line("b", "new"),
        line("c", "yes"),
        line("d", iErr=FAILED),
        line("f", "yes"),
    ]
    paths = [written(tmp_path / "l.jsonl", left), written(tmp_path / "r.jsonl", right)]
    async with site(*paths) as page:
        answer = await page.until("pairs", left=0, right=1, count=50)
        expected = {
            "all": 7,
            "same": 1,
            "differ": 2,
            "better": 1,
            "worse": 1,
            "left": 1,
            "right": 1,
        }
        assert answer["counts"] == expected
        pairs = [tuple(side and side["answer"] for side in pair) for pair in answer["pairs"]]
        assert ("twice", "TWICE") in pairs
        differ = await page.until("pairs", left=0, right=1, kind="differ", count=50)
        assert [pair[0]["id"] for pair in differ["pairs"]] == ["b", "a"]
        assert (await page.get("api/pairs", left=0, right=1, kind="x")).status_code == 400


# Figures


def test_timeline_of_a_long_run_stays_small() -> None:
    timeline = Timeline()
    for moment in range(0, 400_000, 7):
        timeline.add(moment, 1)
    assert len(timeline.counts) <= MOST_BUCKETS
    assert sum(timeline.public()["calls"]) == len(range(0, 400_000, 7))


def test_percentiles_are_within_a_twentieth() -> None:
    latency = Histogram()
    for number in range(1, 1001):
        latency.add(number / 10, 1)
    seen = shown(latency)
    assert seen is not None
    assert seen["p50"] == pytest.approx(50, rel=0.05)
    assert seen["p99"] == pytest.approx(99, rel=0.05)
    assert seen["mean"] == pytest.approx(50.05)


def test_index_keeps_fifty_bytes_a_line(tmp_path: Path) -> None:
    path = written(
        tmp_path / "out.jsonl", [line(f"q{n}", "yes") for n in range(3000)], mark=LOG_MARK
    )
    index = Index(open_file(path), None, 1)
    index.follow()
    rows = index.rows
    matcher = rows.matching()
    columns = [rows.source, rows.offset, rows.length, rows.state, rows.cause, rows.key, rows.answer,
        rows.pictures, matcher.table, matcher.next, matcher.taken]  # fmt: skip
    sizes = [len(column) * getattr(column, "itemsize", 1) for column in columns]
    assert len(rows) == 3000
    assert sum(sizes) / 3000 <= 50
    index.close()


# Money


def test_what_a_line_and_all_of_them_cost_by_the_price_that_was_named(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 300_000, "completion_tokens": 100_000}
    message = {"role": "assistant", "content": "yes"}
    reply = {"model": "m", "choices": [{"message": message}], "usage": usage}
    records = [line(f"q{n}", "yes") | {"answers": [reply]} for n in range(3)]
    index = Index(open_file(written(tmp_path / "out.jsonl", records)), None, 1, Price(1, 1, 2))
    index.follow()
    assert index.figures.public()["cost"] == pytest.approx(1.5)
    shown = conversation(index, 0, Folders(tmp_path, tmp_path))
    assert shown["turns"][0]["answer"]["cost"] == pytest.approx(0.5)
    index.close()


# The report


def test_report_is_one_file_within_its_size_and_says_what_is_left_out(tmp_path: Path) -> None:
    failed = {"iErr": FAILED}
    records = [line(f"q{n}", "text " * 200) | (failed if n % 10 == 0 else {}) for n in range(2000)]
    output = Output(written(tmp_path / "out.jsonl", records))
    size = 1024 * 1024
    said = report.export(Show([output], Folders(tmp_path, tmp_path)), tmp_path / "r.html", size)
    output.close()
    page = (tmp_path / "r.html").read_bytes()
    assert len(page) <= size
    data = rawjson.loads(re.search(rb'id="report-data">(.*?)</script>', page)[1])  # type: ignore[index]
    facts = data["report"]
    assert (facts["lines"], facts["failed"], facts["failed_shown"]) == (2000, 200, len([
        entry for entry in data["runs"][0]["lines"] if entry["summary"]["state"] == State.FAILED
    ]))  # fmt: skip
    assert 0 < facts["failed_shown"] <= facts["lines_shown"] < 2000
    assert f"{facts['lines_shown']} of 2000 lines" in said
    shown = [entry["summary"]["state"] for entry in data["runs"][0]["lines"]]
    assert shown == sorted(shown, key=lambda state: state != State.FAILED)


def test_report_holds_pictures_and_no_text_that_ends_its_scripts(tmp_path: Path) -> None:
    picture(tmp_path / "chart.png")
    record = line("</script><script>alert(1)</script><!--", "yes")
    record["answers"] = [reply("</script><img src=x onerror=alert(1)>", ["chart.png"])]
    output = Output(written(tmp_path / "out.jsonl", [record]))
    report.export(Show([output], Folders(tmp_path, tmp_path)), tmp_path / "r.html", 4 << 20)
    output.close()
    page = (tmp_path / "r.html").read_text()
    scripts = len(report.LIBRARIES) + 2
    assert page.count("</script>") == scripts
    assert page.count("<!--") == 1  # the licences, before any script
    assert "data:image/png;base64," in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert not re.search(r"<(?:link|img|iframe|object|embed)[ >]", page.split("<style>")[0])


def test_report_that_cannot_hold_the_page_is_refused(tmp_path: Path) -> None:
    output = Output(written(tmp_path / "out.jsonl", [line("a", "yes")]))
    with pytest.raises(UsageError, match="the page alone takes"):
        report.export(Show([output], Folders(tmp_path, tmp_path)), tmp_path / "r.html", 300_000)
    output.close()
    assert not (tmp_path / "r.html").exists()


def test_sample_is_spread_evenly() -> None:
    first = list(report.spread(list(range(1000))))[:10]
    assert max(first) > 800
    assert min(first) < 100
    assert sorted(report.spread(list(range(37)))) == list(range(37))


# The command


def command(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    argv = [sys.executable, "-m", "gpt4batch", "viewsvc", *words]
    return subprocess.Popen(
        argv, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize(
    "words",
    [
        ["{tmp}/none.jsonl"],
        ["{tmp}"],
        [],
        ["{out}", "--port", "70000"],
        ["{out}", "-i", "{tmp}/none"],
    ],
)
def test_unreadable_file_or_senseless_flag_exits_2(tmp_path: Path, words: list[str]) -> None:
    out = written(tmp_path / "out.jsonl", [])
    with command(*[word.format(tmp=tmp_path, out=out) for word in words]) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert errors.startswith("gpt4batch: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_its_address_and_ends_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    out = written(tmp_path / "out.jsonl", [line("a", "yes")])
    with command(str(out)) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
        with httpx.Client(trust_env=False) as client:
            assert client.get(url).status_code == 200
            process.send_signal(number)
            _, errors = process.communicate(timeout=5)
    assert process.returncode == 0
    assert "warning" not in errors
    assert "Traceback" not in errors


def test_command_warns_when_others_can_reach_it(tmp_path: Path) -> None:
    out = written(tmp_path / "out.jsonl", [line("a", "yes")])
    with command(str(out), "--host", "0.0.0.0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as client:
            assert client.get(url).status_code == 200
            assert client.get(url, headers={"Host": "evil.example"}).status_code == 421
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    assert "warning: --host 0.0.0.0" in errors


def test_command_writes_a_report(tmp_path: Path) -> None:
    out = written(tmp_path / "out.jsonl", [line("a", "yes"), line("b", iErr=FAILED)])
    with command(str(out), "--export", str(tmp_path / "r.html")) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "2 of 2 lines (1 of 1 failed)" in errors
    assert (tmp_path / "r.html").stat().st_size < 10 << 20


# The page's own files


def test_third_party_files_are_as_the_manifest_says() -> None:
    manifest = tomllib.loads((PAGE / "vendor" / "vendor.toml").read_text())
    named = {
        item["to"]: item["sha256"] for package in manifest["package"] for item in package["files"]
    }
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (PAGE / "vendor").iterdir()
        if path.suffix != ".toml"
    }
    assert found == named


def modules() -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(PAGE.glob("*.js"))}


def test_modules_of_the_page_can_share_one_scope() -> None:
    pattern = re.compile(
        r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE
    )
    names = [name for text in modules().values() for name in pattern.findall(text)]
    assert sorted(names) == sorted(set(names))
    program = report.bundle()
    assert "import " not in re.sub(r"//.*", "", program)
    assert not re.search(r"^export ", program, re.MULTILINE)
    assert all(f"{text.splitlines()[0]}" in program for text in modules().values())


def test_every_word_of_the_page_is_said_in_both_languages() -> None:
    texts = modules()
    words = re.findall(r'^  (\w+): \["(.+)", "(.+)"\],$', texts["words.js"], re.MULTILINE)
    assert len(words) > 100
    holes = re.compile(r"\{(\w+)\}")
    for name, english, chinese in words:
        assert sorted(holes.findall(english)) == sorted(holes.findall(chinese)), name
    known = {name for name, _, _ in words}
    asked = {name for text in texts.values() for name in re.findall(r'\bsay\("(\w+)"', text)}
    assert asked <= known


def test_page_names_no_other_host() -> None:
    for name, text in {**modules(), "style.css": (PAGE / "style.css").read_text()}.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert "innerHTML" not in text


def test_line_written_in_steps_is_shown_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [])
    output = indexed(path)
    first = line("a", "one", asks=3)
    append(path, first | {"meta": {"asks": [{"seconds": 1, "attempts": 2}], "go": "g.1"}})
    output.follow()
    assert states(output.index) == ["PARTLY"]
    for number, text in enumerate(["two", "three"], 1):
        more = {"answers": [reply(text)], "meta": {"asks": [{"seconds": 1, "attempts": 2}]}}
        append(path, {"id": "a", "go": "g.1", "step": number, **more})
    append(path, {"id": "b", "go": "unknown", "step": 1, "answers": [], "meta": {}})
    output.follow()
    assert states(output.index) == ["DONE"]
    assert len((parse(output.index.read(0)) or {})["answers"]) == 3
    figures = output.index.public()
    assert (figures["states"]["done"], figures["latency"]["calls"]) == (1, 3)
    question = Question(frozenset(), 0, pictures=False, text="three")
    wanted = Filter(output.index, question)
    wanted.advance()
    assert wanted.slice(0, 9) == [0]
    output.close()


async def test_calls_are_counted_as_the_run_counts_them(tmp_path: Path) -> None:
    failed = line("b", iErr=FAILED, meta={"calls": 6})
    again = timed(line("a", "yes"), 2.0)
    again["meta"]["calls"] = 5
    output = indexed(written(tmp_path / "out.jsonl", [again], LOG_MARK))
    append(tmp_path / "out.jsonl", failed, {**failed, "meta": {"calls": 12}})
    output.follow()
    assert output.index.public()["calls"] == 5 + 12
    output.close()


async def test_command_that_runs_the_rest_names_input_output_and_folder(tmp_path: Path) -> None:
    out = written(tmp_path / "my out.jsonl", [line("a", iErr=FAILED)])
    async with site(out) as page:
        (run,) = (await page.json("overview"))["runs"]
        assert run["again"] == f"gpt4batch batchsvc -i INPUT.jsonl -o '{out}' -f"
    source, folder = written(tmp_path / "in.jsonl", [line("a")]), tmp_path / "downloads"
    async with site(out, source=source, downloads=folder) as page:
        (run,) = (await page.json("overview"))["runs"]
        assert run["again"] == f"gpt4batch batchsvc -i {source} -o '{out}' -d {folder.name} -f"
