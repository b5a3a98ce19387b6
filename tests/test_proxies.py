from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from aiohttp import web
from peers import Line, peering
from yarl import URL

from gpt4batch.service.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench

    Scripting = Callable[..., Any]

PROXY = "http://user:s3cret-word@127.0.0.1:9"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x",
        "http://127.8.9.1/x",
        "http://localhost:1/x",
        "http://LOCALHOST/x",
        "https://service.localhost/x",
        "http://[::1]:8080/x",
        "http://[::ffff:127.0.0.1]/x",
    ],
)
@pytest.mark.parametrize("way", ["flag", "HTTP_PROXY", "all_proxy"])
def test_this_machine_is_never_reached_by_a_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, way: str
) -> None:
    if way != "flag":
        monkeypatch.setenv(way, "socks5://127.0.0.1:9" if way == "all_proxy" else PROXY)
    proxies = Proxies(PROXY if way == "flag" else "")
    assert proxies.of(URL(url)) is None


@pytest.mark.parametrize(
    ("names", "url"),
    [
        ("*", "http://a.example/"),
        ("a.example", "http://a.example/"),
        ("example", "http://a.example/"),
        (".a.example", "http://b.a.example/"),
        ("*.a.example", "http://b.a.example/"),
        ("A.Example.", "http://a.example./"),
        (" b.example , a.example ", "http://a.example/"),
        ("b.example a.example", "http://a.example/"),
        ("a.example:8080", "http://a.example:8080/"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("10.1.2.3", "http://10.1.2.3:99/"),
        ("10.1.2.3:99", "http://10.1.2.3:99/"),
        ("fd00::/8", "http://[fd00::1]/"),
        ("[fd00::1]", "http://[fd00::1]:8080/"),
        ("[fd00::1]:8080", "http://[fd00::1]:8080/"),
        ("fd00:0::1", "http://[fd00::1]/"),
    ],
)
def test_host_that_no_proxy_names_is_called_directly(
    monkeypatch: pytest.MonkeyPatch, names: str, url: str
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("NO_PROXY", names)
    assert Proxies().of(URL(url)) is None


@pytest.mark.parametrize(
    ("names", "url"),
    [
        ("", "http://a.example/"),
        ("a.example", "http://ba.example/"),
        ("a.example:8080", "http://a.example/"),
        ("10.0.0.0/8", "http://11.1.2.3/"),
        ("10.1.2.3", "http://10.1.2.30/"),
        ("0.1.2.3", "http://10.1.2.3/"),
        ("[fd00::1]:8080", "http://[fd00::1]:8081/"),
        ("127.0.0.0/8,::1,localhost", "http://a.example/"),
    ],
)
def test_host_that_no_proxy_does_not_name_is_called_through_it(
    monkeypatch: pytest.MonkeyPatch, names: str, url: str
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("NO_PROXY", names)
    assert Proxies().of(URL(url)) is not None


@pytest.mark.parametrize("url", ["http://service.invalid", "https://service.invalid"])
@pytest.mark.parametrize("way", ["--proxy", "ALL_PROXY"])
@pytest.mark.parametrize("trouble", ["refused", "407", "closed", "socks"])
async def test_error_at_a_proxy_names_it_and_what_set_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, url: str, way: str, trouble: str
) -> None:
    async def script(line: Line) -> None:
        head = await line.head()
        assert b"\r\nProxy-Authorization: Basic " in head
        if trouble == "407":
            await line.say(b"HTTP/1.1 407 Wants a password\r\nContent-Length: 0\r\n\r\n")
        elif trouble == "socks":
            await line.say(b"\x05\xffthis is no HTTP\r\n")

    if trouble in ("closed", "socks") and url.startswith("http:"):
        return  # nobody can tell whether it was the service that closed
    bench.write(bench.line(1, "one"))
    async with peering(script) as peer:
        origin = peer.origin
        if trouble == "refused":
            origin = "http://127.0.0.1:9"
        proxy = origin.replace("://", "://user:s3cret-word@")
        if way == "ALL_PROXY":
            monkeypatch.setenv("ALL_PROXY", proxy)
        given = {"proxy": proxy} if way == "--proxy" else {}
        assert (await bench.run(url, retries=0, **given)).failed == 1
    text = bench.read()[0]["iErr"]["message"]
    assert f"the proxy {origin} ({way})" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("command", ["check", "batchsvc"])
async def test_rehearsal_knows_no_proxy(bench: Bench, variable: str, command: str) -> None:
    bench.write(bench.line(1, "one"))
    words = [command, "-i", "in.jsonl", "--mock", "-q", "0"]
    result = await bench.call(*words, env={variable: "socks5://127.0.0.1:9"})
    assert result.code == 0, result.err


async def test_call_through_a_proxy_says_whose_it_is(bench: Bench, scripted: Scripting) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"contents": [{"message": {}}], "message_id": "m"})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as proxy:
        given = proxy.origin.replace("://", "://me:p%40ss@")
        assert (await bench.run("http://service.invalid", proxy=given)).done == 1
        [(_, path, headers, _)] = proxy.requests
    assert path == "/standard/all-tools"
    assert headers["proxy-authorization"] == "Basic bWU6cEBzcw=="
    assert headers["host"] == "service.invalid"


async def test_https_goes_through_a_tunnel_that_is_kept(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("service.invalid").configure_cert(context)

    async def service(line: Line) -> None:
        while True:
            await line.answer(await line.question())

    async def tunnel(line: Line) -> None:
        assert (await line.head()).startswith(b"CONNECT service.invalid:443 HTTP/1.1\r\n")
        port = int(peer.origin.rpartition(":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await line.say(b"HTTP/1.1 200 OK\r\n\r\n")

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                target.write(data)
            target.close()

        async with anyio.create_task_group() as group:
            group.start_soon(carry, line.reader, back)
            group.start_soon(carry, there, line.writer)

    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    async with peering(service, context) as peer, peering(tunnel) as proxy:
        summary = await bench.run("https://service.invalid", proxy=proxy.origin, goroutine=1)
    assert summary.done == 2, bench.read()
    assert peer.questions == ["one", "two"]
    assert proxy.connections == 1
    assert not any(b"roxy-" in head for head in peer.heads)
