"""What coordinator and workers say to each other: read as it was written, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4batch.fleet.messages import Beacon, ForeignError, Report, Result, Task, read, written
from gpt4batch.lines import rawjson

RESULT: dict[str, Any] = {
    "batch": "b",
    "line": 3,
    "key": "ab",
    "worker": "w",
    "run": "r",
    "kind": "final",
    "chats": 2,
    "retries": 1,
    "counts": {"uploads": 4, "unanswered": 1, "downloads": 2, "download_bytes": 9},
    "outcome": {},
    "texts": [b'{"n":1.10}', b"[]"],
}
TASK: dict[str, Any] = {
    "batch": "b",
    "epoch": 1,
    "seq": 2,
    "line": 3,
    "key": "ab",
    "number": 4,
    "fresh": True,
    "files": [],
    "record": b'{"asks":[{"content":"x"}],"n":1.10}',
}


def test_message_is_read_as_it_was_written_and_its_texts_byte_for_byte() -> None:
    assert read(Result, written(Result(**RESULT))) == Result(**RESULT)
    assert read(Task, written(Task(**TASK))) == Task(**TASK)


def test_result_of_a_release_that_counted_less_is_taken() -> None:
    """It may have waited in a worker's spool over an upgrade, and it was paid for."""
    head, *texts = written(Result(**RESULT)).split(b"\n")
    doc: Any = rawjson.loads(head)
    del doc["counts"]
    old = read(Result, b"\n".join([rawjson.dumps(doc), *texts]))
    assert (old.counts, old.chats, old.texts) == ({}, 2, RESULT["texts"])


@pytest.mark.parametrize("kind", [Beacon, Report, Task])
def test_message_of_another_kind_is_refused(kind: type) -> None:
    with pytest.raises(ForeignError):
        read(kind, written(Result(**RESULT)))


@pytest.mark.parametrize("name", [name for name in RESULT if name != "texts"])
def test_message_with_a_value_of_another_type_is_refused(name: str) -> None:
    head, *texts = written(Result(**RESULT)).split(b"\n")
    doc: Any = rawjson.loads(head)
    doc[name] = None
    with pytest.raises(ForeignError, match=name):
        read(Result, b"\n".join([rawjson.dumps(doc), *texts]))


@pytest.mark.parametrize("body", [b"", b"?", b"[]", b"{}", b'{"v":99,"is":"Result"}'])
def test_bytes_that_are_no_message_of_ours_are_refused(body: bytes) -> None:
    with pytest.raises(ForeignError):
        read(Result, body)
