"""A token that is refused: why is told, and what passes does not end the run."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import web

from gpt4batch.lines import rawjson
from gpt4batch.service.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Scripting = Callable[[Handler], Any]

TOKEN, PASSWORD = "sk-Ab/cd+ef.gh_ij-kl==", "pass-wörd/1"
NOT_RUN = {"code": 400, "message": "resource is not ready"}


class Service:
    """Accept one token; issue it after so many failures."""

    def __init__(self, good: str = TOKEN) -> None:
        self.good = good
        self.failures: list[web.StreamResponse | None] = []
        self.fetched = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        if request.path == "/console/access_token":
            self.fetched += 1
            if not self.failures:
                return web.json_response({"access_token": self.good})
            failure = self.failures.pop(0)
            if failure is None and request.transport is not None:
                request.transport.abort()
            return failure or web.Response()
        if request.headers["Authorization"] != f"Bearer {self.good}":
            return web.json_response({"detail": "token's quota used up"}, status=401)
        content = {"error": None, "message": {"content": {"parts": [body["message"]]}}}
        reply = {"message_id": "m", "conversation_id": "c", "contents": [content]}
        return web.json_response(reply)


def account(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("GPT4BATCH_EMAIL", "me@example.com")
    monkeypatch.setenv("GPT4BATCH_PASSWORD", PASSWORD)
    monkeypatch.setenv("GPT4BATCH_TOKEN_URL", f"{origin}/console/access_token")


async def test_reason_of_a_401_is_told(bench: Bench, scripted: Scripting) -> None:
    bench.write(bench.line(1, "one"))
    async with scripted(Service()) as server:
        summary = await bench.run(server.origin)
    assert summary.exit_code == 3
    for said in ("401", "token's quota used up", "authsvc"):
        assert said in summary.stopped


async def test_renewal_that_fails_in_passing_is_tried_again(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(5)])
    service = Service()
    service.failures = [web.Response(status=502), None]
    async with scripted(service) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin, goroutine=5)
    assert (summary.done, summary.exit_code, service.fetched) == (5, 0, 3)
    assert all(line["meta"]["asks"][0]["attempts"] == 1 for line in bench.read())


async def test_first_cause_of_a_renewal_that_keeps_failing_is_told(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "one"))
    service = Service()
    service.failures = [
        web.json_response({"error": "the database is away"}, status=503),
        web.json_response({"error": f"who is {PASSWORD}"}, status=502),
    ]
    async with scripted(service) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin, retries=1)
    assert (summary.exit_code, service.fetched) == (3, 2)
    assert "the database is away" in summary.stopped
    assert "check the email" not in summary.stopped
    assert PASSWORD not in summary.stopped


async def test_wrong_password_is_not_tried_again(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "one"))
    service = Service()
    service.failures = [web.json_response({"error": "wrong password"}, status=401)] * 3
    async with scripted(service) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin)
    assert (summary.exit_code, service.fetched) == (3, 1)
    assert "wrong password" in summary.stopped


@pytest.mark.parametrize("renews", [True, False])
@pytest.mark.parametrize("own_file", [True, False])
async def test_token_that_another_run_stored_meanwhile_is_used(
    bench: Bench,
    scripted: Scripting,
    monkeypatch: pytest.MonkeyPatch,
    renews: bool,
    own_file: bool,
) -> None:
    name = "token.json" if own_file else "user/.gpt4api-sk.pub"
    path = bench.folder / name
    path.write_text('{"access_token":"old-token"}')
    path.chmod(0o600)
    service = Service()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        path.write_bytes(rawjson.dumps({"access_token": TOKEN}))
        return await service(request)

    bench.write(*[bench.line(number, f"ask {number}") for number in range(3)])
    async with scripted(handler) as server:
        if renews:
            account(monkeypatch, server.origin)
        files = {"token_file": str(path)} if own_file else {}
        summary = await bench.run(server.origin, token="", goroutine=1, **files)
    assert (summary.done, summary.exit_code, service.fetched) == (3, 0, 0)


async def test_renewed_token_that_cannot_be_stored_is_used_all_the_same(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    monkeypatch.setenv("HOME", str(bench.folder / "nowhere"))
    async with scripted(Service()) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin)
    assert (summary.done, summary.exit_code) == (2, 0)


# Secrets


def spellings(secret: str) -> list[str]:
    raw = secret.encode()
    standard = b64encode(b"Bearer " + raw).decode()
    return [
        secret,
        secret.replace("/", "\\/"),
        "".join(f"\\u{ord(char):04x}" for char in secret),
        "".join(f"\\u{ord(char):04X}" if char in "/+" else char for char in secret),
        rawjson.dumps(rawjson.dumps(secret).decode()).decode(),
        quote(secret, safe=""),
        quote(quote(secret, safe=""), safe=""),
        "".join(f"&#{ord(char)};" for char in secret),
        b64encode(raw).decode(),
        urlsafe_b64encode(raw).decode().rstrip("="),
        standard,
        standard.replace("/", "\\/"),
        quote(standard, safe=""),
        b64encode(standard.encode()).decode(),
        b64encode(rawjson.dumps(secret)).decode(),
        raw.hex(),
        raw.hex().upper(),
    ]


@pytest.mark.parametrize("secret", [TOKEN, PASSWORD])
@pytest.mark.parametrize("place", range(len(spellings(TOKEN))))
def test_secret_is_hidden_in_every_spelling(secret: str, place: int) -> None:
    secrets = Secrets()
    secrets.add(TOKEN)
    secrets.add(PASSWORD)
    spelled = spellings(secret)[place]
    shown = secrets.scrub(f"the key {spelled} is bad, and {spelled} too")
    assert spelled not in shown
    assert shown.startswith("the key ") or shown == "***"
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    ["", "plain", "a\\nb \\u4e2d %20 &#65;", "x" * 5000, "QUJD" * 50, "\\u", "%zz", "&#99999999;"],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    secrets = Secrets()
    secrets.add(TOKEN)
    assert secrets.scrub(text) == text


async def test_token_in_another_spelling_is_in_no_file(bench: Bench, scripted: Scripting) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        echoed = " ".join(spellings(request.headers["Authorization"].removeprefix("Bearer ")))
        if request.path.endswith("gizmos"):
            return web.json_response({"contents": [], "echo": echoed})
        return web.json_response({"error": {"message": echoed}}, status=400)

    bench.write(bench.line(1, "one"), bench.line(2, "two", gizmo_id="g"))
    async with scripted(handler) as server:
        await bench.run(server.origin, token=TOKEN, url=f"{server.origin}/standard/all-tools")
    text = (bench.folder / "out.jsonl").read_text()
    assert "***" in text
    for spelled in spellings(TOKEN):
        assert spelled not in text


async def test_login_that_fails_is_not_tried_by_every_call(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(5)])
    service = Service()
    service.failures = [web.json_response({"error": "no"}, status=401) for _ in range(5)]
    async with scripted(service) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin, goroutine=5)
    assert (summary.exit_code, service.fetched) == (3, 1)


async def test_page_of_a_gateway_in_place_of_a_token_is_tried_again(
    bench: Bench, scripted: Scripting, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "one"))
    service = Service()
    service.failures = [web.Response(text="<html>restarting", content_type="text/html")]
    async with scripted(service) as server:
        account(monkeypatch, server.origin)
        summary = await bench.run(server.origin)
    assert (summary.done, service.fetched) == (1, 2)
