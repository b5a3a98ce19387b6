"""What coordinator and workers say to each other: read as it was written, and nothing else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gpt4batch.errors import CallError, ReplyError
from gpt4batch.fleet.messages import (
    ASKS,
    Drop,
    ForeignError,
    Hello,
    News,
    Result,
    Task,
    Word,
    outcome_of,
    read,
    word,
    written,
)
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line
from gpt4batch.service.conversation import Outcome
from gpt4batch.words import language, spoken, told, tr

RESULT: dict[str, Any] = {
    "batch": "b",
    "worker": "w",
    "line": 3,
    "key": "ab",
    "run": "1.x.4",
    "step": 2,
    "call": 3,
    "kind": "final",
    "how": "ok",
    "added": 1,
    "tally": {"chats": 3},
    "error": [],
    "record": b'{"asks":[{"content":"x"}],"n":1.10}',
}
TASK: dict[str, Any] = {
    "batch": "b",
    "worker": "w",
    "seq": 2,
    "line": 3,
    "key": "ab",
    "run": "1.x.4",
    "number": 4,
    "fresh": True,
    "files": [],
    "record": b'{"asks":[{"content":"x"}],"n":1.10}',
}
WORD = Word("1.x.4", "ab", 1, 0, 2, ASKS, "", -1.0, True)


def test_message_is_read_as_it_was_written_and_its_record_byte_for_byte() -> None:
    assert read(written(Result(**RESULT)), Result) == Result(**RESULT)
    assert read(written(Task(**TASK)), Task, Drop) == Task(**TASK)


def test_word_of_a_line_is_read_as_it_was_said() -> None:
    assert word(orjson.loads(orjson.dumps(list(WORD)))) == WORD


@pytest.mark.parametrize("entry", [[], [*WORD, 1], [1, *WORD[1:]], [*WORD[:4], "2", *WORD[5:]]])
def test_word_of_another_shape_is_refused(entry: list[Any]) -> None:
    with pytest.raises(ForeignError):
        word(entry)


@pytest.mark.parametrize("kind", [Hello, News, Task])
def test_message_of_another_kind_is_refused(kind: type) -> None:
    with pytest.raises(ForeignError):
        read(written(Result(**RESULT)), kind)


@pytest.mark.parametrize("name", [name for name in RESULT if name != "record"])
def test_message_with_a_value_of_another_type_is_refused(name: str) -> None:
    head, _, record = written(Result(**RESULT)).partition(b"\n")
    doc: Any = rawjson.loads(head)
    doc[name] = None
    with pytest.raises(ForeignError, match=name):
        read(rawjson.dumps(doc) + b"\n" + record, Result)


@pytest.mark.parametrize("body", [b"", b"?", b"[]", b"{}", b'{"v":99,"is":"result"}'])
def test_bytes_that_are_no_message_of_ours_are_refused(body: bytes) -> None:
    with pytest.raises(ForeignError):
        read(body, Result)


def test_outcome_comes_back_from_its_record() -> None:
    line = parse_line(b'{"id":1,"asks":[{"content":"x"},{"content":"y"}],"extra":{"n":1.10}}')
    sent = Outcome(line, [b'{"n":1.10}'], ReplyError("empty", b'{"m":2.50}'), calls=3)
    sent.timings, sent.uploads = [{"seconds": 1.5, "attempts": 3}], [{"path": "a", "sent": "s"}]
    sent.superseded = [rawjson.Fragment(b'{"old":3.70}')]
    assert sent.error is not None
    sent.error.attempts = 2
    got = outcome_of(line, sent.standing().whole(), [])
    assert (got.answers, got.timings, got.uploads) == (sent.answers, sent.timings, sent.uploads)
    assert (got.calls, got.started) == (3, sent.started)
    assert isinstance(got.error, ReplyError)
    assert (str(got.error), got.error.reply, got.error.stage) == ("empty", b'{"m":2.50}', "reply")
    assert got.standing().whole().partition(b'"finished"')[0] in sent.standing().whole()
    assert b'"superseded":[{"old":3.70}]' in got.standing().whole()


def test_failure_without_a_reply_comes_back_with_its_code() -> None:
    line = parse_line(b'{"asks":[{"content":"x"}]}')
    sent = Outcome(line, [], CallError("503 Service Unavailable", code=503))
    error = outcome_of(line, sent.standing().whole(), []).error
    assert error is not None
    assert (str(error), error.code, error.stage) == ("503 Service Unavailable", 503, "chat")


def test_failure_at_a_worker_is_read_in_the_language_of_the_coordinator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = parse_line(b'{"asks":[{"content":"x"}]}')
    why = tr("no answer within {seconds:g} s", seconds=1.5)
    sent = Outcome(line, [], CallError(tr("{error}, on worker {name}", error=why, name="w")))
    said = rawjson.loads(rawjson.dumps([told(sent.error)]))
    error = outcome_of(line, sent.standing().whole(), said).error
    assert str(error) == "no answer within 1.5 s, on worker w"
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    language.cache_clear()
    try:
        assert spoken(error) == spoken(sent.error) != str(error)
    finally:
        language.cache_clear()


@pytest.mark.parametrize(
    "said",
    [
        [[False, "text", "{gone}", {}, ""]],
        [[False, "text", "{a.b}", {"a": 1}, ""]],
        [[False, "text", "{", {"a": 1}, ""]],
        [[True, "text", ", ", {"0": [False, "text", "other", {}, ""]}, ""]],
        [[False, "text"]],
        ["another"],
    ],
)
def test_failure_whose_message_is_none_is_told_as_its_record_has_it(said: list[Any]) -> None:
    line = parse_line(b'{"asks":[{"content":"x"}]}')
    sent = Outcome(line, [], CallError("text"))
    error = outcome_of(line, sent.standing().whole(), said).error
    assert spoken(error) == "text"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b"{x}",
        b"nul",
        b'{"answers":[{}],"meta":{}}',
        b'{"answers":[{},{}],"meta":{"started":1}}',
    ],
)
def test_record_that_is_none_is_refused(record: bytes) -> None:
    line = parse_line(b'{"asks":[{"content":"x"}]}')
    with pytest.raises(ForeignError):
        outcome_of(line, record, [])
