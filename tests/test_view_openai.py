"""The viewer over replies of the dialect openai."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from test_view import append, found, indexed, site, written

from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.batch import Batch
from gpt4batch.view import detail, save
from gpt4batch.view.files import Folders
from gpt4batch.view.record import State
from gpt4batch.view.search import Filter, Question

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":1}'}}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def reply(finish: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "an answer", **message}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-x"}
    return {**head, "choices": [choice], "usage": USAGE}


def line(name: str, *answers: dict[str, Any], images: list[str] | None = None) -> dict[str, Any]:
    ask = {"id": f"{name}-1", "content": f"ask {name}"} | ({"images": images} if images else {})
    return {"id": name, "asks": [ask for _ in answers], "answers": list(answers)}


def shown(tmp_path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the first turn as the page gets it."""
    output = indexed(written(tmp_path / "out.jsonl", [record]))
    turns = detail.conversation(output.index, 0, Folders(tmp_path, tmp_path))["turns"]
    turn: dict[str, Any] = turns[0]
    return turn


def test_answer_tells_its_model_its_tokens_and_its_end(tmp_path: Path) -> None:
    answer = shown(tmp_path, line("a", reply("length")))["answer"]
    assert [item["text"] for item in answer["messages"]] == ["an answer"]
    assert (answer["model"], answer["finish"]) == ("gpt-x", "length")
    assert answer["tokens"] == {"input": 10, "cached": 4, "output": 5, "reasoning": 2}


def test_reasoning_refusals_and_tool_calls_are_messages_of_their_kind(tmp_path: Path) -> None:
    told = reply(content=None, reasoning_content="let me see", refusal="no", tool_calls=[CALL])
    messages = shown(tmp_path, line("a", told))["answer"]["messages"]
    kinds = {item["kind"]: item for item in messages}
    assert kinds["reasoning"]["text"] == "let me see"
    assert kinds["refusal"]["text"] == "no"
    assert kinds["code"]["recipient"] == "weather"
    assert kinds["code"]["text"] == '{"city":1}'


def test_list_shows_the_answer_and_not_how_it_was_found(tmp_path: Path) -> None:
    output = indexed(written(tmp_path / "out.jsonl", [line("a", reply(reasoning_content="hm"))]))
    assert detail.summary(output.index, 0)["answer"] == "an answer"


async def test_lines_are_filtered_by_the_end_of_their_answers(tmp_path: Path) -> None:
    lines = [line("a", reply()), line("b", reply("length")), line("c", reply(), reply("length"))]
    async with site(written(tmp_path / "out.jsonl", lines)) as page:
        (run,) = (await page.json("overview"))["runs"]
        finishes = {item["name"]: item for item in run["finishes"]}
        assert {name: item["count"] for name, item in finishes.items()} == {"stop": 1, "length": 2}
        assert await found(page, finish=finishes["length"]["number"]) == ["b", "c"]
        assert run["tokens"] == {"input": 40, "cached": 16, "output": 20, "reasoning": 8}


def test_end_of_an_answer_is_told_anew_when_its_line_is(tmp_path: Path) -> None:
    path = written(tmp_path / "out.jsonl", [line("a", reply("length"))], mark=b" ")
    output = indexed(path)
    chosen = Filter(output.index, Question(finish=1))
    chosen.advance()
    append(path, line("a", reply()))
    output.follow()
    chosen.advance()
    assert list(chosen.rows) == []
    assert output.index.figures.public()["tokens"]["input"] == 10


def test_address_of_a_picture_is_named_and_not_loaded(tmp_path: Path) -> None:
    images = ["https://example.com/a.png", "data:image/png;base64," + "A" * 100_000]
    assets = shown(tmp_path, line("a", reply(), images=images))["assets"]
    assert [asset["kind"] for asset in assets] == ["address"] * 2
    assert assets[0]["name"] == images[0]
    assert len(assets[1]["name"]) < 100


def test_system_is_told_and_searched(tmp_path: Path) -> None:
    record = line("a", reply()) | {"system": "Be brief."}
    output = indexed(written(tmp_path / "out.jsonl", [record, line("b", reply())]))
    folders = Folders(tmp_path, tmp_path)
    assert detail.conversation(output.index, 0, folders)["system"]["text"] == "Be brief."
    chosen = Filter(output.index, Question(text="be brief"))
    chosen.advance()
    assert list(chosen.rows) == [0]


def test_reply_that_is_no_answer_is_shown_beside_the_error(tmp_path: Path) -> None:
    kept = reply("content_filter", content="half an")
    record = line("a", reply()) | {"answers": None, "iErr": {"code": 501, "message": "no"}}
    record["iErr"]["reply"] = kept
    output = indexed(written(tmp_path / "out.jsonl", [record]))
    error = detail.conversation(output.index, 0, Folders(tmp_path, tmp_path))["error"]
    assert [item["text"] for item in error["reply"]["messages"]] == ["half an"]


# Batch files


REQUEST = {"custom_id": "r", "body": {"messages": [{"role": "user", "content": "why"}]}}
ANSWERED = {"status_code": 200, "request_id": "", "body": reply("length")}
REFUSED = {"status_code": 400, "request_id": "", "body": {"error": {"message": "too long"}}}


def row_of(record: dict[str, Any], response: Any, error: Any = None) -> dict[str, Any]:
    """Return the row of a batch output by which a line of the input is known again."""
    key = Batch("m").parse(rawjson.dumps(record)).key.hex()
    named = {"id": f"gpt4batch-{key}", "custom_id": record["custom_id"]}
    return {**named, "response": response, "error": error}


def test_batch_output_is_shown_with_its_questions_out_of_the_input(tmp_path: Path) -> None:
    other = REQUEST | {"custom_id": "s"}
    rows = [row_of(REQUEST, ANSWERED), row_of(other, REFUSED)]
    source = written(tmp_path / "in.jsonl", [REQUEST, other, REQUEST | {"custom_id": "t"}])
    output = indexed(written(tmp_path / "out.jsonl", rows), source)
    folders = Folders(tmp_path, tmp_path)
    shown = [detail.summary(output.index, row) for row in range(3)]
    assert [(item["id"], item["ask"]) for item in shown] == [
        ("r", "why"),
        ("s", "why"),
        ("t", "why"),
    ]
    assert [State(item["state"]).name for item in shown] == ["DONE", "FAILED", "NOT_RUN"]
    turn = detail.conversation(output.index, 0, folders)["turns"][0]
    assert turn["answer"]["messages"][0]["text"] == "an answer"
    assert turn["answer"]["finish"] == "length"
    error = detail.conversation(output.index, 1, folders)["error"]
    assert "too long" in error["reply"]["messages"][0]["text"]
    csv = b"".join(save.table(output.index, range(3))).decode()
    assert csv.count("why") == 3
    assert next(save.jsonl(output.index, [0])).startswith(b'{"id":"gpt4batch-')


def test_batch_output_is_shown_without_its_input(tmp_path: Path) -> None:
    output = indexed(written(tmp_path / "out.jsonl", [row_of(REQUEST, ANSWERED)]))
    assert detail.summary(output.index, 0)["answer"] == "an answer"
    chosen = Filter(output.index, Question(text="AN ANSWER"))
    chosen.advance()
    assert list(chosen.rows) == [0]


def test_row_that_only_looks_like_one_of_a_batch_is_unreadable(tmp_path: Path) -> None:
    output = indexed(written(tmp_path / "out.jsonl", [{"custom_id": 1}, b'{"custom_id":']))
    assert [State(value).name for value in output.index.rows.state] == ["FAILED"] * 2
