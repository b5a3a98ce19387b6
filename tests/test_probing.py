"""What may be an empty account or a passing limit is found out by one call at a time."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Scripting = Callable[[Handler], Any]

NOT_RUN = {"code": 400, "message": "resource is not ready"}
UNCLEAR = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}


class Account:
    """A service that refuses so many chats, then answers."""

    def __init__(self, refusals: int, status: int = 429, body: Any = UNCLEAR) -> None:
        self.left = refusals
        self.status = status
        self.body = body
        self.headers: dict[str, str] = {}
        self.in_flight = self.most = self.answered = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        body = rawjson.loads(await request.read())
        self.in_flight -= 1
        if self.left:
            self.left -= 1
            return web.json_response(self.body, status=self.status, headers=self.headers)
        self.answered += 1
        content = {"error": None, "message": {"content": {"parts": [body["message"]]}}}
        reply = {"message_id": "m", "conversation_id": "c", "contents": [content]}
        return web.json_response(reply)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (429, {}, UNCLEAR),
        (402, {"Retry-After": "1"}, {}),
        (403, {}, {"error": {"message": "token quota is not enough"}}),
        (200, {}, {"errcode": 7, "errmsg": "本账户额度已用完"}),
    ],
)
async def test_unclear_refusal_of_many_lines_is_probed_once_and_costs_no_attempt(
    bench: Bench, scripted: Scripting, status: int, headers: dict[str, str], body: Any
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(12)])
    account = Account(6, status, body)
    account.headers = headers
    async with scripted(account) as server:
        summary = await bench.run(server.origin, retries=0, goroutine=6, patience=0.2)
        calls = len(server.requests)
    assert (summary.done, summary.exit_code, summary.retries) == (12, 0, 0)
    assert (calls, summary.chats) == (18, 18)
    assert all(line["meta"]["asks"][0]["attempts"] == 1 for line in bench.read())


async def test_calls_are_held_until_a_probe_succeeds_and_the_run_stops_after_the_patience(
    bench: Bench, scripted: Scripting
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(30)])
    async with scripted(Account(1000)) as server:
        words = bench.batchsvc(server.origin, "--patience", "0.3", "-g", "4")
        result = await bench.call(*words)
        calls = len(server.requests)
    assert result.code == 3, result.err
    assert calls == 5  # those in flight at the first refusal, and one probe
    assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 30
    for said in ("All calls are held", "--patience", "You exceeded your current quota", "with -f"):
        assert said in result.err
    assert "Traceback" not in result.err


async def test_half_way_line_keeps_its_answers_when_the_patience_ends(
    bench: Bench, scripted: Scripting
) -> None:
    account = Account(0)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        account.left = account.answered
        return await account(request)

    bench.write(bench.line(1, "one", "two"))
    async with scripted(handler) as server:
        first = await bench.run(server.origin, patience=0.1)
        account.answered = 0
        second = await bench.run(server.origin, patience=0.1, fix=True)
        asked = [body["message"] for body in server.bodies()]
    assert (first.exit_code, second.exit_code) == (3, 0)
    assert asked == ["one", "two", "two", "two"]


async def test_interrupt_ends_the_probing_at_once(bench: Bench, scripted: Scripting) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(5)])
    async with scripted(Account(1000)) as server:
        async with bench.start(*bench.batchsvc(server.origin)) as running:
            await running.says("All calls are held")
            running.process.send_signal(signal.SIGINT)
            result = await running.end()
        assert len(server.requests) <= 5
    assert result.code == 130, result.err
    assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 5


async def test_probes_are_calls_of_the_budget(bench: Bench, scripted: Scripting) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    async with scripted(Account(1000)) as server:
        summary = await bench.run(server.origin, goroutine=1, patience=0.2, max_calls=1)
        assert len(server.requests) == 1
    assert summary.exit_code == 3
    assert "--max-calls" in summary.stopped


async def test_account_that_is_named_empty_stops_the_run_at_once(
    bench: Bench, scripted: Scripting
) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    body = {"error": {"code": "insufficient_user_quota", "message": "user quota is not enough"}}
    async with scripted(Account(1000, 403, body)) as server:
        summary = await bench.run(server.origin, goroutine=1)
        assert len(server.requests) == 1
    assert summary.exit_code == 3
    assert "user quota is not enough" in summary.stopped
    assert "top it up" in summary.stopped


async def test_upload_that_is_taken_does_not_end_the_probing_of_chats(
    bench: Bench, scripted: Scripting
) -> None:
    account = Account(1000)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/uploaded"):
            return web.json_response({"conversation_id": "c", "attachment": {"id": "x"}})
        return await account(request)

    (bench.folder / "a.txt").write_bytes(b"a")
    lines = [bench.line(number, f"ask {number}") for number in range(4)]
    for line in lines[1:]:
        line["asks"][0]["files"] = ["a.txt"]
    bench.write(*lines)
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, goroutine=1, patience=0.2)
        chats = [path for _, path, *_ in server.requests if path.endswith("/all-tools")]
    assert (summary.exit_code, len(chats)) == (3, 2)
