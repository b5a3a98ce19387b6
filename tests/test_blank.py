"""Asks that ask nothing and attachments that are not there: told before they are paid for."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest
from puppets import reply_of

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from conftest import Bench

    from gpt4batch.mock.server import MockService

BLANK = ["", "  \n", "\u3000\u2028"]


@pytest.mark.parametrize("text", BLANK)
async def test_blank_ask_fails_its_line_without_a_call(
    bench: Bench, service: MockService, text: str
) -> None:
    bench.write(bench.line(1, "one", text), bench.line(2, "two"))
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 1, result.err
    first, second = bench.read()
    assert (first["iErr"]["code"], first["iErr"]["stage"]) == (400, "input")
    assert "ask 2 is blank" in first["iErr"]["message"]
    assert "iErr" not in second
    assert service.stats.arrivals == 1


async def test_check_names_each_line_with_a_blank_ask(bench: Bench) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two", " "))
    result = await bench.call("check", "--mock", "-i", "in.jsonl")
    assert result.code == 1, result.out
    assert "in.jsonl:2: ask 2 is blank: it has neither text nor attachments" in result.out


async def test_ask_with_a_picture_and_no_text_is_sent(bench: Bench, service: MockService) -> None:
    (bench.folder / "notes.txt").write_text("read me")
    line = {"id": 1, "asks": [{"content": "", "files": ["notes.txt"]}]}
    bench.write(line)
    result = await bench.call(*bench.batchsvc(service.origin))
    assert (result.code, service.stats.chats_answered) == (0, 1), result.err


async def test_blank_ask_that_is_answered_already_stays_done(
    bench: Bench, service: MockService
) -> None:
    """Other tools did send them: what came of that was paid for, and nothing is asked again."""
    bench.write({"id": 1, "asks": [{"content": ""}], "answers": [reply_of()]}, bench.line(2, "two"))
    result = await bench.call(*bench.batchsvc(service.origin, "-f"))
    assert result.code == 0, result.err
    assert bench.read()[0]["answers"] == [reply_of()]
    assert service.stats.chats_answered == 1


async def test_many_blank_lines_do_not_stop_the_run(bench: Bench, service: MockService) -> None:
    bench.write(*[bench.line(number, "") for number in range(40)], bench.line(40, "last"))
    result = await bench.call(*bench.batchsvc(service.origin, "-g", "1"))
    assert (result.code, service.stats.chats_answered) == (1, 1), result.err


NFD = unicodedata.normalize("NFD", "Köln.png")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("data:image/png;base64," + "A" * 300_000, "save it as one and give its path"),
        ("file:///tmp/a.png", "without file://"),
        ("https://example.com/a.png", "download it"),
        ("~/a.png", "~ is not expanded"),
        (r"C:\pictures\a.png", "/mnt/c"),
        (r"img\a.png", "with / instead of \\ it is there"),
        (unicodedata.normalize("NFC", NFD), "another Unicode form (NFD)"),
    ],
)
async def test_attachment_that_is_not_there_is_told_shortly_with_a_hint(
    bench: Bench, service: MockService, path: str, advice: str
) -> None:
    (bench.folder / "img").mkdir()
    for name in ("img/a.png", NFD):
        (bench.folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    bench.write({"id": 1, "asks": [{"content": "see", "images": [path]}]})
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 1, result.err
    (line,) = bench.read()
    assert advice in line["iErr"]["message"]
    assert len(rawjson.dumps(line["iErr"])) < 1000
    checked = await bench.call("check", "--mock", "-i", "in.jsonl")
    assert advice in " ".join(checked.out.split())
    assert len(result.err) + len(checked.out) < 4000
    assert service.stats.arrivals == 0
