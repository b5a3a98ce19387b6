"""Chat completions: lines to bodies, bodies to answers, over real HTTP."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from completions import asked, completion, completions, once, saying

from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)


def url(origin: str) -> str:
    return f"{origin}/v1"


async def run(bench: Bench, origin: str, **settings: Any) -> Any:
    given = {"url": url(origin), "model": "m", "token": "", "retries": 0} | settings
    return await bench.run(origin, **given)


# Bodies


async def test_line_is_asked_with_system_params_and_its_whole_conversation(bench: Bench) -> None:
    params = b'{"temperature":0.70,"seed":12345678901234567890123,"stop":["a"]}'
    ask = b'{"content":"two","params":{"temperature": 1e0,"tools":[]}}'
    bench.write(
        b'{"id":1,"asks":[{"content":"one"},%s],"system":"be brief","params":%s}' % (ask, params)
    )
    async with completions() as service:
        summary = await run(bench, service.origin)
    assert (summary.done, summary.exit_code) == (1, 0)
    assert service.paths == ["/v1/chat/completions"] * 2
    system, one = {"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}
    assert [body["messages"] for body in service.bodies] == [
        [system, one],
        [
            system,
            one,
            {"role": "assistant", "content": "re: one"},
            {"role": "user", "content": "two"},
        ],
    ]
    assert b'"temperature":0.70,"seed":12345678901234567890123,"stop":["a"]' in service.raw[0]
    assert b'"temperature":1e0,"seed":12345678901234567890123' in service.raw[1]
    assert [body["model"] for body in service.bodies] == ["m", "m"]
    (record,) = bench.read()
    assert [answer["choices"][0]["message"]["content"] for answer in record["answers"]] == [
        "re: one",
        "re: two",
    ]
    assert record["system"] == "be brief"


async def test_models_of_lines_and_params_come_before_the_flag(bench: Bench) -> None:
    bench.write(
        bench.line(1, "a", model="own"),
        bench.line(2, "b"),
        bench.line(3, "c", params={"model": "third"}),
    )
    async with completions() as service:
        await run(bench, service.origin)
    assert {asked(body): body["model"] for body in service.bodies} == {
        "a": "own",
        "b": "m",
        "c": "third",
    }


async def test_reply_is_kept_byte_for_byte(bench: Bench) -> None:
    reply = (
        b'{"id":"x","n":1.10,"big":12345678901234567890123,"choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"hi","reasoning_content":"hm"},"finish_reason":"stop"}]}'
    )
    bench.write(bench.line(1, "a"))
    async with completions(a=saying(200, b"\n\n \n" + reply)) as service:
        await run(bench, service.origin)
    assert b'"answers":[' + reply + b"]" in (bench.folder / "out.jsonl").read_bytes()


async def test_assistant_is_sent_back_without_its_reasoning(bench: Bench) -> None:
    calls = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"reasoning_content": "hm", "tool_calls": calls, "annotations": []}
    bench.write(bench.line(1, "a", "b"))
    async with completions(a=saying(200, completion(None, message=message))) as service:
        await run(bench, service.origin)
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    assert service.bodies[1]["messages"][1] == said


async def test_pictures_and_files_are_parts_of_their_ask_in_every_call(bench: Bench) -> None:
    (bench.folder / "a.png").write_bytes(JPEG)  # the content tells, not the name
    (bench.folder / "b.pdf").write_bytes(b"%PDF-1")
    images = ["a.png", "https://h/x.png", "data:image/png;base64,AAAA"]
    asks = [{"content": "one", "images": images, "files": ["b.pdf"]}, {"content": "two"}]
    bench.write({"id": 1, "asks": asks})
    async with completions(one=once(), two=once()) as service:
        summary = await run(bench, service.origin)
    assert summary.done == 1
    parts = [
        {"type": "text", "text": "one"},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/jpeg;base64,{b64encode(JPEG).decode()}"},
        },
        {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {
            "type": "file",
            "file": {
                "filename": "b.pdf",
                "file_data": f"data:application/pdf;base64,{b64encode(b'%PDF-1').decode()}",
            },
        },
    ]
    for body in service.bodies:
        assert body["messages"][0] == {"role": "user", "content": parts}
    assert service.bodies[1]["messages"][2] == {"role": "user", "content": "two"}


async def test_picture_of_a_type_that_no_service_takes_fails_its_line_alone(bench: Bench) -> None:
    (bench.folder / "a.bmp").write_bytes(b"BM" + bytes(20))
    bench.write(
        {"id": 1, "asks": [{"content": "a", "images": ["a.bmp"]}]},
        bench.line(2, "b"),
    )
    async with completions() as service:
        summary = await run(bench, service.origin)
    assert (summary.done, summary.exit_code) == (1, 1)
    error = bench.read()[0]["iErr"]
    assert error["stage"] == "attachment"
    assert "a.bmp is BMP, and services take PNG, JPEG, GIF and WebP" in error["message"]
    assert [asked(body) for body in service.bodies] == ["b"]


# Keys of lines


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (
            b'{"id":"q-1","asks":[{"id":"a-1","content":"hello"}]}',
            "853b868c487e166a79438672686ffba5",
        ),
        (
            b'{"asks":[{"content":"a","images":["x"]},{"content":"b","files":["y"]}],"extra":1}',
            "3973dd87d8c89693e5852ae0c6eb1976",
        ),
        (
            b'{"id":7,"asks":[{"content":"hi"}],"model":"m","unknown":{}}',
            "9cab939ff230f97ec8b9ba6ed1d5c87e",
        ),
    ],
)
def test_lines_of_old_keep_the_keys_that_they_had(line: bytes, key: str) -> None:
    assert parse_line(line).key.hex() == key


def test_system_and_params_are_part_of_what_a_line_is_recognised_by() -> None:
    plain = {"id": 1, "asks": [{"content": "a"}]}

    def key(**more: Any) -> bytes:
        return parse_line(rawjson.dumps({**plain, **more})).key

    same = key()
    assert key(system=None, params=None) == key(system="", params={}) == same
    others = [
        key(system="x"),
        key(system="y"),
        key(params={"t": 1}),
        key(params={"t": 2}),
        key(asks=[{"content": "a", "params": {"t": 1}}]),
    ]
    assert len({same, *others}) == 6
    assert key(params={"a": 1, "b": {"c": 2, "d": 3}}) == key(
        params={"b": {"d": 3, "c": 2}, "a": 1}
    )


def test_digits_beyond_64_bits_tell_two_params_apart() -> None:
    line = b'{"asks":[{"content":"a"}],"params":{"seed":1234567890123456789012%d}}'
    assert parse_line(line % 1).key != parse_line(line % 2).key
    assert parse_line(line % 1).params(0) == {"seed": b"12345678901234567890121"}


async def test_edited_system_runs_again_and_the_same_one_does_not(bench: Bench) -> None:
    async with completions() as service:
        bench.write(bench.line(1, "a", system="x"), bench.line(2, "b", params={"t": 1}))
        await run(bench, service.origin)
        bench.write(bench.line(1, "a", system="y"), bench.line(2, "b", params={"t": 1}))
        summary = await run(bench, service.origin, fix=True)
    assert service.counts == {"a": 2, "b": 1}
    assert summary.done == 2
    assert bench.read()[0]["system"] == "y"


# Refused before the first call


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"system": 5}, "system must be text, not a number"),
        ({"params": []}, "params must be an object, not a list"),
        ({"params": {"messages": []}}, "params must not have messages: it is made of the asks"),
        ({"params": {"stream": True}}, "params must not have stream: set --stream"),
        ({"gizmo_id": "g-1"}, "gizmo_id belongs to --api gpt4api"),
        ({"asks": [{"content": "a", "params": 1}]}, "asks[0].params must be an object"),
    ],
)
async def test_line_that_cannot_be_asked_is_refused_with_its_place(
    bench: Bench, more: dict[str, Any], words: str
) -> None:
    bench.write(bench.line(1, "fine"), bench.line(2, "a") | more)
    async with completions() as service:
        with pytest.raises(UsageError) as refused:
            await run(bench, service.origin)
    assert f"in.jsonl:2: {words}" in str(refused.value)
    assert service.bodies == []


async def test_no_model_is_refused_with_the_flag(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    async with completions() as service:
        with pytest.raises(UsageError, match="no model is named: set -m"):
            await run(bench, service.origin, model="gpt-4-gizmo")
    assert service.bodies == []


@pytest.mark.parametrize("where", ["line", "ask"])
async def test_gpt4api_refuses_what_it_would_not_hear_of(bench: Bench, where: str) -> None:
    line = bench.line(1, "a")
    (line if where == "line" else line["asks"][0])["params"] = {"temperature": 0}
    bench.write(line)
    with pytest.raises(UsageError, match="params belongs to --api openai"):
        await bench.run("http://127.0.0.1:9")
    bench.write(bench.line(1, "a", system="x"))
    with pytest.raises(UsageError, match="system belongs to --api openai"):
        await bench.run("http://127.0.0.1:9")


# No answer


BAD = [
    ({"error": {"message": "upstream broke", "code": 502}}, "the reply says: upstream broke"),
    ({"object": "error", "message": "flat", "type": "x", "code": 400}, "no choices: flat"),
    ([], None),
    ({"choices": []}, "the reply has no choices"),
    (completion(""), "the answer is empty (finish_reason stop)"),
    (completion(None, message={"reasoning_content": "hm"}), "the answer is empty"),
    (completion("x", choice={"finish_reason": "content_filter"}), "finish_reason content_filter"),
]


@pytest.mark.parametrize(("reply", "words"), BAD)
async def test_reply_that_is_no_answer_fails_its_line_and_is_kept(
    bench: Bench, reply: Any, words: str | None
) -> None:
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    async with completions(a=once(saying(200, reply))) as service:
        summary = await run(bench, service.origin, retries=3)
        error = bench.read()[0]["iErr"]
        assert (summary.done, summary.exit_code) == (1, 1)
        assert (words or "not a JSON object") in error["message"]
        assert error["reply"] == reply
        assert service.counts["a"] == 1
        assert (await run(bench, service.origin, fix=True)).done == 2
    assert service.counts == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("fail_on", "done"),
    [("empty,content_filter", 1), ("length", 2), ("", 3), ("empty,content_filter,length", 0)],
)
async def test_flag_says_what_is_no_answer(bench: Bench, fail_on: str, done: int) -> None:
    bench.write(*[bench.line(name, name) for name in ("short", "empty", "filtered")])
    ways = {
        "short": saying(200, completion("x", choice={"finish_reason": "length"})),
        "empty": saying(200, completion(" ")),
        "filtered": saying(200, completion("x", choice={"finish_reason": "content_filter"})),
    }
    async with completions(**ways) as service:
        summary = await run(bench, service.origin, fail_on=fail_on)
    assert summary.done == done


async def test_reply_that_is_no_answer_is_counted_and_budgeted_as_what_it_cost(
    bench: Bench,
) -> None:
    bench.write(*[bench.line(n, "a") for n in range(4)], bench.line(9, "fine"))
    paid = {"input": 11, "cached": 0, "output": 7, "reasoning": 0}
    async with completions(a=saying(200, completion(""))) as service:
        summary = await run(bench, service.origin, goroutine=1, max_tokens=36)
        assert (summary.exit_code, service.counts) == (3, {"a": 2})
        assert summary.tokens == {name: 2 * count for name, count in paid.items()}
        service.ways.clear()
        summary = await run(bench, service.origin, fix=True)
    assert summary.done == 5
    assert summary.tokens == {name: 5 * count for name, count in paid.items()}
    assert summary.tokens_in_all == {name: 7 * count for name, count in paid.items()}


async def test_calls_of_tools_and_refusals_are_answers(bench: Bench) -> None:
    calls = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    ways = {
        "a": saying(200, completion(None, message={"tool_calls": calls})),
        "b": saying(200, completion(None, message={"refusal": "I will not"})),
    }
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    async with completions(**ways) as service:
        assert (await run(bench, service.origin)).done == 2


async def test_404_never_begins_a_line_anew(bench: Bench, tmp_path: Path) -> None:
    bench.write(bench.line(1, "a", "b"))
    gone = {"error": {"message": "conversation not found", "code": "conversation_not_found"}}
    async with completions(b=once(saying(404, gone), saying(404, gone))) as service:
        await run(bench, service.origin)
        await run(bench, service.origin, fix=True)
        assert (await run(bench, service.origin, fix=True)).done == 1
    assert service.counts == {"a": 1, "b": 3}
