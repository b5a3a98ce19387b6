from __future__ import annotations

import base64
import errno
import fcntl
import os
import re
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from file_hosts import file_host, ok, reply, trickling

from gpt4batch.control import Control
from gpt4batch.errors import DownloadError
from gpt4batch.lines import rawjson
from gpt4batch.service.downloads import Downloads
from gpt4batch.service.links import Links
from gpt4batch.service.transport import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import SocketStream
    from conftest import Bench

    Until = Callable[[Callable[[], Any]], Awaitable[None]]

BODY = b"0123456789" * 50


@asynccontextmanager
async def chats(
    *links: str, ask: dict[str, list[str]] | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """Answer every chat with links: the same to each, or those of its message."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        message = rawjson.loads(await request.read())["message"]
        asked.append(message)
        found = list(links) if ask is None else ask[message]
        content = {"error": None, "message": {"id": "m"}}
        told = {"contents": [content], "downloads": found, "message_id": "m"}
        return web.json_response({**told, "conversation_id": "c"})

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def got(bench: Bench) -> list[bytes]:
    return [path.read_bytes() for path in sorted((bench.folder / "got").iterdir())]


def names(bench: Bench) -> list[str]:
    """Return what the downloaded files are called behind what every name begins with."""
    files = sorted((bench.folder / "got").iterdir())
    return [path.name.split("_", 4)[4] for path in files]


async def fetched(bench: Bench, link: str, **settings: Any) -> dict[str, Any]:
    """Run one line whose answer has a link; return the line."""
    bench.write(bench.line(1, "one"))
    async with chats(link) as (origin, _):
        await bench.run(origin, download_dir="got", **settings)
    line: dict[str, Any] = bench.read()[0]
    return line


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ('attachment; filename="报告.csv"'.encode("gbk"), "报告.csv"),
        ("attachment; filename=报告.csv".encode(), "报告.csv"),
        (b"attachment; filename==?UTF-8?B?5oql5ZGKLmNzdg==?=", "报告.csv"),
        (b"attachment; filename*=UTF-8''%E6%8A%A5.csv; filename=x.csv", "报.csv"),
        (b'attachment; filename="C:\\dir\\a.csv"', "a.csv"),
        (b'attachment; filename="a\xe2\x80\xaefdp.exe"', "a_fdp.exe"),
    ],
)
async def test_file_has_the_name_that_its_host_means(bench: Bench, value: bytes, name: str) -> None:
    told = b"Content-Disposition: " + value
    async with file_host({"/x": ok(BODY, told)}) as host:
        await fetched(bench, f"{host.origin}/x")
    assert names(bench) == [name]


# -- links -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "path"),
    [
        (" {0}/a.txt\n", "/a.txt"),
        ("{0}/a b.txt", "/a%20b.txt"),
        ("{0}/a\n\tb.txt", "/ab.txt"),
        ("{0}/报.txt", "/%E6%8A%A5.txt"),
        ("{0}\\d\\a.txt?p=c:\\x", "/d/a.txt?p=c:\\x"),
        ("//{1}/a.txt", "/a.txt"),
        ("HTTP://{1}/a.txt", "/a.txt"),
        ("{0}/a.txt?x=1&amp;y=2#part", "/a.txt?x=1&y=2"),
        ("{0}/%B1%A8.txt", "/%B1%A8.txt"),
    ],
)
async def test_link_is_read_as_a_browser_reads_it(bench: Bench, link: str, path: str) -> None:
    async with file_host({path[:2] + "*": ok(BODY)}) as host:
        line = await fetched(bench, link.format(host.origin, host.origin.partition("//")[2]))
    assert "iErr" not in line
    assert [found.replace("%5C", "\\") for found in host.paths] == [path]
    assert got(bench) == [BODY]


@pytest.mark.parametrize(
    ("link", "path"), [("/files/a.txt", "/files/a.txt"), ("a.txt", "/standard/a.txt")]
)
async def test_relative_link_leads_to_the_service(bench: Bench, link: str, path: str) -> None:
    bench.write(bench.line(1, "one"))
    told = rawjson.dumps({"contents": [{}], "downloads": [link]})
    async with file_host({"/s*": [ok(told), ok(BODY)], "/f*": ok(BODY)}) as host:
        summary = await bench.run(host.origin, download_dir="got")
    assert summary.done == 1
    assert host.paths == ["/standard/all-tools", path]
    assert "authorization" not in host.asked[1][1]


@pytest.mark.parametrize(
    ("link", "content", "name"),
    [
        ("data:text/plain;base64," + base64.b64encode(BODY).decode(), BODY, "file.txt"),
        ("data:text/plain;charset=utf-8;base64,MDEy\nMw", b"0123", "file.txt"),
        ("data:,a%20b", b"a b", "file"),
        ("DATA:image/png,%89PNG", b"\x89PNG", "file.png"),
    ],
)
async def test_file_inside_a_link_is_stored(
    bench: Bench, link: str, content: bytes, name: str
) -> None:
    line = await fetched(bench, link)
    assert "iErr" not in line
    assert (got(bench), names(bench)) == ([content], [name])


@pytest.mark.parametrize("link", ["data:text/plain;base64,a!b", "data:text/plain", "//", "#a"])
async def test_link_without_a_file_fails_its_line(bench: Bench, link: str) -> None:
    line = await fetched(bench, link)
    assert (line["iErr"]["stage"], len(line["answers"])) == ("download", 1)
    assert got(bench) == []


@pytest.mark.parametrize(("hops", "done"), [(6, True), (20, True), (21, False)])
async def test_redirects_are_followed_as_far_as_browsers_do(
    bench: Bench, hops: int, done: bool
) -> None:
    ways = {
        f"/{hop:02}": reply(b"302 Found", b"", b"Location: /%02d" % (hop + 1))
        for hop in range(hops)
    }
    async with file_host({**ways, f"/{hops:02}": ok(BODY)}) as host:
        line = await fetched(bench, f"{host.origin}/00")
    assert ("iErr" not in line) is done
    assert done or "more than 20 redirects" in line["iErr"]["message"]


@pytest.mark.parametrize("charset", ["gbk", "utf-8"])
async def test_redirect_to_bytes_that_are_no_ascii_goes_on_with_them(
    bench: Bench, charset: str
) -> None:
    octets = "报 告".encode(charset)
    way = reply(b"302 Found", b"", b"Location: /f/" + octets + b".txt")
    async with file_host({"/a": way, "/f*": ok(BODY)}) as host:
        await fetched(bench, f"{host.origin}/a")
    escaped = "".join(f"%{octet:02X}" for octet in octets)
    assert host.paths == ["/a", f"/f/{escaped}.txt"]
    assert got(bench) == [BODY]


async def test_redirect_to_itself_is_followed_until_it_leads_on(bench: Bench) -> None:
    way = reply(b"302 Found", b"", b"Location: /a")
    async with file_host({"/a": [way, way, ok(BODY)]}) as host:
        await fetched(bench, f"{host.origin}/a")
    assert (host.paths, got(bench)) == (["/a"] * 3, [BODY])


async def test_redirect_without_an_address_fails_at_once(bench: Bench) -> None:
    async with file_host({"/a": reply(b"302 Found", b"")}) as host:
        line = await fetched(bench, f"{host.origin}/a")
    assert host.paths == ["/a"]
    assert "without an address" in line["iErr"]["message"]


# -- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole",
    [
        reply(b"206 Partial Content", BODY, b"Content-Range: bytes 0-499/500"),
        reply(b"206 Partial Content", BODY, b"Content-Range: bytes 0-499/*"),
        reply(b"206 Partial Content", BODY, b"Content-Length: 500"),
        reply(b"203 Non-Authoritative Information", BODY),
        reply(b"200 OK", b"1f4\r\n" + BODY + b"\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        ok(BODY, b"Content-Encoding: gzip"),
        ok(BODY, b"Content-Type: text/html"),
    ],
    ids=["ranged", "open range", "no range", "203", "chunked", "gzip label", "html"],
)
async def test_whole_reply_of_another_kind_is_stored_as_it_came(bench: Bench, whole: bytes) -> None:
    async with file_host({"/a.txt": whole}) as host:
        line = await fetched(bench, f"{host.origin}/a.txt")
    assert "iErr" not in line
    assert (got(bench), len(host.asked)) == ([BODY], 1)


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (b"Content-Range: bytes 100-499/500", b"206 Partial Content"),
        (b"Content-Range: bytes 0-99/500", b"206 Partial Content"),
        (b"Content-Type: multipart/byteranges; boundary=x", b"206 Partial Content"),
        (b"Content-Length: 500", b"200 OK"),
    ],
    ids=["the end", "the beginning", "several", "cut off"],
)
async def test_part_that_nobody_asked_for_is_not_stored(
    bench: Bench, part: bytes, status: bytes
) -> None:
    first = reply(status, BODY[:100], part)
    async with file_host({"/a.txt": [first, ok(BODY)]}) as host:
        line = await fetched(bench, f"{host.origin}/a.txt")
    assert "iErr" not in line
    assert got(bench) == [BODY]
    assert "range" not in host.asked[1][1]


async def test_rest_is_asked_for_only_by_what_names_a_version(bench: Bench) -> None:
    """A date that is as young as the reply may be that of two versions."""
    now = b"Date: Wed, 01 Jan 2020 00:00:00 GMT"
    changed = b"Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT"
    cut = reply(b"200 OK", b"old bytes", b"Content-Length: 500", now, changed)
    weak = reply(b"200 OK", b"old bytes", b"Content-Length: 500", b'ETag: W/"one"')
    async with file_host({"/a.txt": [cut, weak, ok(BODY)]}) as host:
        await fetched(bench, f"{host.origin}/a.txt")
    assert [headers.get("range") for _, headers in host.asked] == [None] * 3
    assert got(bench) == [BODY]


# -- time ------------------------------------------------------------------------------------


async def test_wait_that_a_host_asks_for_is_at_least_kept(bench: Bench) -> None:
    busy = reply(b"503 Busy", b"", b"Retry-After: 1")
    async with file_host({"/a": [busy, ok(BODY)]}) as host:
        began = time.monotonic()
        line = await fetched(bench, f"{host.origin}/a")
    assert "iErr" not in line
    assert time.monotonic() - began >= 1


async def test_wait_that_is_too_long_fails_the_download_and_says_so(bench: Bench) -> None:
    async with file_host({"/a": reply(b"503 Busy", b"", b"Retry-After: 301")}) as host:
        line = await fetched(bench, f"{host.origin}/a")
    assert len(host.asked) == 1
    assert "asked to wait 301 s, more than 300 s" in line["iErr"]["message"]


@asynccontextmanager
async def hasty(folder: Path, **given: Any) -> AsyncIterator[Downloads]:
    """Yield downloads whose minute is short."""
    given = {"retries": 0, "min_speed": 1000, "span": 0.3} | given
    async with AiohttpTransport() as transport:
        links = Links(transport, "http://127.0.0.1/chat", lambda _address: False)
        downloads = Downloads(folder / "got", "P", links, Control(), **given)
        downloads.prepare()
        yield downloads


async def test_host_that_is_slow_leaves_places_to_the_others(bench: Bench, until: Until) -> None:
    enough = anyio.Event()

    async def late(stream: SocketStream, _: dict[str, str]) -> None:
        await enough.wait()
        await stream.send(ok(BODY))

    async with (
        file_host({"/s*": late}) as slow,
        file_host({"/good": ok(BODY)}, "127.0.0.2") as other,
        hasty(bench.folder, span=30.0) as downloads,
        anyio.create_task_group() as group,
    ):
        for number in range(40):
            group.start_soon(downloads.fetch, f"{slow.origin}/s{number}", "1", "1")
        await until(lambda: len(slow.asked) == 16)
        await downloads.fetch(f"{other.origin}/good", "1", "1")
        assert len(slow.asked) == 16
        enough.set()
    assert got(bench) == [BODY] * 41


async def test_downloads_that_trickle_are_given_up_and_a_good_one_of_their_host_comes(
    bench: Bench,
) -> None:
    errors: list[str] = []

    async def fetch(downloads: Downloads, link: str) -> None:
        with pytest.raises(DownloadError) as found:
            await downloads.fetch(link, "1", "1")
        errors.append(str(found.value))

    async with (
        file_host({"/slow": trickling(), "/good": ok(BODY)}) as host,
        hasty(bench.folder) as downloads,
        anyio.create_task_group() as group,
    ):
        for _ in range(20):
            group.start_soon(fetch, downloads, f"{host.origin}/slow")
        group.start_soon(downloads.fetch, f"{host.origin}/good", "1", "1")
    assert len(errors) == 20
    assert all("--download-min-speed asks for 1000 a second" in text for text in errors)
    assert got(bench) == [BODY]


@pytest.mark.parametrize(("least", "done"), [(0, True), (100, True), (100_000, False)])
async def test_speed_is_held_against_the_least_that_is_set(
    bench: Bench, least: int, done: bool
) -> None:
    async def play(stream: SocketStream, _: dict[str, str]) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        for place in range(0, 500, 25):
            await stream.send(BODY[place : place + 25])
            await anyio.sleep(0.02)

    async with file_host({"/a": play}) as host, hasty(bench.folder, min_speed=least) as downloads:
        if done:
            await downloads.fetch(f"{host.origin}/a", "1", "1")
        else:
            with pytest.raises(DownloadError, match=r"too slow: .* -f fetches it later"):
                await downloads.fetch(f"{host.origin}/a", "1", "1")
    assert got(bench) == ([BODY] if done else [])


async def test_download_that_stands_still_is_tried_again(bench: Bench) -> None:
    async def still(stream: SocketStream, _: dict[str, str]) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n0123")
        await anyio.sleep_forever()

    async with (
        file_host({"/a": [still, ok(BODY)]}) as host,
        hasty(bench.folder, retries=1) as downloads,
    ):
        await downloads.fetch(f"{host.origin}/a", "1", "1")
    assert got(bench) == [BODY]


# -- places ----------------------------------------------------------------------------------


async def test_lines_ask_while_files_of_others_come(bench: Bench, until: Until) -> None:
    asked: list[str] = []
    enough = anyio.Event()

    async def late(stream: SocketStream, _: dict[str, str]) -> None:
        await enough.wait()
        await stream.send(ok(BODY))

    bench.write(*[bench.line(number, f"first {number}", "second") for number in range(4)])
    async with file_host({"/a": late}) as host:
        ask = {f"first {number}": [f"{host.origin}/a"] for number in range(4)} | {"second": []}
        async with chats(ask=ask) as (origin, asked), anyio.create_task_group() as group:

            async def watch() -> None:
                await until(lambda: len(asked) == 4 and len(host.asked) == 4)
                enough.set()

            group.start_soon(watch)
            summary = await bench.run(origin, goroutine=1, download_dir="got")
    assert (summary.done, summary.downloads) == (4, 4)
    assert asked == [f"first {number}" for number in range(4)] + ["second"] * 4


async def test_interrupt_during_a_download_keeps_the_answer_and_fix_fetches_it(
    bench: Bench, until: Until
) -> None:
    bench.write(bench.line(1, "one"))
    async with (
        file_host({"/a": [trickling(), ok(BODY)]}) as host,
        chats(f"{host.origin}/a") as (origin, asked),
    ):
        words = bench.batchsvc(origin, "-d", "got", "--grace", "0.1")
        async with bench.start(*words) as running:
            await until(lambda: host.asked)
            running.process.terminate()
            ended = await running.end()
        [line] = bench.read()
        assert (ended.code, len(line["answers"]), line["iErr"]["stage"]) == (143, 1, "download")
        again = await bench.run(origin, download_dir="got", fix=True)
    assert (again.done, again.chats, len(asked)) == (1, 0, 1)
    assert got(bench) == [BODY]


# -- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "folder"), [("deep/result.jsonl", "deep/result.rehearsal"), ("-", "in.rehearsal")]
)
async def test_downloads_of_a_rehearsal_lie_in_a_folder_of_their_own(
    bench: Bench, out: str, folder: str
) -> None:
    (bench.folder / "deep").mkdir()
    bench.write(bench.line(1, "one"))
    env = {"GPT4BATCH_LATENCY": "0", "GPT4BATCH_ASSET_RATE": "1"}
    words = ("batchsvc", "--mock", "-q", "0", "-i", "in.jsonl", "-o", out)
    result = await bench.call(*words, env=env)
    assert result.code == 0
    assert len(list((bench.folder / folder).glob("GPT4API_*"))) == 1
    assert not list(bench.folder.glob("GPT4API_*"))
    assert "downloads go to" not in result.err


@pytest.mark.parametrize("words", [(), ("-d", "got"), ("-e=false",)])
async def test_run_says_first_that_downloads_go_among_the_input_where_nobody_chose(
    bench: Bench, words: tuple[str, ...]
) -> None:
    bench.write(bench.line(1, "one"))
    async with chats() as (origin, _):
        result = await bench.call(*bench.batchsvc(origin, *words))
    said = f"downloads go to {bench.folder}, the input's folder; -d DIR keeps them apart"
    assert (said in result.err.split("\n")[0]) is (not words)


# -- file systems without locks ----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
async def test_file_system_without_locks_takes_downloads_and_keeps_no_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("flock", "lockf"):
        lock = getattr(fcntl, name)

        def without(file: int, how: int, lock: Any = lock) -> None:
            if Path(f"/proc/self/fd/{file}").readlink().suffix == ".part":
                raise OSError(number, os.strerror(number))
            lock(file, how)

        monkeypatch.setattr(fcntl, name, without)
    (bench.folder / "got").mkdir()
    old, young = (f"got/P_q_a_17000000000000000{place}0_file.part" for place in (1, 2))
    for name in (old, young):
        (bench.folder / name).write_bytes(b"half")
    os.utime(bench.folder / old, (0, 0))
    async with file_host({"/a.txt": ok(BODY)}) as host:
        line = await fetched(bench, f"{host.origin}/a.txt")
    assert "iErr" not in line
    left = sorted(path.name for path in (bench.folder / "got").iterdir())
    assert [bool(re.search(r"\.part$", name)) for name in left] == [False, True]
    assert young.endswith(left[1])
