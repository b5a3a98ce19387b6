"""What stands on a connection belongs to one call, and to the right one."""

from __future__ import annotations

import gzip
import signal
import socket
import ssl
import threading
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import trustme
from peers import Line, Peer, answer_to, peering, reply
from yarl import URL

from gpt4batch.service.connections import Connections
from gpt4batch.service.exchange import Route
from gpt4batch.service.transport import AiohttpTransport, body_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from conftest import Bench

    Until = Callable[[Callable[[], Any]], Awaitable[None]]

TEXTS = [f"question {number}" for number in range(6)]


def texts(bench: Bench) -> list[str]:
    """Return what each line was answered."""
    return [
        line["answers"][0]["contents"][0]["message"]["content"]["parts"][0] for line in bench.read()
    ]


@pytest.fixture
def six(bench: Bench) -> list[str]:
    bench.write(*(bench.line(number, text) for number, text in enumerate(TEXTS)))
    return [f"re: {text}" for text in TEXTS]


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the side of a server whose certificate is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    context: ssl.SSLContext = request.getfixturevalue("certified")
    return context


async def faithful(line: Line) -> None:
    while True:
        await line.answer(await line.question())


# -- replies that nobody asked for -----------------------------------------------------------


async def test_connection_of_whole_successes_is_used_again(
    bench: Bench, six: list[str], tls: ssl.SSLContext | None
) -> None:
    async with peering(faithful, tls) as peer:
        assert (await bench.run(peer.origin, goroutine=1)).done == 6
    assert texts(bench) == six
    assert peer.connections == 1


STRAYS = {
    "whole": reply(answer_to("nobody")),
    "refusal": reply(b"{}", status=b"400 Bad Request"),
    "torn": b"HTTP/1.1 200 OK\r\nContent-",
    "noise": b"\0",
}


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("pause", [0.0, 0.03])
async def test_reply_that_nobody_asked_for_answers_no_question(
    bench: Bench, six: list[str], tls: ssl.SSLContext | None, stray: str, pause: float
) -> None:
    async def script(line: Line) -> None:
        while True:
            question = await line.question()
            if pause:
                await line.answer(question)
                await anyio.sleep(pause)
                await line.say(STRAYS[stray])
            else:
                await line.say(reply(answer_to(question)) + STRAYS[stray])

    async with peering(script, tls) as peer:
        summary = await bench.run(peer.origin, goroutine=1, qps=12.0)
    assert (summary.done, summary.unanswered) == (6, 0)
    assert texts(bench) == six
    assert peer.questions == TEXTS


async def test_late_answer_after_a_504_answers_no_other_question(
    bench: Bench, six: list[str], tls: ssl.SSLContext | None
) -> None:
    late = set(TEXTS[::2])

    async def script(line: Line) -> None:
        while True:
            question = await line.question()
            if question in late:
                late.discard(question)
                await line.say(reply(b"{}", b"Retry-After: 0", status=b"504 Gateway Timeout"))
            await line.answer(question)

    async with peering(script, tls) as peer:
        assert (await bench.run(peer.origin, goroutine=1)).done == 6
    assert texts(bench) == six


async def test_stray_reply_that_a_busy_loop_has_not_read_answers_no_question() -> None:
    answered, strayed = threading.Event(), threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            kept.append(connection)
            while b"}" not in connection.recv(1 << 16):
                pass
            connection.sendall(reply(answer_to(f"connection {len(kept)}")))
            if len(kept) == 1:
                answered.wait()
                connection.sendall(reply(answer_to("nobody")))
                strayed.set()

    thread = threading.Thread(target=serve)
    thread.start()
    async with AiohttpTransport() as transport:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        request = httpx.Request("POST", url, stream=httpx.ByteStream(b'{"message": "one"}'))
        assert b"connection 1" in body_of(await transport.handle_async_request(request))
        answered.set()
        strayed.wait()  # the loop stands still meanwhile
        assert b"connection 2" in body_of(await transport.handle_async_request(request))
    thread.join()
    for each in (listening, *kept):
        each.close()


# -- replies in an unusual form --------------------------------------------------------------

BODY = answer_to("one")
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
OK = b"HTTP/1.1 200 OK\r\n"


def coded(name: bytes, body: bytes) -> bytes:
    return reply(body, b"Content-Encoding: " + name)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


READ = {
    "two equal lengths": OK + LENGTH + LENGTH + b"\r\n" + BODY,
    "lengths in a list": OK + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "length and chunks": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + CHUNKED,
    "chunked without chunks": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "lone line feeds": (OK + LENGTH + b"\r\n").replace(b"\r", b"") + BODY,
    "chunks with lone line feeds": OK
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + CHUNKED.replace(b"\r\n", b"\n"),
    "chunk extensions and trailers": OK
    + b"Transfer-Encoding: chunked\r\n\r\n%X;a=b\r\n%s\r\n000\r\nX: y\r\n\r\n" % (len(BODY), BODY),
    "folded header": OK + b"X-Long: one\r\n two\r\n" + LENGTH + b"\r\n" + BODY,
    "header without a colon": OK + b"nonsense\r\n" + LENGTH + b"\r\n" + BODY,
    "header that is not ASCII": OK + "X-名: 值\r\n".encode() + LENGTH + b"\r\n" + BODY,
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(BODY),
    "blank lines before": b"\r\n\r\n" + reply(BODY),
    "gzip": coded(b"gzip", gzip.compress(BODY)),
    "x-gzip": coded(b"x-gzip", gzip.compress(BODY)),
    "gzip named twice": coded(b"gzip, gzip", gzip.compress(BODY)),
    "gzip twice": coded(b"gzip, gzip", gzip.compress(gzip.compress(BODY))),
    "gzip label on a plain body": coded(b"gzip", BODY),
    "gzip without a label": reply(gzip.compress(BODY)),
    "gzip in two members": coded(b"gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    "zlib": coded(b"deflate", zlib.compress(BODY)),
    "raw deflate": coded(b"deflate", raw_deflate(BODY)),
    "deflate label on a plain body": coded(b"deflate", BODY),
    "identity": coded(b"identity", BODY),
    "none": coded(b"none", BODY),
    "utf-8": coded(b"utf-8", BODY),
    "no encoding": coded(b'""', BODY),
    "br label on a plain body": coded(b"br", BODY),
    "zstd label on a plain body": coded(b"zstd", BODY),
}


@pytest.mark.parametrize("form", READ)
async def test_reply_in_an_unusual_form_is_an_answer(bench: Bench, form: str) -> None:
    async def script(line: Line) -> None:
        await line.question()
        for start in range(0, len(READ[form]), 97):  # in pieces, as networks deliver
            await line.say(READ[form][start : start + 97])

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        summary = await bench.run(peer.origin)
    assert summary.done == 1, bench.read()
    assert texts(bench) == ["re: one"]
    assert peer.questions == ["one"]


LABELS = [
    ("gbk", "gbk", "你好,世界"),
    ("gb2312", "gb2312", "联通"),
    ("gb18030", "utf-8", "标签写错了"),
    ("big5", "big5", "繁體中文"),
    ("utf-16", "utf-16", "宽"),
    ("iso-8859-1", "latin-1", "café"),
    ("iso-8859-1", "utf-8", "café"),
    ("nonsense", "utf-8", "好"),
]


@pytest.mark.parametrize(("label", "codec", "text"), LABELS)
async def test_reply_in_another_character_set_is_read(
    bench: Bench, label: str, codec: str, text: str
) -> None:
    body = answer_to(text).decode().encode(codec)

    async def script(line: Line) -> None:
        await line.question()
        await line.say(reply(body, f"Content-Type: application/json; charset={label}".encode()))

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        assert (await bench.run(peer.origin)).done == 1
    assert texts(bench) == [f"re: {text}"]


PACKED = gzip.compress(BODY)
UNREAD = {
    "br": (coded(b"br", b"\x8b\x05\x80{}\x03"), "br was not asked for"),
    "damaged gzip": (coded(b"gzip", PACKED[:20] + b"\0\0\0" + PACKED[23:]), "unpacked"),
    "cut gzip": (coded(b"gzip", PACKED[:-20]), "end too early"),
    "too much": (coded(b"gzip", gzip.compress(bytes(300 << 20), 1)), "more than 256 MiB"),
    "lengths that differ": (
        OK + b'Content-Length: 9\r\nContent-Length: 8\r\n\r\n{"a": 1.',
        "differ",
    ),
    "chunks without a length": (
        OK + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\nnonsense\r\n',
        "no length",
    ),
}


@pytest.mark.parametrize("form", UNREAD)
async def test_reply_that_cannot_be_read_is_kept_and_not_bought_again(
    bench: Bench, form: str
) -> None:
    data, reason = UNREAD[form]

    async def script(line: Line) -> None:
        await line.question()
        await line.say(data)
        await anyio.sleep_forever()

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        summary = await bench.run(peer.origin)
    assert (summary.failed, summary.unanswered) == (1, 0)
    assert peer.questions == ["one"]
    [line] = bench.read()
    assert reason in line["iErr"]["message"]
    assert line["iErr"]["reply"]


SLOPPY = {
    "a line break in a text": lambda body: body.replace(b"re: ", b"re:\n"),
    "a comment behind it": lambda body: body + b"\n<!-- cached -->",
    "a NUL behind it": lambda body: body + b"\0",
    "twice": lambda body: body + b"\n" + body,
    "behind what keeps scripts from reading it": lambda body: b")]}',\n" + body,
    "as an event": lambda body: b"event: message\ndata: " + body + b"\n\ndata: [DONE]\n\n",
    "as a call": lambda body: b"callback(" + body + b");",
}


@pytest.mark.parametrize("form", SLOPPY)
async def test_whole_answer_in_text_that_is_not_quite_json_is_kept_and_not_bought_again(
    bench: Bench, form: str
) -> None:
    async def script(line: Line) -> None:
        while True:
            await line.say(reply(SLOPPY[form](answer_to(await line.question()))))

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        assert (await bench.run(peer.origin)).failed == 1
    assert peer.questions == ["one"]
    [line] = bench.read()
    assert "one" in line["iErr"]["reply"]


async def test_reply_that_changes_the_protocol_fails_its_line_at_once(bench: Bench) -> None:
    async def script(line: Line) -> None:
        await line.question()
        await line.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        await anyio.sleep_forever()

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        with anyio.fail_after(20):
            assert (await bench.run(peer.origin)).failed == 1
    assert peer.questions == ["one"]
    [line] = bench.read()
    assert line["iErr"]["code"] == 101


@pytest.mark.parametrize("end", ["closed", "reset"])
async def test_reply_that_is_cut_short_is_asked_again(bench: Bench, end: str) -> None:
    async def script(line: Line) -> None:
        question = await line.question()
        if len(line.peer.questions) == 1:
            await line.say(reply(answer_to(question))[:-5])
            if end == "reset":
                line.reset()
            return
        await line.answer(question)

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        summary = await bench.run(peer.origin)
    assert (summary.done, summary.unanswered) == (1, 1)
    assert peer.questions == ["one", "one"]


# -- connections that end --------------------------------------------------------------------


async def test_kept_connection_that_the_service_closes_costs_no_attempt(
    bench: Bench, six: list[str], tls: ssl.SSLContext | None
) -> None:
    async def script(line: Line) -> None:
        await line.answer(await line.question())

    async with peering(script, tls) as peer:
        summary = await bench.run(peer.origin, goroutine=1, retries=0)
    assert (summary.done, summary.unanswered) == (6, 0)
    assert texts(bench) == six
    assert [line["meta"]["asks"][0]["attempts"] for line in bench.read()] == [1] * 6


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_kept_connection_that_ends_with_a_question_on_it_may_be_paid_for(
    bench: Bench, how: str
) -> None:
    async def script(line: Line) -> None:
        question = await line.question()
        await line.answer(question)
        if question == "one":
            await line.question()  # it has the next one, and perhaps works on it
            if how == "reset":
                line.reset()

    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    async with peering(script) as peer:
        summary = await bench.run(peer.origin, goroutine=1)
    assert (summary.done, summary.unanswered, summary.chats) == (2, 1, 3)
    assert peer.questions == ["one", "two", "two"]


async def test_new_connection_that_ends_without_a_reply_counts(bench: Bench) -> None:
    async def script(line: Line) -> None:
        await line.question()

    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        summary = await bench.run(peer.origin, retries=0)
    assert (summary.failed, summary.unanswered) == (1, 1)
    assert peer.questions == ["one"]


async def test_socket_is_asked_whether_the_peer_is_there_each_minute() -> None:
    async with peering(faithful) as peer:
        connections = Connections(verify=True, resolver=None)
        connection = await connections.connect(Route.to(URL(peer.origin + "/"), None).target)
        assert connection.transport is not None
        found = connection.transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        connection.close()
        await connections.aclose()


# -- bodies that take their time -------------------------------------------------------------


@pytest.fixture
def upload(bench: Bench) -> Bench:
    (bench.folder / "big.bin").write_bytes(bytes(8 << 20))
    asks = [{"content": "one", "files": ["big.bin"]}]
    bench.write({"id": 1, "asks": asks})
    return bench


@pytest.mark.parametrize("status", [b"413 Payload Too Large", b"400 Bad Request"])
async def test_early_refusal_of_an_upload_is_obeyed(
    upload: Bench, tls: ssl.SSLContext | None, status: bytes
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        await line.say(reply(b'{"error": "too large for us"}', b"Connection: close", status=status))
        if tls is None:
            line.reset()

    async with peering(script, tls) as peer:
        summary = await upload.run(peer.origin)
    assert summary.failed == 1
    [line] = upload.read()
    assert line["iErr"]["code"] == int(status[:3])
    assert "too large for us" in line["iErr"]["message"]
    assert len(peer.heads) == 1


async def test_upload_whose_bytes_flow_is_not_cut_by_the_timeout(upload: Bench) -> None:
    part = {"attachment": {"id": "file-1", "name": "big.bin", "size": 1, "mimeType": "a/b"}}

    async def script(line: Line) -> None:
        head = await line.head()
        if b"/uploaded" not in head:
            body = await line.reader.read(1 << 16)
            assert body
            await line.answer("one")
            return
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left > 0:
            left -= len(await line.reader.read(1 << 19))
            await anyio.sleep(0.07)
        reply_body = httpx.Response(200, json=part | {"conversation_id": "c"}).content
        await line.say(reply(reply_body))

    async with peering(script) as peer:
        summary = await upload.run(peer.origin, timeout=1.0, retries=0)
    assert summary.done == 1, upload.read()
    assert sum(b"/uploaded" in head for head in peer.heads) == 1


async def test_upload_that_stands_still_ends_with_the_timeout(upload: Bench) -> None:
    async def script(line: Line) -> None:
        await line.head()
        await anyio.sleep_forever()

    async with peering(script) as peer:
        summary = await upload.run(peer.origin, timeout=0.5, retries=0)
    assert summary.failed == 1
    assert "no answer within 0.5 s" in upload.read()[0]["iErr"]["message"]


async def test_process_that_was_stopped_reads_what_came_meanwhile(
    bench: Bench, until: Until
) -> None:
    bench.write(*(bench.line(number, text) for number, text in enumerate(TEXTS)))
    go = anyio.Event()

    async def script(line: Line) -> None:
        question = await line.question()
        await go.wait()
        await line.answer(question)
        await anyio.sleep_forever()

    async with peering(script) as peer:
        words = bench.batchsvc(peer.origin, "--timeout", "1")
        async with bench.start(*words) as running:
            await until(lambda: len(peer.questions) == 6)
            running.process.send_signal(signal.SIGSTOP)
            go.set()
            await anyio.sleep(1.5)
            running.process.send_signal(signal.SIGCONT)
            result = await running.end()
    assert result.code == 0, result.err
    assert sorted(peer.questions) == TEXTS


async def test_descriptors_that_are_used_up_are_waited_for(bench: Bench) -> None:
    bench.write(*(bench.line(number, f"question {number}") for number in range(60)))

    async def script(line: Line) -> None:
        question = await line.question()
        await anyio.sleep(0.05)
        await line.say(reply(answer_to(question), b"Connection: close"))

    async with peering(script) as peer:
        words = [*bench.batchsvc(peer.origin, "--retries", "0"), "-g", "6"]
        command = 'for _ in {1..84}; do exec {held}</dev/null; done; ulimit -n 110; exec "$0" "$@"'
        from conftest import COMMAND

        process = await anyio.run_process(
            ["bash", "-c", command, *COMMAND, *words], check=False, cwd=bench.folder
        )
    assert process.returncode == 0, process.stderr.decode()
    assert b"calls wait until others end" in process.stderr
    assert len(peer.questions) == 60


# -- cookies ---------------------------------------------------------------------------------


def cookies_of(peer: Peer) -> list[bytes]:
    found = []
    for head in peer.heads:
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")]
        found.append(lines[0].partition(b": ")[2] if lines else b"")
    return found


@pytest.mark.parametrize("value", ['"a b"', "MDAw/+=|x", "plain"])
async def test_cookies_go_back_to_the_service_and_nowhere_else(bench: Bench, value: str) -> None:
    async def files(line: Line) -> None:
        await line.head()
        await line.say(reply(b"bytes", b"Set-Cookie: theirs=1"))

    async def script(line: Line) -> None:
        while True:
            question = await line.question()
            body = answer_to(question)[:-1] + b',"downloads":["%s/a"]}' % elsewhere
            await line.say(
                reply(body, f"Set-Cookie: node={value}; Path=/; Domain=127.0.0.1".encode())
            )

    bench.write(bench.line(1, "one", "two"))
    async with peering(files) as other:
        elsewhere = other.origin.encode()
        async with peering(script) as peer:
            summary = await bench.run(peer.origin, allow_private_downloads=True)
    assert summary.done == 1, bench.read()
    assert cookies_of(peer) == [b"", f"node={value}".encode()]
    assert cookies_of(other) == [b"", b""]
