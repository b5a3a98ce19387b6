from __future__ import annotations

import os
import signal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpt4batch import jsonl
from gpt4batch.mock.assets import asset_bytes
from gpt4batch.mock.replies import answer_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Until = Callable[[Callable[[], Any]], Awaitable[None]]

NOT_RUN = {"code": 400, "message": "resource is not ready"}


def texts(line: Any) -> list[str]:
    """Return what the service said to each ask of a line."""
    return [
        answer["contents"][-1]["message"]["content"]["parts"][0] for answer in line["answers"] or ()
    ]


async def test_command_lines_of_the_service_run_and_resume(
    bench: Bench, service: MockService
) -> None:
    store = bench.folder / "home" / ".gpt4api-sk.pub"
    store.write_bytes(jsonl.dumps({"access_token": service.token, "expired_at": 9999999999}))
    bench.write(bench.line(1, "one"), bench.line(2, "two [[mock:400*1]]"), name="asks.jsonl")
    base = f"{service.origin}/standard"
    words = ["batchsvc", "-l", f"{base}/uploaded", "-u", f"{base}/all-tools"]
    words += ["-i", "asks.jsonl", "-o", "answers.jsonl", "-g", "8", "-m", "gpt-4"]

    first = await bench.call(*words)
    assert first.code == 1, first.err
    assert [bool(line["answers"]) for line in bench.read("answers.jsonl")] == [True, False]

    second = await bench.call(*words, "-f=true")
    assert second.code == 0, second.err
    lines = bench.read("answers.jsonl")
    assert [texts(line) for line in lines] == [
        [answer_text("one")],
        [answer_text("two [[mock:400*1]]")],
    ]
    assert all("iErr" not in line for line in lines)
    assert service.stats.chats_answered == 2
    assert service.stats.answered_twice == 0
    assert first.out == second.out == ""
