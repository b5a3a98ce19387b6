from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Scripting = Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Any]

EMAIL, PASSWORD = "mock@example.com", "mock-password"
NOT_RUN = {"code": 400, "message": "resource is not ready"}


def account(origin: str) -> dict[str, str]:
    return {
        "GPT4BATCH_EMAIL": EMAIL,
        "GPT4BATCH_PASSWORD": PASSWORD,
        "GPT4BATCH_TOKEN_URL": f"{origin}/console/access_token",
    }


async def test_refused_token_is_renewed_once_for_all_workers_and_stored(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(60)])
    async with serving(latency=0.05) as service:
        words = bench.batchsvc(service.origin, "--token", "expired-token", "-g", "20")
        result = await bench.call(*words, env=account(service.origin))
        assert result.code == 0, result.err
        assert service.stats.tokens_issued == 1
        assert service.stats.answered_twice == 0
        assert service.stats.chats_answered == 60
        refused = service.stats.calls["/standard/all-tools", 401]
    assert 1 <= refused <= 20
    store = bench.folder / "user" / ".gpt4api-sk.pub"
    token = rawjson.loads(store.read_bytes())["access_token"]
    assert token.startswith("mock-")
    assert store.stat().st_mode & 0o777 == 0o600
    for text in (token, "expired-token", PASSWORD):
        assert text not in result.err
        assert text not in (bench.folder / "out.jsonl").read_text()


async def test_renewal_is_no_attempt_of_the_call(
    bench: Bench, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(10)])
    async with serving(token_calls=5) as service:
        for name, value in account(service.origin).items():
            monkeypatch.setenv(name, value)
        summary = await bench.run(service.origin, retries=0, goroutine=3)
    assert (summary.done, summary.failed, summary.retries) == (10, 0, 0)
    assert all(line["meta"]["asks"][0]["attempts"] == 1 for line in bench.read())


async def test_token_refused_again_within_five_minutes_stops_the_run(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(20)])
    async with serving(token_calls=4) as service:
        words = bench.batchsvc(service.origin, "-g", "1")
        result = await bench.call(*words, env=account(service.origin))
        assert service.stats.tokens_issued == 1
        assert service.stats.calls["/standard/all-tools", 401] == 2
    assert result.code == 3
    assert "5 minutes" in result.err
    assert PASSWORD not in result.err
    assert [line.get("iErr") for line in bench.read()] == [None] * 8 + [NOT_RUN] * 12


async def test_refused_token_without_credentials_stops_the_run_and_says_what_to_do(
    bench: Bench, service: MockService
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(20)])
    words = bench.batchsvc(service.origin, "--token", "expired-token", "-g", "4")
    result = await bench.call(*words)
    assert result.code == 3
    for words_said in ("401", "gpt4batch authsvc -e", "-f"):
        assert words_said in result.err
    assert "expired-token" not in result.err
    assert "Traceback" not in result.err
    assert service.stats.calls["/standard/all-tools", 401] <= 4
    assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 20


@pytest.mark.parametrize("wrong", ["password", "address"])
async def test_renewal_that_fails_stops_the_run(
    bench: Bench, service: MockService, wrong: str
) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    env = account(service.origin)
    if wrong == "password":
        env["GPT4BATCH_PASSWORD"] = "not-this-one"
    else:
        env["GPT4BATCH_TOKEN_URL"] = "http://127.0.0.1:9/token"
    words = bench.batchsvc(service.origin, "--token", "expired-token", "--retries", "0")
    result = await bench.call(*words, env=env)
    assert result.code == 3, result.err
    assert ("wrong email or password" if wrong == "password" else "127.0.0.1:9") in result.err
    assert "not-this-one" not in result.err
    assert "Traceback" not in result.err
    assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 2


async def test_token_service_that_names_the_old_token_has_it_hidden(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/console/access_token":
            return web.json_response({"message": "expired-token is over"}, status=400)
        return web.json_response({}, status=401)

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        words = bench.batchsvc(server.origin, "--token", "expired-token", "--summary", "s.json")
        result = await bench.call(*words, env=account(server.origin))
    assert result.code == 3, result.err
    assert "*** is over" in result.err
    for said in (result.err, (bench.folder / "s.json").read_text()):
        assert "expired-token" not in said


async def test_new_token_that_no_header_can_carry_stops_the_run(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/console/access_token":
            return web.json_response({"access_token": "one\ntwo"})
        return web.json_response({}, status=401)

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        result = await bench.call(*bench.batchsvc(server.origin), env=account(server.origin))
    assert result.code == 3, result.err
    assert "gave is not valid: it contains line breaks" in result.err
    assert not (bench.folder / "user" / ".gpt4api-sk.pub").exists()


async def test_half_way_line_keeps_its_answers_when_the_token_runs_out(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "one", "two", "three"))
    async with serving(token_calls=2) as service:
        first = await bench.run(service.origin)
        assert (first.exit_code, first.not_run) == (3, 1)
        [line] = bench.read()
        assert len(line["answers"]) == 2
        assert line["iErr"] == NOT_RUN
        async with httpx.AsyncClient(trust_env=False) as http:
            url = account(service.origin)["GPT4BATCH_TOKEN_URL"]
            reply = await http.post(url, json={"email": EMAIL, "password": PASSWORD})
        fresh = reply.json()["access_token"]
        second = await bench.run(service.origin, token=fresh, fix=True)
        assert (second.done, second.chats) == (1, 1)
    assert service.stats.answered_twice == 0
