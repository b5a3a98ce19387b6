"""Runs of chat completions that are killed inside conversations, and go on where they were."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from completions import asked, completion, completions, events, streamed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    Until = Callable[[Callable[[], Any]], Awaitable[None]]

LINES, ASKS, EACH = 6, 3, 4


@pytest.mark.parametrize("stream", [False, True])
async def test_killed_run_goes_on_inside_its_conversations_and_asks_nothing_twice(
    bench: Bench, until: Until, stream: bool
) -> None:
    left, waiting, answered = 0, 0, Counter[str]()
    bench.write(
        *[
            bench.line(n, *[f"{n}.{k}" for k in range(ASKS)], system=f"s{n}", params={"seed": n})
            for n in range(LINES)
        ]
    )

    async def answer(request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal left, waiting
        text = asked(body)
        if left <= 0:
            waiting += 1
            await service.hang.wait()
            return web.Response(status=503)
        left -= 1
        answered[text] += 1
        if stream:
            return await streamed(request, events(f"re: {text}"))
        return web.json_response(completion(f"re: {text}"))

    def all_wait() -> bool:
        """Return whether all that may be answered is, and all lines of the run wait for more."""
        whole = sum(answered[f"{n}.{ASKS - 1}"] for n in range(LINES))
        out = bench.folder / "out.jsonl"
        kept = out.read_bytes() if out.exists() else b""
        written = all(f"re: {text}".encode() in kept for text in answered)
        return left == 0 and written and waiting == min(3, LINES - whole)

    async with completions() as service:
        service.ways = {f"{n}.{k}": answer for n in range(LINES) for k in range(ASKS)}
        words = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-g", "3", "-m", "m", "-f"]
        words += ["-u", f"{service.origin}/v1", f"--stream={stream}", "--fsync", "never"]
        while answered.total() + EACH < LINES * ASKS:
            left, waiting = EACH, 0
            async with bench.start(*words) as running:
                await until(all_wait)
                running.process.kill()
                await running.process.wait()
        left = LINES * ASKS
        assert (await bench.call(*words)).code == 0
    assert set(answered.values()) == {1}
    assert answered.total() == LINES * ASKS
    for n, record in enumerate(bench.read()):
        said = [answer["choices"][0]["message"]["content"] for answer in record["answers"]]
        assert said == [f"re: {n}.{k}" for k in range(ASKS)]
    for body in service.bodies:
        n, place = map(int, asked(body).split("."))
        turns = [message["content"] for message in body["messages"][1:]]
        wanted = [text for k in range(place) for text in (f"{n}.{k}", f"re: {n}.{k}")]
        assert turns == [*wanted, asked(body)]
        assert (body["messages"][0]["content"], body["seed"]) == (f"s{n}", n)


async def test_output_of_one_dialect_is_no_conversation_of_the_other(bench: Bench) -> None:
    bench.write(bench.line(1, "a", "b"))
    async with completions() as service:
        words = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-m", "m", "-u", f"{service.origin}/v1"]
        assert (await bench.call(*words, "--max-calls", "1")).code == 3
        wrong = ["-u", f"{service.origin}/standard/all-tools", "--token", "t"]
        again = await bench.call("batchsvc", "-i", "in.jsonl", "-q", "0", "-f", *wrong)
        assert again.code == 1
        assert "does not say which conversation" in bench.read()[0]["iErr"]["message"]
        assert (await bench.call(*words, "-f")).code == 0
    assert service.counts == {"a": 1, "b": 1}
