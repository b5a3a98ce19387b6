"""Tokens and money of a run: counted, limited, resumed; over a service that tells its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gpt4batch.lines import rawjson
from gpt4batch.lines.record import usage_noted
from gpt4batch.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Scripting = Callable[[Handler], Any]

USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def telling(usage: Any = USAGE, finish: str = "stop") -> Handler:
    """Answer every ask, and say what it took."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        message = {"role": "assistant", "content": f"re: {body['messages'][-1]['content']}"}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        reply = {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice]}
        return web.json_response(reply | ({"usage": usage} if usage else {}))

    return handler


def words(bench: Bench, origin: str, *more: str) -> list[str]:
    given = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-g", "4", "-m", "m", "-u", f"{origin}/v1"]
    return [*given, "--token", "key-12345", "--summary", "sum.json", *more]


def summary(bench: Bench) -> Any:
    return rawjson.loads((bench.folder / "sum.json").read_bytes())


def write(bench: Bench, count: int) -> None:
    bench.write(*(bench.line(number, f"question {number}") for number in range(count)))


async def test_tokens_are_counted_for_the_run_and_in_all(bench: Bench, scripted: Scripting) -> None:
    write(bench, 4)
    usage = USAGE | {
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    async with scripted(telling(usage)) as server:
        price = ("--price", "in=1,cached=0.5,out=2")
        first = await bench.call(*words(bench, server.origin, "--limit", "3", *price))
        assert first.code == 0, first.err
        assert "tokens: 300 + 150 (in + out), 120 cached, 60 reasoning" in first.err
        assert told(summary(bench)["tokens"]) == (300, 120, 150, 60)
        second = await bench.call(*words(bench, server.origin, "-f", *price))
    assert second.code == 0, second.err
    found = summary(bench)
    assert told(found["tokens"]) == (100, 40, 50, 20)
    assert told(found["tokens_in_all"]) == (400, 160, 200, 80)
    assert set(found["models"]) == {"m-1"}
    assert found["cost"] == round((60 + 40 * 0.5 + 100) / 1e6, 6)
    assert found["cost_in_all"] == round(4 * (60 + 40 * 0.5 + 100) / 1e6, 6)


async def test_tokens_of_lines_that_are_left_half_way_are_counted_once(
    bench: Bench, scripted: Scripting
) -> None:
    bench.write(*[bench.line(number, "a", "b") for number in range(3)])
    async with scripted(telling()) as server:
        await bench.call(*words(bench, server.origin, "-g", "3", "--max-calls", "4"))
        found = summary(bench)
        assert (found["chats"], told(found["tokens"])[0]) == (4, 400)
        await bench.call(*words(bench, server.origin, "-f"))
    found = summary(bench)
    assert (told(found["tokens"])[0], told(found["tokens_in_all"])[0]) == (200, 600)


def told(tokens: dict[str, int]) -> tuple[int, ...]:
    return tuple(tokens[name] for name in ("input", "cached", "output", "reasoning"))


async def test_budget_of_tokens_stops_the_run_and_is_overrun_by_one_call_at_most(
    bench: Bench, scripted: Scripting
) -> None:
    write(bench, 40)
    async with scripted(telling()) as server:
        first = await bench.call(*words(bench, server.origin, "--max-tokens", "1000"))
        assert first.code == 3
        assert "--max-tokens 1000" in first.err
        assert 1000 <= sum(summary(bench)["tokens"][name] for name in ("input", "output")) <= 1150
        second = await bench.call(*words(bench, server.origin, "-f"))
        assert second.code == 0
        assert len(server.bodies()) == 40


async def test_budget_of_money_stops_the_run(bench: Bench, scripted: Scripting) -> None:
    write(bench, 40)
    async with scripted(telling()) as server:
        more = ("--max-cost", "0.0011", "--price", "in=1,out=2")
        result = await bench.call(*words(bench, server.origin, *more))
    assert result.code == 3
    assert "--max-cost 0.0011" in result.err
    assert 0.0011 <= summary(bench)["cost"] <= 0.0011 + 0.0002


async def test_budget_that_cannot_be_kept_is_told_after_the_first_call(
    bench: Bench, scripted: Scripting
) -> None:
    write(bench, 8)
    async with scripted(telling(None)) as server:
        result = await bench.call(*words(bench, server.origin, "--max-tokens", "1000"))
        assert result.code == 3
        assert len(server.bodies()) == 1
    assert "--max-tokens cannot be kept" in result.err
    assert sum(bool(line["answers"]) for line in bench.read()) == 1


async def test_money_without_a_price_is_refused(bench: Bench, scripted: Scripting) -> None:
    write(bench, 1)
    async with scripted(telling()) as server:
        given = words(bench, server.origin, "--max-cost", "1")
        result = await bench.call(*given)
        assert (result.code, server.bodies()) == (2, [])
        assert "--price in=" in result.err
        assert (await bench.call("check", *given[1:])).code == 2


async def test_answers_that_were_cut_off_are_counted(bench: Bench, scripted: Scripting) -> None:
    write(bench, 2)
    async with scripted(telling(finish="length")) as server:
        result = await bench.call(*words(bench, server.origin))
    assert result.code == 0
    assert summary(bench)["finishes"] == {"length": 2}
    assert "answers that ended early: length 2" in result.err


async def test_service_that_tells_no_tokens_costs_no_word(
    bench: Bench, scripted: Scripting
) -> None:
    write(bench, 2)
    async with scripted(telling(None)) as server:
        result = await bench.call(*words(bench, server.origin))
    assert result.code == 0
    assert "token" not in result.err
    assert summary(bench)["tokens"] == {}
    assert "tokens" not in bench.read()[0]["meta"]["asks"][0]


async def test_check_says_what_a_run_may_take(bench: Bench, scripted: Scripting) -> None:
    bench.write(*(bench.line(number, "word " * 400) for number in range(10)))
    async with scripted(telling()) as server:
        given = words(bench, server.origin, "--price", "in=1,out=2")
        before = await bench.call("check", *given[1:], "--json")
        plan = rawjson.loads(before.out.encode())["plan"]
        assert plan["tokens_from"] == "assumed"
        assert 2500 <= plan["tokens_in"] <= 10000
        assert (await bench.call(*given, "--limit", "5")).code == 0
        after = await bench.call("check", *given[1:], "-f", "--json")
        assert "tokens (in + out)" in (await bench.call("check", *given[1:], "-f")).out
    plan = rawjson.loads(after.out.encode())["plan"]
    assert (plan["tokens_from"], plan["tokens_in"], plan["tokens_out"]) == ("output", 500, 250)
    assert plan["cost"] == round((500 + 2 * 250) / 1e6, 6)


async def test_reason_of_a_stop_is_told_once(bench: Bench, service: MockService) -> None:
    bench.write(*[bench.line(n, "question") for n in range(4)])
    result = await bench.call(*bench.batchsvc(service.origin, "--max-calls", "2", "-q", "0"))
    assert result.code == 3
    assert result.err.count("--max-calls 2") - result.err.count("batchsvc") == 1
    assert "stopped: see above" in result.err
    words = ["--max-calls", "1", "-q", "0", "--log-file", "log.txt", "-f"]
    result = await bench.call(*bench.batchsvc(service.origin, *words))
    assert "stopped: " in result.err
    assert "see above" not in result.err


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": 20}, (0, 20)),
        ({"prompt_tokens": "12", "completion_tokens": 3}, (12, 3)),
        ({"prompt_tokens": 5.0, "completion_tokens": None, "total_tokens": 9}, (5, 0)),
        ({"input_tokens": 7, "output_tokens": 2}, (7, 2)),
    ],
)
def test_tokens_are_read_however_they_are_told(usage: Any, tokens: tuple[int, int]) -> None:
    found = usage_of(usage)
    assert found is not None
    assert (found.input, found.output) == tokens


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "12",
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1e30},
        {"prompt_tokens": "9" * 5000},
        {"completion_tokens": True},
        {"total_tokens": float("inf")},
    ],
)
def test_usage_that_tells_nothing_is_none(usage: Any) -> None:
    assert usage_of(usage) is None


def test_empty_counts_beside_those_that_are_told_are_passed_over() -> None:
    told = {"prompt_tokens": 100, "completion_tokens": 10, "input_tokens": 0, "output_tokens": 0}
    found = usage_of(told)
    assert found is not None
    assert (found.input, found.output) == (100, 10)


async def test_refusal_that_is_not_quite_json_breaks_no_row(
    bench: Bench, scripted: Scripting
) -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        body = b'{"error":{"message":"no \xff","x":NaN}}<!-- proxy -->'
        return web.Response(status=400, body=body, content_type="application/json")

    asked = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    bench.write(b"# exported", *({"custom_id": name, "body": asked} for name in "ab"))
    async with scripted(refuse) as server:
        given = words(bench, server.origin, "--skip-bad-lines")
        result = await bench.call(*given)
    assert result.code == 1, result.err
    rows = bench.read()
    assert [row["custom_id"] for row in rows[1:]] == ["a", "b"]
    assert all(row["response"]["status_code"] == 400 for row in rows[1:])


def test_tokens_of_a_row_that_was_read_back_are_counted() -> None:
    record = b'{"id":1,"meta":{"key":"ab","asks":[{"tokens":[1,0,2,0]}]}}'
    assert usage_noted(record) == (1, 0, 2, 0)


async def test_budget_counts_what_a_response_took_that_is_no_answer(
    bench: Bench, scripted: Scripting
) -> None:
    async def fail(_request: web.BaseRequest) -> web.StreamResponse:
        usage = {"input_tokens": 100, "output_tokens": 50}
        return web.json_response({"object": "response", "status": "failed", "usage": usage})

    asked = {"model": "m", "input": "a"}
    rows = [{"custom_id": f"r-{n}", "url": "/v1/responses", "body": asked} for n in range(20)]
    bench.write(*rows)
    async with scripted(fail) as server:
        result = await bench.call(*words(bench, server.origin, "-g", "1", "--max-tokens", "300"))
    assert result.code == 3, result.err
    assert told(summary(bench)["tokens"])[0] <= 300
