"""`gpt4batch results`: a table of an output, read as the tool itself reads it."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from commands import caller

from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM
from gpt4batch.lines.record import LOG_MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Said
    from conftest import Bench

    from gpt4batch.mock.server import MockService

LONG = 12345678901234567890123
NOT_READY = {"code": 400, "message": "resource is not ready"}
FAILED = {"code": 429, "message": "too many", "stage": "chat", "attempts": 6}


@pytest.fixture
def results(capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Said]:
    """Return how to make a table of an output in the working folder."""
    call = caller(capsysbinary)
    return lambda *words: call("results", *words)


def reply(text: str, **more: Any) -> dict[str, Any]:
    message = {
        "author": {"role": "assistant"},
        "content": {"content_type": "text", "parts": [text]},
        "metadata": {"model_slug": "gpt-4o"},
    }
    return {"contents": [{"message": message}], **more}


def line(line_id: Any, *asks: str, **more: Any) -> dict[str, Any]:
    items = [{"id": f"a-{number}", "content": ask} for number, ask in enumerate(asks, 1)]
    return {"id": line_id, "asks": items, **more}


def write(*records: Any, mark: bytes = b"", begin: bytes = b"") -> None:
    texts = [item if isinstance(item, bytes) else rawjson.dumps(item) for item in records]
    Path("out.jsonl").write_bytes(begin + b"".join(mark + text + b"\n" for text in texts))


def rows(said: Said) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(said.out.decode(), newline="")))


def test_every_ask_has_its_row_with_the_columns_that_were_chosen(
    results: Callable[..., Said],
) -> None:
    files = [{"origin": "u", "local": "one.png"}, {"origin": "v", "local": "two.png"}]
    write(
        line(
            "q",
            *("one", "two"),
            answers=[reply("1", spec_downloads=files), reply("2")],
            extra={"topic": "t", "n": LONG},
            meta={"asks": [{"seconds": 1.5, "attempts": 1}, {"seconds": 2, "attempts": 3}]},
        )
    )
    names = "line,id,ask_id,ask,answer,files,model,seconds,attempts,state,extra.topic,extra.n,error"
    said = results("out.jsonl", "--columns", names)
    assert (said.code, said.err) == (0, "")
    first, second = rows(said)
    assert list(first.values()) == [
        *("1", "q", "a-1", "one", "1", "one.png;two.png", "gpt-4o", "1.5", "1", "done", "t"),
        *(str(LONG), ""),
    ]
    assert (second["ask_id"], second["answer"], second["attempts"]) == ("a-2", "2", "3")


def test_columns_that_are_none_are_refused(results: Callable[..., Said]) -> None:
    write(line("q", "one"))
    for names in ("id,nope", ","):
        said = results("out.jsonl", "--columns", names)
        assert (said.code, said.out) == (2, b"")
        assert "ask_id" in said.err


@pytest.mark.parametrize("name", [LONG, -LONG, 7, "007", "-x", "@user", "+8613900000000", "你 好"])
def test_ids_are_as_they_went_in(results: Callable[..., Said], name: Any) -> None:
    write(line(name, "one", answers=[reply("yes")]))
    (row,) = rows(results("out.jsonl"))
    assert row["id"] == str(name)
    assert results("out.jsonl", "-o", "r.xlsx").code == 0
    assert cells("r.xlsx")[1][0] == str(name)


def cells(name: str) -> list[list[Any]]:
    sheet: Any = openpyxl.load_workbook(name).active
    return [list(row) for row in sheet.iter_rows(values_only=True)]


def test_error_stands_where_it_struck(results: Callable[..., Said]) -> None:
    lost = [{"origin": "u", "error": "gone"}]
    write(
        line("f", "one", "two", "three", answers=[reply("1")], iErr=FAILED),
        line("n", "one", iErr=NOT_READY),
        line("p", "one", "two", answers=[reply("1")], iErr=NOT_READY),
        line(
            *("d", "one", "two"),
            answers=[reply("1", spec_downloads=lost), reply("2")],
            iErr={"code": 404, "message": "gone", "stage": "download"},
        ),
    )
    found = rows(results("out.jsonl", "--columns", "id,ask,state,stage,code,error"))
    assert [row["error"] for row in found] == ["", "too many", "", "", "", "", "gone", ""]
    assert [row["code"] for row in found if row["code"]] == ["429", "404"]
    assert [row["state"] for row in found if row["ask"] == "one"] == [
        *("failed", "not-run", "partly", "failed"),
    ]
    for only, ids in (("failed", "fd"), ("not-run", "np"), ("done", ""), ("all", "fnpd")):
        found = rows(results("out.jsonl", "--only", only))
        assert "".join(dict.fromkeys(row["id"] for row in found)) == ids


def test_newest_record_of_an_unfinished_log_counts(results: Callable[..., Said]) -> None:
    write(
        line("a", "one", iErr=FAILED),
        line("b", "one", "two", answers=[reply("1")]),
        line("a", "one", answers=[reply("new")]),
        line("b", "one", "two", answers=[reply("1"), reply("2")]),
        mark=LOG_MARK,
    )
    with Path("out.jsonl").open("ab") as file:
        file.write(LOG_MARK + b'{"id":"torn","asks":[{"con')
    said = results("out.jsonl")
    assert [row["answer"] for row in rows(said)] == ["new", "1", "2"]
    assert said.code == 0
    assert "log of a run" in said.err


def test_mark_and_half_an_emoji_are_read(results: Callable[..., Said]) -> None:
    half = rawjson.dumps(line("q", "one", answers=[reply("half \ud83d")]))
    write(half, begin=BOM)
    assert rows(results("out.jsonl"))[0]["answer"] == "half \ufffd"
    assert results("out.jsonl", "-o", "r.xlsx").code == 0


async def test_lines_that_a_run_skipped_are_failed_ones(
    bench: Bench, service: MockService, results: Callable[..., Said]
) -> None:
    bench.write(bench.line("good", "one"), b"not json", {"id": "bad", "asks": []})
    await bench.run(service.origin, skip_bad_lines=True)
    found = rows(results("out.jsonl", "--columns", "line,id,state,stage,error"))
    assert [row["state"] for row in found] == ["done", "failed", "failed"]
    assert [row["id"] for row in found] == ["good", "", "bad"]
    assert "not JSON" in found[1]["error"]
    listed = results("out.jsonl", "--failed").out.decode().splitlines()
    assert [text.split("\t")[:3] for text in listed] == [
        ["out.jsonl:2", "", "input"],
        ["out.jsonl:3", "bad", "input"],
    ]


def test_damaged_lines_are_told_and_left_out(results: Callable[..., Said]) -> None:
    write(line("a", "one", answers=[reply("1")]), b'{"id":"b","asks":[', *[b"x"] * 12)
    said = results("out.jsonl", "-o", "r.csv")
    assert said.code == 1
    assert "out.jsonl:2: " in said.err
    assert "and 3 more" in said.err
    assert Path("r.csv").read_text(encoding="utf-8-sig").count("\n") == 2


@pytest.mark.parametrize(
    "content",
    [
        b"not json\n",
        b'[{"id":1}]\n',
        '{"id":1,"asks":[{"content":"a"}]}\n'.encode("utf-16"),
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_file_that_is_no_output_is_refused(results: Callable[..., Said], content: bytes) -> None:
    Path("out.jsonl").write_bytes(content)
    said = results("out.jsonl", "-o", "r.csv")
    assert (said.code, said.out) == (2, b"")
    assert "out.jsonl:1: " in said.err
    assert not Path("r.csv").exists()


def test_failed_lines_are_listed_safely_for_a_terminal(results: Callable[..., Said]) -> None:
    error = {"code": 500, "message": "a\tb\n\x1b[2J\u202ec", "stage": "chat"}
    write(line("ok", "one", answers=[reply("1")]), line(LONG, "one", iErr=error))
    said = results("out.jsonl", "--failed")
    assert said.out.decode() == f"out.jsonl:2\t{LONG}\tchat\t500\ta b \\x1b[2J\\u202ec\n"
    assert said.code == 0


def test_formulas_are_disarmed_unless_told_otherwise(results: Callable[..., Said]) -> None:
    write(line("=id()", "=ask", answers=[reply("- a list")], extra={"x": "@sum"}))
    words = ("out.jsonl", "--columns", "id,ask,answer,extra.x")
    (row,) = rows(results(*words))
    assert list(row.values()) == ["'=id()", "'=ask", "'- a list", "'@sum"]
    (row,) = rows(results(*words, "--guard=false"))
    assert list(row.values()) == ["=id()", "=ask", "- a list", "@sum"]
    assert results(*words, "-o", "r.xlsx").code == 0
    assert cells("r.xlsx")[1] == ["=id()", "=ask", "- a list", "@sum"]
    with zipfile.ZipFile("r.xlsx") as book:
        assert b"<f>" not in book.read("xl/worksheets/sheet1.xml")


def test_workbook_holds_what_a_cell_can_hold(results: Callable[..., Said]) -> None:
    write(
        line(
            "q", "a\x00\x1b\x0bb", answers=[reply("😀" * 40_000)], meta={"asks": [{"seconds": []}]}
        )
    )
    assert results("out.jsonl", "-o", "r.xlsx", "--columns", "ask,answer,seconds").code == 0
    ask, answer, seconds = cells("r.xlsx")[1]
    assert (ask, seconds) == ("ab", "[]")
    assert len(answer.encode("utf-16-le")) <= 2 * 32_767
    assert answer.startswith("😀" * 16_000)
    assert answer.endswith("… [cut: 40,000 characters in all]")


def test_markdown_keeps_a_row_in_one_line(results: Callable[..., Said]) -> None:
    write(line("q", "a | b", answers=[reply("one\ntwo <img src=x>")]))
    assert results("out.jsonl", "--format", "markdown").out.decode().splitlines() == [
        "| id | ask | answer | state | error |",
        "| --- | --- | --- | --- | --- |",
        "| q | a \\| b | one<br>two &lt;img src=x&gt; | done |  |",
    ]


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("r.csv", b"\xef\xbb\xbfid,ask"),
        ("r.TSV", b"id\task"),
        ("r.md", b"| id | ask"),
        ("r.xlsx", b"PK\x03\x04"),
    ],
)
def test_format_follows_from_the_name(
    results: Callable[..., Said], name: str, begin: bytes
) -> None:
    write(line("q", "one"))
    assert results("out.jsonl", "-o", name).code == 0
    assert Path(name).read_bytes().startswith(begin)
    again = results("out.jsonl", "-o", name)
    assert again.code == 2
    assert "--force" in again.err


def test_output_itself_is_never_replaced(results: Callable[..., Said]) -> None:
    write(line("q", "one"))
    before = Path("out.jsonl").read_bytes()
    said = results("out.jsonl", "-o", "out.jsonl", "--format", "csv", "--force")
    assert said.code == 2
    assert Path("out.jsonl").read_bytes() == before


def test_name_without_a_known_ending_is_refused(results: Callable[..., Said]) -> None:
    said = results("out.jsonl", "-o", "r.doc")
    assert said.code == 2
    assert "--format" in said.err


def test_terminal_is_not_steered_by_answers(tmp_path: Path) -> None:
    write(line("q", "one", answers=[reply("\x1b]0;title\x07")]))
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "gpt4batch", "results", "out.jsonl"]
    subprocess.run(command, stdout=follower, stderr=subprocess.DEVNULL, cwd=tmp_path, check=True)
    os.close(follower)
    shown = os.read(leader, 1 << 16)
    os.close(leader)
    assert b"\\x1b]0;title\\x07" in shown
    assert b"\x1b" not in shown
