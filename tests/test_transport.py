from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from conftest import Bench

    Scripting = Callable[..., Any]
    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ANSWER = {"contents": [{"message": {"id": "m"}}], "conversation_id": "c", "message_id": "m"}
ELSEWHERE = "http://service.invalid"


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response(ANSWER)


@pytest.mark.parametrize("way", ["flag", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "no scheme"])
async def test_calls_go_through_the_proxy(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    bench.write(bench.line(1, "one"))
    async with scripted(answer) as proxy:
        if way == "no scheme":
            monkeypatch.setenv("http_proxy", proxy.origin.removeprefix("http://"))
        elif way != "flag":
            monkeypatch.setenv(way, proxy.origin)
        given = {"proxy": proxy.origin} if way == "flag" else {}
        summary = await bench.run(ELSEWHERE, **given)
        assert summary.done == 1
        [(method, path, headers, _)] = proxy.requests
    assert (method, path) == ("POST", "/standard/all-tools")
    assert headers["host"] == "service.invalid"


async def test_host_named_in_no_proxy_is_called_directly(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "one"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    async with scripted(answer) as server:
        assert (await bench.run(server.origin)).done == 1


async def test_proxy_of_no_use_fails_only_the_download_that_needs_it(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(ANSWER | {"downloads": ["https://files.invalid/a.png"]})

    bench.write(bench.line(1, "one"))
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cret-word@127.0.0.1:99999")
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, retries=0)
    assert (summary.done, summary.failed) == (0, 1)
    [line] = bench.read()
    assert line["iErr"]["stage"] == "download"
    assert "HTTPS_PROXY 'http://127.0.0.1:99999': not the address" in line["iErr"]["message"]
    assert line["answers"]


async def test_password_of_a_proxy_is_not_shown(bench: Bench) -> None:
    bench.write(bench.line(1, "one"))
    words = ["--proxy", "http://user:s3cret-word@127.0.0.1:9", "--retries", "0"]
    result = await bench.call(*bench.batchsvc(ELSEWHERE, *words))
    assert result.code == 1
    assert "s3cret-word" not in result.err
    assert "s3cret-word" not in (bench.folder / "out.jsonl").read_text()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path


async def test_authority_of_ssl_cert_file_is_trusted(
    bench: Bench, scripted: Scripting, authority: tuple[trustme.CA, Path]
) -> None:
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority[0].issue_cert("127.0.0.1").configure_cert(context)
    bench.write(bench.line(1, "one"))
    async with scripted(answer, context) as server:
        assert server.origin.startswith("https://")
        words = bench.batchsvc(server.origin, "--retries", "0")
        refused = await bench.call(*words)
        assert refused.code == 1
        assert "certificate" in bench.read()[0]["iErr"]["message"]
        assert server.requests == []
        trusted = await bench.call(*words, "-f", env={"SSL_CERT_FILE": str(authority[1])})
        assert trusted.code == 0, trusted.err
