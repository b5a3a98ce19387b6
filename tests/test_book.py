"""What coordinators leave each other: nothing of it is lost, a torn end does no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpt4batch.errors import OutputError, UsageError
from gpt4batch.fleet.epoch import Book

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.fleet"


def opened(path: Path | None, *, fix: bool = True) -> Book:
    book = Book(path, fix=fix)
    book.open()
    return book


def test_next_coordinator_has_the_name_and_a_higher_epoch(path: Path) -> None:
    first = opened(path)
    for line in (3, 5, 4):
        first.call_out(line, f"1.x.{line}", 1)
    first.call_over(5)
    first.count("paid_twice", 2)
    second = opened(path)
    second.count("paid_twice")
    third = opened(path)
    assert (first.batch, third.epoch) == (third.batch, 3)
    assert third.out == {3: ("1.x.3", 1), 4: ("1.x.4", 1)}
    assert third.counts == {"paid_twice": 3}


def test_run_without_fix_is_a_new_batch(path: Path) -> None:
    first, second = opened(path), opened(path, fix=False)
    assert first.batch != second.batch
    assert second.epoch == 1


def test_torn_end_is_passed_over(path: Path) -> None:
    opened(path).call_out(1, "1.x.1", 2)
    path.write_bytes(path.read_bytes() + b'{"out":[[2')
    assert opened(path).out == {1: ("1.x.1", 2)}


def test_file_does_not_grow_with_the_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4batch.fleet.epoch.MOST_ENTRIES", 10)
    book = opened(path)
    for line in range(100):
        book.call_out(line, "1.x.1", 1)
        book.call_over(line)
    book.call_out(7, "1.x.2", 1)
    assert len(path.read_bytes().splitlines()) <= 11
    assert opened(path).out == {7: ("1.x.2", 1)}


def test_file_is_gone_when_the_batch_is_done(path: Path) -> None:
    opened(path).close(done=False)
    assert path.exists()
    opened(path).close(done=True)
    assert not path.exists()


@pytest.mark.parametrize("text", [b"", b"?\n", b"[]\n", b'{"batch":"a"}\n'])
def test_other_file_in_the_way_is_refused_untouched(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(UsageError, match="move it away"):
        Book(path, fix=True)
    assert path.read_bytes() == text


def test_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        opened(tmp_path / "no" / "out.jsonl.fleet")


def test_output_that_is_a_stream_keeps_no_file() -> None:
    book = opened(None)
    book.call_out(1, "1.x.1", 2)
    book.count("paid_twice")
    assert (book.epoch, book.counts["paid_twice"]) == (1, 1)
    book.close(done=True)


def test_book_of_an_older_version_is_read(path: Path) -> None:
    path.write_text('{"batch":"b","epoch":1,"out":[[4,"1.x.1"]],"counts":{}}\n')
    assert opened(path).out == {4: ("1.x.1", 0)}
