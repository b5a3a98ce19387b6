"""Inputs and logs of any length, the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks import replies

PROMPT = (
    "Say what lies on shelf {n} and count the jars, please. "
    "请说明第{n}层放了什么, 并数一数罐子的数量。"
    "Leave out the labels that cannot be read. "
)
META = {"started": 1790000000.123, "finished": 1790000001.456}


def line(n: int, asks: int = 1, padding: str = "") -> dict[str, object]:
    """Return the n-th line of an input."""
    return {
        "id": f"q-{n:07d}",
        "asks": [
            {"id": f"a-{k}", "content": PROMPT.format(n=n + k) + padding} for k in range(asks)
        ],
        "extra": {"shelf": n % 97},
    }


def request(n: int) -> dict[str, object]:
    """Return the n-th line of a batch file."""
    messages = [{"role": "user", "content": PROMPT.format(n=n)}]
    return {
        "custom_id": f"q-{n:07d}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4", "messages": messages},
    }


def done(n: int) -> bytes:
    """Return the n-th line as a finished run leaves it, about 1 KB."""
    item = line(n)
    extra = item.pop("extra")
    item |= {"answers": [{**replies.REPLY, "spec_downloads": []}], "extra": extra, "meta": META}
    return orjson.dumps(item)


def write(path: Path, lines: Iterator[bytes]) -> Path:
    with path.open("wb", buffering=1 << 20) as file:
        for raw in lines:
            file.write(raw)
            file.write(b"\n")
    return path


def questions(path: Path, count: int, *, asks: int = 1, padding: int = 0) -> Path:
    """Write an input of `count` lines, each ask `padding` bytes longer than usual."""
    filler = "jar " * (padding // 4)
    return write(path, (orjson.dumps(line(n, asks, filler)) for n in range(count)))


def requests(path: Path, count: int) -> Path:
    """Write the same questions as an OpenAI batch file."""
    return write(path, (orjson.dumps(request(n)) for n in range(count)))


def prompts(path: Path, count: int) -> Path:
    """Write the same questions for batchllm, which wants one `input` a line."""
    return write(path, (orjson.dumps({"input": PROMPT.format(n=n)}) for n in range(count)))


def answered(path: Path, count: int, *, shuffled: bool = False) -> Path:
    """Write a log in which every line is done: in input order, or as it came."""
    order = list(range(count))
    if shuffled:
        random.Random(4).shuffle(order)
    return write(path, (done(n) for n in order))


def linked(path: Path, files: list[Path]) -> Path:
    """Write an input with one line for each attachment."""
    asks = ([{"content": "What is this?", "files": [str(file)]}] for file in files)
    return write(path, (orjson.dumps({"id": n, "asks": ask}) for n, ask in enumerate(asks)))


def zeros(path: Path, size: int) -> Path:
    """Write a file of zeros that lies in the page cache, not in holes."""
    block = bytes(1 << 20)
    with path.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
    return path
