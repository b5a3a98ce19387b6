from __future__ import annotations

import gzip
import re
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.lines import rawjson
from gpt4batch.mock.assets import asset_bytes
from gpt4batch.service.file_names import local_name, suggested_name
from gpt4batch.service.private_addresses import is_private

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Scripting = Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Any]
    Serving = Callable[..., MockService]

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]), max_size=300)
NASTY = st.sampled_from(
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x",
        "..",
        ".",
        "",
        "CON",
        "nul.txt",
        "a\0b",
        "a\nb",
        "a" * 500 + ".png",
        "好" * 200 + ".jpeg",
        "😀" * 100,
        ".bashrc",
        "x." + "y" * 300,
        "-rf",
        "file name .txt ",
        "a:b|c?d*e",
    ]
)


# Names


@given(*[ANY_TEXT | NASTY] * 4)
def test_name_is_legal_short_and_inside_the_folder_whatever_is_sent(
    prefix: str, line_id: str, ask_id: str, suggested: str
) -> None:
    name = local_name(prefix, line_id, ask_id, suggested)
    assert 0 < len(name.encode()) <= 255 - len(".part")
    assert not re.search(r'[\x00-\x1f/\\:*?"<>|]', name)
    assert name not in (".", "..")
    assert not name.startswith((".", "-"))
    assert name == name.strip(" .")
    folder = Path("/folder")
    assert (folder / name).parent == folder


@given(ANY_TEXT | NASTY)
def test_name_can_be_made_into_a_file(suggested: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (local_name("P", "1", "2", suggested) + ".part")
        path.touch()
        assert [found.name for found in Path(folder).iterdir()] == [path.name]


@given(
    st.text(st.characters(exclude_characters="/\\")),
    st.text(alphabet="abcdefghij0123456789", min_size=1, max_size=4),
)
def test_ending_of_a_long_name_is_kept(stem: str, ending: str) -> None:
    name = local_name("GPT4API", "q", "a", "好" * 150 + stem + "." + ending)
    assert name.endswith("." + ending)


def test_name_has_the_form_of_the_contract() -> None:
    name = local_name("GPT4API", "q-1", "a-1", "chart 1.png")
    assert re.fullmatch(r"GPT4API_q-1_a-1_\d{19}_chart 1\.png", name)


@given(ANY_TEXT, ANY_TEXT)
def test_any_address_and_header_suggest_some_text(query: str, header: str) -> None:
    query = quote(query, errors="replace")
    found = suggested_name(f"https://h/p?rscd={query}", {"content-disposition": header})
    assert isinstance(found, str)


@pytest.mark.parametrize(
    ("url", "header", "wanted"),
    [
        ("https://h/files/x?rscd=attachment%3B%20filename%3Dchart.png", "", "chart.png"),
        (
            "https://h/x?se=1&amp;rscd=attachment%3B%20filename%3Dchart.png&amp;sig=2",
            "",
            "chart.png",
        ),
        ("https://h/x?rscd=attachment%3B+filename%3D%22a+b.png%22", "", "a b.png"),
        (
            "https://h/x?response-content-disposition=attachment%3B%20filename%3D%22r.csv%22",
            "",
            "r.csv",
        ),
        (
            "https://h/x?rscd=filename%3Da.png&response-content-disposition=filename%3Db",
            "",
            "a.png",
        ),
        ("https://h/x?rscd=inline", 'attachment; filename="h.pdf"', "h.pdf"),
        ("https://h/x", "attachment; filename*=UTF-8''%E7%BB%93%E6%9E%9C.csv", "结果.csv"),
        ("https://h/x", "attachment; filename=plain.txt; size=3", "plain.txt"),
        ("https://h/d/%E7%BB%93%E6%9E%9C%201.zip?sig=1", "", "结果 1.zip"),
        ("https://h/d/", "", ""),
        ("https://h", "", ""),
        ("https://h/x?rscd=attachment%3B%20filename%3D..%2F..%2Fpasswd", "", "../../passwd"),
        ("https://h/x?rscd=filename%3DR%26amp%3BD.txt&sig=1", "", "R&D.txt"),
        ("https://h/x?id=1&rscd=filename%3Da%26times.txt&timestamp=2", "", "a&times.txt"),
        ("https://h/a&ltb.txt", "", "a&ltb.txt"),
        ("https://h/x", "attachment; filename*=utf-8'zh'%E6%8A%A5.csv", "报.csv"),
        ("https://h/x", "attachment; filename*=GBK''%B1%A8%B8%E6.csv", "报告.csv"),
        ("https://h/x", "attachment; filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("https://h/x", "attachment; filename*=no-such''%E6%8A%A5.csv", "报.csv"),
        ("https://h/x", "attachment; filename*=undefined''%41.csv", "A.csv"),
        ("https://h/x", "attachment; filename*=\"UTF-8''a%20b.csv\"", "a b.csv"),
        ("https://h/x", 'attachment; filename="a \\"b\\"; c.txt"', 'a "b"; c.txt'),
        ("https://h/x", 'attachment; name="x; filename=no.txt"; filename=yes.txt', "yes.txt"),
        ("https://h/x", 'attachment; FileName = "r.pdf"', "r.pdf"),
        ("https://h/x", "attachment; FILENAME* = UTF-8''r.pdf ; filename=s.pdf", "r.pdf"),
        ("https://h/x", 'attachment; filename*=""; filename=s.pdf', "s.pdf"),
        ("https://h/x", 'attachment; filename="open.pdf', "open.pdf"),
        ("https://h/x?rscd=attachment%3B+filename*%3DGBK%27%27%25B1%25A8.csv", "", "报.csv"),
    ],
)
def test_name_comes_from_the_query_then_the_header_then_the_path(
    url: str, header: str, wanted: str
) -> None:
    assert suggested_name(url, {"content-disposition": header}) == wanted


def test_extended_name_is_preferred_over_the_plain_one() -> None:
    header = "attachment; filename=\"___.csv\"; filename*=UTF-8''%E7%BB%93.csv"
    assert suggested_name("https://h/x", {"content-disposition": header}) == "结.csv"


def test_same_asset_twice_gets_two_names() -> None:
    assert len({local_name("P", "1", "1", "a.png") for _ in range(50)}) == 50


@pytest.mark.parametrize("text", ["a", "a ", '"', 'a="', 'a="\\"', ";", "filename*=a'"])
def test_header_of_64_kib_is_read_at_once(text: str) -> None:
    started = time.process_time()
    suggested_name("https://h/x", {"content-disposition": text * (65536 // len(text))})
    assert time.process_time() - started < 2


# Files


async def broken_off(
    request: web.BaseRequest, piece: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    """Answer with a piece and close the connection."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(piece)
    assert request.transport is not None
    request.transport.close()
    return response


def local_files(bench: Bench, folder: str = "got") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (bench.folder / folder).iterdir()}


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_000])
async def test_download_is_on_disk_whole_when_its_line_is_finished(
    bench: Bench, serving: Serving, size: int
) -> None:
    bench.write(bench.line("q/1", "one"))
    async with serving(asset_rate=1.0, asset_count=3, asset_size=size) as service:
        summary = await bench.run(service.origin, download_dir="got/deep", download_prefix="前缀")
    assert (summary.done, summary.downloads, summary.download_bytes) == (1, 3, 3 * size)
    [answer] = bench.read()[0]["answers"]
    found = local_files(bench, "got/deep")
    assert [item["origin"] for item in answer["spec_downloads"]] == answer["downloads"]
    assert sorted(item["local"] for item in answer["spec_downloads"]) == sorted(found)
    for name, content in found.items():
        assert name.startswith("前缀_q_1_a-1_")
        assert content == asset_bytes(name.split("_", 5)[-1], size)


async def test_downloads_go_beside_the_input_by_default(bench: Bench, serving: Serving) -> None:
    (bench.folder / "deep").mkdir()
    bench.write(bench.line(1, "one"), name="deep/in.jsonl")
    async with serving(asset_rate=1.0) as service:
        await bench.run(service.origin, input="deep/in.jsonl")
    assert len(list((bench.folder / "deep").glob("GPT4API_*"))) == 1


async def test_downloads_are_left_alone_where_the_flag_says_so(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "one"))
    async with serving(asset_rate=1.0) as service:
        summary = await bench.run(service.origin, enable_download=False)
        assert service.stats.downloads == 0
    [answer] = bench.read()[0]["answers"]
    assert (summary.done, len(answer["downloads"])) == (1, 1)
    assert "spec_downloads" not in answer


async def test_token_is_not_sent_to_the_file_host(bench: Bench, serving: Serving) -> None:
    bench.write(bench.line(1, "one"))
    async with serving(asset_rate=1.0) as service:
        await bench.run(service.origin)
        assert (service.stats.downloads, service.stats.downloads_with_authorization) == (1, 0)


@pytest.mark.parametrize("ranges", [True, False])
async def test_download_that_breaks_off_goes_on_until_it_is_whole(
    bench: Bench, serving: Serving, ranges: bool
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(3)])
    # With this seed two of the three downloads break off once.
    async with serving(
        asset_rate=1.0, asset_size=300_000, asset_cut_rate=0.4, ranges=ranges, seed=5
    ) as service:
        summary = await bench.run(service.origin, download_dir="got")
        assert service.stats.faults["asset-cut"] == 2
        assert service.stats.downloads_ranged == (2 if ranges else 0)
    assert summary.done == 3
    found = local_files(bench)
    assert len(found) == 3
    assert all(
        content == asset_bytes(name.split("_", 4)[-1], 300_000) for name, content in found.items()
    )


async def test_download_that_fails_in_passing_is_tried_again(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(3)])
    # With this seed two of the three downloads fail once.
    async with serving(asset_rate=1.0, asset_error_rate=0.4, seed=18) as service:
        summary = await bench.run(service.origin)
        assert service.stats.faults["asset-error"] == 2
    assert (summary.done, summary.downloads, summary.chats) == (3, 3, 3)


def linking(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], path: str = "/a.txt"
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Answer every chat with one link, and the link as told."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return await answer(request)
        link = f"http://{request.headers['Host']}{path}"
        return web.json_response({"contents": [{}], "downloads": [link]})

    return handler


async def test_address_is_fetched_as_it_stands_but_for_escaped_ampersands(
    bench: Bench, scripted: Scripting
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"here")

    path = "/a.txt?id=1&timestamp=170&region=us&amp;sig=a&lt=b"
    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer, path)) as server:
        summary = await bench.run(server.origin, download_dir="got")
        fetched = [path for method, path, *_ in server.requests if method == "GET"]
    assert fetched == ["/a.txt?id=1&timestamp=170&region=us&sig=a&lt=b"]
    assert summary.done == 1
    [answered] = bench.read()[0]["answers"]
    assert [item["origin"] for item in answered["spec_downloads"]] == answered["downloads"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_download_that_is_refused_in_passing_is_tried_again(
    bench: Bench, scripted: Scripting, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if len(server.requests) == 2:
            return web.Response(status=status, headers={"Retry-After": "0"})
        return web.Response(body=b"here")

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert summary.done == 1
    assert list(local_files(bench).values()) == [b"here"]


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 3)])
async def test_error_of_a_download_tells_how_often_it_was_tried(
    bench: Bench, scripted: Scripting, status: int, attempts: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"Retry-After": "0"})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        await bench.run(server.origin, retries=2)
        assert len(server.requests) == 1 + attempts
    line = bench.read()[0]
    assert (line["iErr"]["code"], line["iErr"]["attempts"]) == (status, attempts)
    assert line["meta"]["calls"] == 1


THEN, LATER = "Wed, 01 Jan 2020 00:00:00 GMT", "Thu, 02 Jan 2020 00:00:00 GMT"
WHOLE = b"A" * 100 + b"a" * 400


@pytest.mark.parametrize(
    ("begun", "rest", "gets"),
    [
        ({"ETag": '"one"'}, {"ETag": '"two"'}, 3),
        ({"ETag": '"one"'}, {"ETag": '"one"', "Content-Range": "bytes 100-499/600"}, 3),
        ({"ETag": '"one"'}, {"ETag": '"one"', "Last-Modified": "then"}, 3),
        ({"Last-Modified": THEN}, {"Last-Modified": LATER}, 3),
        ({"Last-Modified": THEN}, {}, 3),
        ({"Last-Modified": THEN}, {"Last-Modified": THEN}, 2),
        ({"ETag": '"one"'}, {"ETag": '"one"', "Content-Encoding": "gzip"}, 3),
        ({"ETag": '"one"'}, {"ETag": '"one"'}, 2),
        ({"ETag": '"one"', "Last-Modified": THEN}, {"Last-Modified": THEN}, 3),
        ({"ETag": '"one"'}, {}, 3),
        ({"ETag": '"one"'}, {"ETag": '"one"', "Content-Range": "bytes 100-499/*"}, 2),
    ],
)
async def test_rest_is_taken_only_of_the_version_that_was_begun(
    bench: Bench, scripted: Scripting, begun: dict[str, str], rest: dict[str, str], gets: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Range" in request.headers:  # a server that knows nothing of If-Range
            told = {"Content-Range": "bytes 100-499/500", **rest}
            return web.Response(status=206, body=WHOLE[100:], headers=told)
        response = web.StreamResponse(headers={"Content-Length": "500", **begun})
        await response.prepare(request)
        if len(server.requests) > 2:
            await response.write(b"B" * 500)
            return response
        await response.write(WHOLE[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
        assert len(server.requests) == 1 + gets
    assert summary.done == 1
    assert list(local_files(bench).values()) == [WHOLE if gets == 2 else b"B" * 500]


async def test_rest_that_comes_in_pieces_is_whole_though_no_length_was_told(
    bench: Bench, scripted: Scripting
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Range" in request.headers:
            start = request.http_range.start
            stop = min(start + 200, 500)
            told = {"Content-Range": f"bytes {start}-{stop - 1}/500", "ETag": '"one"'}
            return web.Response(status=206, body=WHOLE[start:stop], headers=told)
        return await broken_off(request, WHOLE[:100], {"ETag": '"one"'})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert summary.done == 1
    assert list(local_files(bench).values()) == [WHOLE]


def raw_deflate(content: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(content) + deflate.flush()


TEXT = b"plain text\n" * 100_000


@pytest.mark.parametrize(
    ("coding", "body", "wanted"),
    [
        ("gzip", gzip.compress(TEXT), TEXT),
        ("X-GZip", gzip.compress(TEXT[:7]) + gzip.compress(TEXT[7:]), TEXT),
        ("deflate", zlib.compress(TEXT), TEXT),
        ("deflate", raw_deflate(TEXT), TEXT),
        ("gzip", gzip.compress(b""), b""),
        ("gzip", b"", b""),
        ("identity", TEXT, TEXT),
        ("gzip, gzip", gzip.compress(gzip.compress(TEXT)), TEXT),
        ("gzip, gzip", gzip.compress(TEXT), TEXT),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT)), TEXT),
        ("gzip", TEXT, TEXT),
        ("deflate", TEXT, TEXT),
        ("deflate", b"\xff" * 100, b"\xff" * 100),
        ("zstd", TEXT, TEXT),
        ("compress, gzip", TEXT, TEXT),
    ],
    ids=[
        "gzip",
        "members",
        "deflate",
        "bare deflate",
        "nothing",
        "no byte",
        "identity",
        "twice",
        "told twice",
        "two",
        "plain gzip",
        "plain deflate",
        "no deflate",
        "plain zstd",
        "plain two",
    ],
)
async def test_download_that_comes_compressed_is_stored_as_what_it_holds(
    bench: Bench, scripted: Scripting, coding: str, body: bytes, wanted: bytes
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=body, headers={"Content-Encoding": coding})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert (summary.done, summary.download_bytes) == (1, len(wanted))
    assert list(local_files(bench).values()) == [wanted]


async def test_compressed_download_that_breaks_off_goes_on_until_it_is_whole(
    bench: Bench, scripted: Scripting
) -> None:
    body = gzip.compress(TEXT)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        told = {"ETag": '"one"', "Content-Encoding": "gzip"}
        if "Range" in request.headers:
            told["Content-Range"] = f"bytes 1000-{len(body) - 1}/{len(body)}"
            return web.Response(status=206, body=body[1000:], headers=told)
        return await broken_off(request, body[:1000], {**told, "Content-Length": str(len(body))})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
        assert len(server.requests) == 3
    assert summary.done == 1
    assert list(local_files(bench).values()) == [TEXT]


async def test_compressed_download_that_is_torn_is_tried_again(
    bench: Bench, scripted: Scripting
) -> None:
    body = gzip.compress(TEXT)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        sent = body[:-9] if len(server.requests) == 2 else body
        return web.Response(body=sent, headers={"Content-Encoding": "gzip", "ETag": '"one"'})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got")
        assert [headers.get("range") for *_, headers, _ in server.requests] == [None] * 3
    assert summary.done == 1
    assert list(local_files(bench).values()) == [TEXT]


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        ("gzip", gzip.compress(TEXT)[:-9], "gzip"),
        ("gzip", gzip.compress(TEXT)[:-8] + bytes(8), "gzip"),
        ("deflate", zlib.compress(TEXT)[:-9], "deflate"),
        ("gzip, gzip", gzip.compress(gzip.compress(TEXT)[:-9]), "gzip"),
        ("br", b"any", "br"),
        ("zstd", b"\x28\xb5\x2f\xfdany", "zstd"),
        ("gzip, br", b"any", "br"),
    ],
    ids=["torn", "checksum", "torn deflate", "torn inside", "br", "zstd", "two"],
)
async def test_compressed_download_that_cannot_be_read_fails_the_line(
    bench: Bench, scripted: Scripting, coding: str, body: bytes, words: str
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Encoding": coding})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got", retries=0)
    [line] = bench.read()
    assert (summary.failed, line["iErr"]["stage"]) == (1, "download")
    assert f"Content-Encoding {words}" in line["iErr"]["message"]
    assert local_files(bench) == {}


@pytest.mark.parametrize(
    ("coding", "name"), [("aws-chunked", "a.txt"), ("utf-8", "a.txt"), ("gzip", "a.tar.gz")]
)
async def test_download_whose_encoding_is_none_stays_as_it_came(
    bench: Bench, scripted: Scripting, coding: str, name: str
) -> None:
    body = gzip.compress(TEXT)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        told = {"Content-Encoding": coding, "Content-Disposition": f'filename="{name}"'}
        return web.Response(body=body, headers=told)

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        await bench.run(server.origin, download_dir="got", retries=0)
    assert list(local_files(bench).values()) == [body]


async def test_compressed_download_that_unpacks_to_too_much_is_given_up(
    bench: Bench, scripted: Scripting
) -> None:
    bomb = gzip.compress(bytes(1 << 26))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    bench.write(bench.line(1, "one"))
    async with scripted(linking(answer)) as server:
        summary = await bench.run(server.origin, download_dir="got", max_download_size=1)
        assert len(server.requests) == 2
    message = bench.read()[0]["iErr"]["message"]
    assert summary.failed == 1
    assert "max-download-size" in message
    assert int(message.split()[0]) < 1 << 22
    assert local_files(bench) == {}


async def test_expired_link_fails_the_line_and_keeps_its_answers(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "one", "two"))
    async with serving(asset_rate=1.0, asset_expire_after=0.000001) as service:
        first = await bench.run(service.origin, download_dir="got")
        assert (first.failed, first.exit_code, first.chats) == (1, 1, 2)
        [line] = bench.read()
        assert len(line["answers"]) == 2
        assert (line["iErr"]["code"], line["iErr"]["stage"]) == (403, "download")
        assert "expired" in line["iErr"]["message"]
        for answer in line["answers"]:
            [item] = answer["spec_downloads"]
            assert item["origin"] == answer["downloads"][0]
            assert "403" in item["error"]
        second = await bench.run(service.origin, download_dir="got", fix=True)
        assert (second.failed, second.chats) == (1, 0)
    assert local_files(bench) == {}
    assert service.stats.answered_twice == 0


async def test_fix_fetches_only_what_is_missing_without_asking_again(
    bench: Bench, scripted: Scripting
) -> None:
    broken = {"/b"}
    fetched: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            fetched.append(request.path)
            status = 404 if request.path in broken else 200
            return web.Response(body=request.path.encode(), status=status)
        links = [f"{server.origin}/{name}" for name in "abc"]
        return web.json_response({"contents": [{"error": None}], "downloads": links})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        first = await bench.run(server.origin, download_dir="got")
        assert (first.failed, fetched) == (1, ["/a", "/b", "/c"])
        before = bench.read()[0]["answers"][0]
        broken.clear()
        second = await bench.run(server.origin, download_dir="got", fix=True)
        assert (second.done, second.chats, fetched[3:]) == (1, 0, ["/b"])
    line = bench.read()[0]
    after = line["answers"][0]
    assert "iErr" not in line
    assert [item["origin"] for item in after["spec_downloads"]] == after["downloads"]
    assert after["spec_downloads"][0] == before["spec_downloads"][0]
    assert sorted(local_files(bench).values()) == [b"/a", b"/b", b"/c"]


@pytest.mark.parametrize("shape", ["text", "url", "download_url", "href"])
async def test_links_of_another_shape_are_fetched_once(
    bench: Bench, scripted: Scripting, shape: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(body=b"here")
        link = f"{server.origin}/a.txt"
        found: Any = link if shape == "text" else [{"name": "a.txt", shape: link}]
        ids = {"conversation_id": "c", "message_id": "m"}
        return web.json_response({"contents": [{}], "downloads": found} | ids)

    bench.write(bench.line(1, "one", "two"))
    async with scripted(handler) as server:
        first = await bench.run(server.origin, download_dir="got")
        # A line that is not done goes through its answers once more.
        line = bench.read()[0]
        out = {**line, "answers": line["answers"][:1]}
        bench.write(out, name="out.jsonl")
        second = await bench.run(server.origin, download_dir="got", fix=True)
        gets = [path for method, path, *_ in server.requests if method == "GET"]
    assert (first.done, second.done, gets) == (1, 1, ["/a.txt"] * 3)
    for answer in bench.read()[0]["answers"]:
        [item] = answer["spec_downloads"]
        assert item["origin"] == f"{server.origin}/a.txt"
        assert (bench.folder / "got" / item["local"]).read_bytes() == b"here"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"a.txt": "https://h/a.txt"}, 1),
        ("none", 1),
        (7, 1),
        ([["https://h/a.txt"], {"name": "a.txt"}, 7, {"url": 5}], 4),
        (None, 0),
        ([], 0),
        ("", 0),
        ([None, ""], 0),
    ],
)
async def test_links_that_are_no_addresses_are_told_of(
    bench: Bench, scripted: Scripting, caplog: pytest.LogCaptureFixture, found: Any, told: int
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"contents": [{}], "downloads": found})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got")
        assert len(server.requests) == 1
    assert summary.done == 1
    assert bench.read()[0]["answers"][0]["downloads"] == found
    said = [each.getMessage() for each in caplog.records if "downloads" in each.getMessage()]
    assert len(said) == bool(told)
    assert not told or re.search(f"in.jsonl:1: not fetched.* {told} of", said[0])


async def test_links_that_are_no_addresses_are_passed_over_for_those_that_are(
    bench: Bench, scripted: Scripting, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(body=b"here")
        found = [{"name": "a.txt"}, f"{server.origin}/a.txt"]
        return web.json_response({"contents": [{}], "downloads": found})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert (summary.done, len(local_files(bench))) == (1, 1)
    assert re.search("in.jsonl:1: not fetched.* 1 of", caplog.text)


async def test_file_that_is_shorter_than_announced_never_appears(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "one"))
    async with serving(asset_rate=1.0, asset_size=100_000, asset_cut_rate=1.0) as service:
        summary = await bench.run(service.origin, download_dir="got", retries=2)
    assert summary.failed == 1
    assert local_files(bench) == {}
    assert bench.read()[0]["iErr"]["stage"] == "download"


@pytest.mark.parametrize("target", ["relative", "other host name"])
async def test_redirect_is_followed(bench: Bench, scripted: Scripting, target: str) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/a":
            where = "/b?x=1" if target == "relative" else f"{server.origin}/b"
            return web.Response(status=302, headers={"Location": where})
        if request.method == "GET":
            return web.Response(body=b"here")
        return web.json_response({"contents": [{}], "downloads": [f"{server.origin}/a"]})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert summary.done == 1
    assert list(local_files(bench).values()) == [b"here"]


@pytest.mark.parametrize(
    "link",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "sandbox:/mnt/data/a.csv",
        "http://",
        "http:///",
        "//",
        "http://[::1",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "http://localhost:1/x",
        "http://[::ffff:10.0.0.1]/",
    ],
)
async def test_link_that_must_not_be_fetched_fails_the_line(
    bench: Bench, scripted: Scripting, link: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"contents": [{}], "downloads": [link]})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got")
        assert len(server.requests) == 1
    assert summary.failed == 1
    [line] = bench.read()
    assert line["iErr"]["stage"] == "download"
    assert line["answers"][0]["spec_downloads"][0]["error"]
    assert local_files(bench) == {}


async def test_redirect_into_the_own_network_is_refused(bench: Bench, scripted: Scripting) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=302, headers={"Location": "http://10.0.0.1/secret"})
        return web.json_response({"contents": [{}], "downloads": [f"{server.origin}/a"]})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got")
    assert summary.failed == 1
    assert "10.0.0.1" in bench.read()[0]["iErr"]["message"]


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("172.16.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("2606:4700::1111", False),
    ],
)
def test_private_addresses_are_known(address: str, private: bool) -> None:
    assert is_private(address) is private


async def test_same_names_at_the_same_time_replace_no_file(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(body=request.query_string.encode())
        message = rawjson.loads(await request.read())["message"]
        return web.json_response(
            {"contents": [{}], "downloads": [f"{server.origin}/a.png?{message}"]}
        )

    bench.write(*[bench.line("same", f"{number}") for number in range(50)])
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, download_dir="got", goroutine=50)
    assert summary.done == 50
    assert sorted(local_files(bench).values()) == sorted(b"%d" % n for n in range(50))


async def test_parts_of_a_killed_run_are_cleared_and_other_files_left(
    bench: Bench, serving: Serving
) -> None:
    (bench.folder / "got").mkdir()
    (bench.folder / "got" / "GPT4API_1_a_1732300000000000000_file.part").write_bytes(b"half")
    (bench.folder / "got" / "mine.part").write_bytes(b"mine")
    bench.write(bench.line(1, "one"))
    async with serving() as service:
        await bench.run(service.origin, download_dir="got")
    assert local_files(bench) == {"mine.part": b"mine"}


async def test_download_folder_that_cannot_be_made_is_refused_before_any_call(
    bench: Bench, serving: Serving
) -> None:
    (bench.folder / "got").write_bytes(b"a file")
    bench.write(bench.line(1, "one"))
    async with serving() as service:
        result = await bench.call(*bench.batchsvc(service.origin, "-d", "got/deep"))
        assert service.stats.arrivals == 0
    assert result.code == 4
    assert "got/deep" in result.err
    assert "Traceback" not in result.err
