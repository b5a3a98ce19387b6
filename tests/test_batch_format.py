"""OpenAI's batch files, line by line: what a request becomes, and what a row says of it."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.batch import Batch, failed
from gpt4batch.lines.parse import NOT_RUN, BadLine, parse_line
from gpt4batch.lines.record import State, render, render_bad, state_of

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}


def row_of(custom_id: Any = "a", body: Any = BODY, **more: Any) -> bytes:
    return rawjson.dumps({"custom_id": custom_id, "body": body} | more)


def test_request_is_passed_on_verbatim() -> None:
    body = b'{"model": "m",  "seed": 123456789012345678901234567890, "x": 1e400, "messages": []}'
    raw = b'{"body": %b, "custom_id": "a", "method": "POST", "url": "/v1/embeddings"}' % body
    own = Batch().own(raw)
    request = dict(rawjson.members(dict(rawjson.members(own))["openai_batch"]))
    assert request == {"url": b'"/v1/embeddings"', "body": body}
    assert parse_line(own).key == Batch().parse(raw).key


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (BODY, "What is 1 + 1?"),
        ({"model": "m", "input": ["one", "two"]}, "one\n\ntwo"),
        ({"model": "m", "prompt": "Once"}, "Once"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"text": "see"}]}]}, "see"),
        ({"model": "m", "input": [{"role": "user", "content": "so"}]}, "so"),
        ({"model": "m", "input": [1, 2]}, '{"model":"m","input":[1,2]}'),
        ({"model": "m"}, '{"model":"m"}'),
    ],
)
def test_text_of_a_request_is_what_the_user_says(body: Any, title: str) -> None:
    assert Batch().parse(row_of(body=body)).asks[0].content == title


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (rawjson.dumps({"body": BODY}), "custom_id is missing"),
        (row_of(""), "custom_id is missing"),
        (row_of(True), "custom_id must be text, not true or false"),
        (row_of(method="GET"), "only POST"),
        (row_of(url="https://other.example/v1/chat/completions"), "a path below"),
        (row_of(url="//other.example/v1"), "a path below"),
        (row_of(url="/v1/../../admin"), "a path below"),
        (row_of(url="/v1/x?key=1"), "a path below"),
        (row_of(url=5), "url must be text"),
        (row_of(body="text"), "body must be an object, not text"),
        (row_of(body=None), "body is missing"),
        (rawjson.dumps({"custom_id": "a", "params": {}}), "those of another service"),
        (row_of(body=BODY | {"stream": True}), "--stream"),
        (row_of(body={"messages": []}), "body.model is missing"),
        (row_of(body={"model": 5}), "body.model must be text"),
        (row_of(asks=[{"content": "x"}]), "lines of one kind"),
    ],
)
def test_request_that_cannot_be_made_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        Batch().parse(raw)


def test_keys_that_are_left_out_are_filled_in() -> None:
    line = Batch("m").parse(row_of(body={"messages": []}))
    assert line.options["openai_batch"]["url"] == CHAT


def test_custom_id_that_stands_twice_is_refused_with_the_first_line() -> None:
    form = Batch()
    form.parse(row_of("a"), 0, 3)
    form.parse(row_of("b"), 1, 4)
    with pytest.raises(BadLine, match="'a' stands in line 3 already"):
        form.parse(row_of("a"), 2, 5)


def test_numbers_are_told_apart_though_python_gives_them_one_hash() -> None:
    form = Batch("m")
    for index, custom_id in enumerate((-1, -2, 0, (1 << 61) - 1, "-1")):
        form.parse(row_of(custom_id), index, index + 1)


def record(error: Any = None, answer: bytes = b"", custom_id: Any = "a") -> bytes:
    own = Batch().own(row_of(custom_id))
    return render(own, [answer] if answer else [], error, {"calls": 1})


ANSWER = b'{"id": "chatcmpl-1", "object": "chat.completion", "big": 12345678901234567890123}'
REFUSED = {"error": {"message": "no such model", "code": "model_not_found"}}


def test_answer_is_a_row_in_the_documented_shape() -> None:
    line = Batch().parse(row_of())
    row = Batch().row(record(answer=ANSWER))
    doc = rawjson.loads(row)
    assert list(doc) == ["id", "custom_id", "response", "error"]
    assert doc["id"] == "gpt4batch-" + line.key.hex()
    assert doc["response"]["status_code"] == 200
    assert doc["response"]["request_id"] == "chatcmpl-1"
    assert ANSWER in row
    assert not failed(row)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"code": 404, "message": "x", "stage": "chat", "reply": REFUSED}, 404, None),
        ({"code": 404, "message": "404 Not Found", "stage": "chat"}, 404, None),
        (
            {"code": 501, "message": "the reply is empty", "stage": "reply", "reply": {}},
            200,
            "no_answer",
        ),
        (
            {"code": 501, "message": "no answer within 480 s", "stage": "chat"},
            None,
            "request_timeout",
        ),
        ({"code": 501, "message": "cannot connect", "stage": "chat"}, None, "request_failed"),
        (NOT_RUN, None, "batch_cancelled"),
    ],
)
def test_failure_is_a_row_in_the_documented_shape(error: Any, status: Any, code: Any) -> None:
    row = Batch().row(record(error))
    doc = rawjson.loads(row)
    assert (doc["response"] or {}).get("status_code") == status
    assert (doc["error"] or {}).get("code") == code
    assert failed(row)


@pytest.mark.parametrize(
    ("error", "answer", "state"),
    [
        (None, ANSWER, State.DONE),
        ({"code": 404, "message": "x", "stage": "chat", "reply": REFUSED}, b"", State.FAILED),
        (
            {"code": 501, "message": "x", "stage": "reply", "reply": {"choices": []}},
            b"",
            State.FAILED,
        ),
        ({"code": 501, "message": "no answer within 1 s", "stage": "chat"}, b"", State.FAILED),
        (NOT_RUN, b"", State.NEW),
    ],
)
def test_row_that_is_read_back_is_the_record_and_the_same_row_again(
    error: Any, answer: bytes, state: State
) -> None:
    form = Batch()
    line = form.parse(row_of())
    row = form.row(record(error, answer))
    back = form.result(row)
    found = parse_line(back)
    assert (found.key, found.id, state_of(found)) == (line.key, "a", state)
    assert form.row(back) == row


def test_rows_of_other_tools_are_known_by_their_custom_id() -> None:
    form = Batch()
    line = form.parse(row_of("x-1"), 0, 1)
    body = {"choices": [], "id": "c"}
    for row_id in ("batch_req_123", "vllm-5f", "gpt4batch-abc", None):
        response = {"status_code": 200, "request_id": "r", "body": body}
        row = {"id": row_id, "custom_id": "x-1", "response": response, "error": None}
        found = parse_line(form.result(rawjson.dumps(row)))
        assert (found.key, state_of(found)) == (line.key, State.DONE)
    assert len(form.notes()) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"response": {"status_code": 0, "body": {}}, "error": None},
        {"response": {"status_code": 200, "body": {"error": {"message": "x"}}}, "error": None},
        {"response": {"status_code": 400, "request_id": "r", "body": None}, "error": "text"},
        {"response": {"status_code": 200, "body": {"choices": []}}, "error": {"message": "x"}},
        {"response": None, "error": {"object": "error", "message": "x", "code": 400}},
        {"response": None, "error": None},
    ],
)
def test_row_of_another_tool_that_tells_of_no_success_is_not_done(more: Any) -> None:
    form = Batch()
    form.parse(row_of("a"), 0, 1)
    row = rawjson.dumps({"id": "batch_req_1", "custom_id": "a"} | more)
    assert state_of(parse_line(form.result(row))) is State.FAILED


def test_row_for_a_request_that_expired_is_as_if_it_were_not_there() -> None:
    row = {"id": "r", "custom_id": "a", "response": None, "error": {"code": "batch_expired"}}
    form = Batch()
    form.parse(row_of("a"), 0, 1)
    assert state_of(parse_line(form.result(rawjson.dumps(row)))) is State.NEW


def test_bad_line_keeps_its_text_in_its_row() -> None:
    raw = b'{"custom_id":"z","body":5}'
    doc = rawjson.loads(Batch().row(render_bad(raw, "body must be an object")))
    assert doc["custom_id"] == "z"
    assert doc["error"]["line"] == raw.decode()
    assert failed(rawjson.dumps(doc))


def test_row_of_a_bad_line_is_not_of_another_tool() -> None:
    form = Batch()
    form.result(form.row(render_bad(b'{"custom_id":"z","body":5}', "body must be an object")))
    assert form.notes() == []
    form.result(b'{"id":"batch_req_1","custom_id":"z","response":null,"error":{"code":"x"}}')
    assert form.notes()


def test_reply_of_a_failed_request_is_in_its_row_as_it_was_written() -> None:
    reply = b'{"error": {"message": "no", "cost": 0.12345678901234567890, "text": "\\u4f60"}}'
    error = {"code": 404, "message": "x", "stage": "chat", "reply": rawjson.Fragment(reply)}
    row = Batch().row(record(error))
    assert reply in row
    assert reply in Batch().row(Batch().result(row))


@pytest.mark.parametrize("code", [400, 404, 413])
def test_refusal_without_an_object_has_its_status(code: int) -> None:
    error = {"code": code, "message": f"{code}: <html>no</html>", "stage": "chat", "attempts": 1}
    doc = rawjson.loads(Batch().row(render(Batch().own(row_of()), [], error)))
    assert (doc["response"]["status_code"], doc["error"]) == (code, None)
    assert "no" in doc["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("reply", ['{"data":[NaN]}', [1, 2], {"choices": []}])
def test_reply_that_is_no_answer_is_kept_in_its_row(reply: Any) -> None:
    error = {"code": 200, "message": "no answer", "stage": "reply", "attempts": 1, "reply": reply}
    row = Batch().row(render(Batch().own(row_of()), [], error))
    doc = rawjson.loads(row)
    assert (doc["response"]["status_code"], doc["response"]["body"]) == (200, reply)
    assert doc["error"]["code"] == "no_answer"
    known = parse_line(Batch().result(row))
    assert (state_of(known), known.error and known.error["reply"]) == (State.FAILED, reply)
