"""`gpt4batch convert` between lines of asks and OpenAI's batch files: both ask the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import caller
from completions import completions

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Said
    from conftest import Bench

LAKE = Path(__file__).resolve().parent.parent / "examples/img/lake.png"


@pytest.fixture
def convert(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Return how to convert lines, which stand in `in.jsonl`."""
    monkeypatch.chdir(tmp_path)
    call = caller(capsysbinary)

    def made(*lines: bytes | dict[str, Any], words: tuple[str, ...] = ()) -> Said:
        texts = [line if isinstance(line, bytes) else rawjson.dumps(line) for line in lines]
        Path("in.jsonl").write_bytes(b"".join(text + b"\n" for text in texts))
        return call("convert", "in.jsonl", *words)

    return made


def chat(*messages: Any, custom_id: str = "1", **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
    return {"custom_id": custom_id, "body": {"messages": said, **fields}}


def parts(*more: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "what?"}, *more]}


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


async def test_batch_file_and_its_asks_are_sent_as_the_same_bodies(bench: Bench) -> None:
    shutil.copy(LAKE, bench.folder / "lake.png")
    bench.write(
        {"id": "a", "asks": [{"content": "one"}], "system": "brief", "params": {"seed": 2**70}},
        {"id": "b", "asks": [{"content": "two", "images": ["lake.png"], "params": {"n": 1}}]},
        {"asks": [{"content": "three"}], "model": "other"},
    )
    async with completions() as service:
        for name in ("in.jsonl", "batch.jsonl"):
            words = ["-i", name, "-o", f"{name}.out", "-m", "m", "-u", f"{service.origin}/v1"]
            assert (
                await bench.call("convert", "in.jsonl", "-o", "batch.jsonl", "--force")
            ).code == 0
            assert (await bench.call("batchsvc", *words, "-g", "1", "-q", "0")).code == 0
    assert len(service.bodies) == 6
    assert service.bodies[:3] == service.bodies[3:]
    assert service.bodies[3]["seed"] == 2**70
    ids = [row["custom_id"] for row in bench.read("batch.jsonl.out")]
    assert ids == ["a", "b", "line-3"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"7","asks":[{"content":"x"}],"model":"m","system":"s","params":{"t":0.10,"u":1e400}}',
        b'{"id":"8","asks":[{"content":"x","images":["https://example.com/a.png"]}]}',
    ],
)
def test_line_comes_back_as_it_was(convert: Callable[..., Said], line: bytes) -> None:
    there = convert(line)
    assert there.code == 0, there.err
    assert convert(there.out.rstrip()).out == line + b"\n"


def test_params_of_an_ask_come_back_as_those_of_its_line(convert: Callable[..., Said]) -> None:
    there = convert({"id": "9", "asks": [{"content": "x", "params": {"n": 2}}], "params": {"n": 1}})
    assert (
        convert(there.out.rstrip()).out
        == rawjson.dumps({"id": "9", "asks": [{"content": "x"}], "params": {"n": 2}}) + b"\n"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"asks": [{"content": "a"}, {"content": "b"}]}, "a conversation of 2 asks"),
        ({"asks": [{"content": "a"}], "extra": {"k": 1}}, "extra would be lost"),
        ({"asks": [{"content": "a"}], "gizmo_id": "g-1"}, "gizmo_id would be lost"),
        ({"asks": [{"content": "a"}], "answers": [{"k": 1}]}, "answers would be lost"),
        ({"asks": [{"content": "a"}], "params": {"messages": []}}, "params must not have messages"),
        ({"asks": [{"content": "a", "files": ["gone.txt"]}]}, "gone.txt"),
        (chat("a", {"role": "assistant", "content": "b"}, "c"), "body.messages has no place"),
        (chat({"role": "developer", "content": "b"}, "c"), "body.messages[0].role has no place"),
        (chat({"role": "user", "content": "b", "name": "n"}), "body.messages[0].name has no place"),
        (chat(parts(picture("data:,", detail="low"))), "image_url.detail has no place"),
        (chat(parts({"type": "input_audio"})), "body.messages[0].content has no place"),
        (chat("a", stream=False), "body.stream has no place"),
        ({"custom_id": "1", "body": {"messages": 5}}, "body.messages has no place"),
        ({"custom_id": "1", "url": "/v1/embeddings", "body": {}}, "only chat completions"),
        ({"custom_id": "1", "url": "/v1/x", "body": []}, "body must be an object"),
        ({"body": {}, "custom_id": ""}, "custom_id is missing"),
        (chat("a") | {"priority": 1}, "priority would be lost"),
    ],
)
def test_line_that_has_no_equal_is_refused_with_its_reason(
    convert: Callable[..., Said], line: dict[str, Any], reason: str
) -> None:
    said = convert(line, words=("-o", "out.jsonl"))
    assert said.code == 2, said.err
    assert "in.jsonl:1: " in said.err
    assert reason in said.err
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    "line", [{"asks": [{"content": "a"}], "gizmo_id": "g-1", "extra": 1}, chat("a") | {"extra": 1}]
)
def test_what_is_never_sent_is_left_out_where_that_is_wanted(
    convert: Callable[..., Said], line: dict[str, Any]
) -> None:
    said = convert(line, words=("--lossy",))
    assert said.code == 0
    assert b"extra" not in said.out
    assert "extra left out (1 times)" in said.err


def test_lines_of_two_kinds_and_equal_ids_are_refused(convert: Callable[..., Said]) -> None:
    said = convert({"id": 1, "asks": [{"content": "a"}]}, {"id": "1", "asks": [{"content": "b"}]})
    assert said.code == 2
    assert "the id '1' is that of in.jsonl:1" in said.err
    assert convert(chat("a"), {"asks": [{"content": "a"}]}).code == 2
    assert convert({"asks": [{"content": "a"}]}, chat("a")).code == 2
