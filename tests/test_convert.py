"""`gpt4batch convert`: tables and pictures become a batch that the tool reads, or nothing."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from commands import caller

from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from commands import Said
    from conftest import Bench

LAKE = Path(__file__).resolve().parent.parent / "examples/img/lake.png"


@pytest.fixture
def convert(capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Said]:
    """Return how to convert what is in the working folder."""
    call = caller(capsysbinary)
    return lambda *words: call("convert", *words)


def lines(raw: bytes) -> list[Any]:
    """Return the lines of a batch, each of which a run takes."""
    texts = raw.split(b"\n")
    assert texts.pop() == b""
    return [rawjson.loads(text) for text in texts if parse_line(text)]


def table(text: str | bytes, name: str = "q.csv") -> str:
    raw = text.encode() if isinstance(text, str) else text
    Path(name).write_bytes(raw)
    return name


def questions(said: Said) -> list[str]:
    assert said.code == 0, said.err
    return [ask["content"] for line in lines(said.out) for ask in line["asks"]]


def refused(said: Said, *places: str) -> None:
    """Check that a conversion was refused in words, with its places."""
    assert said.code == 2, said.err
    assert said.out == b""
    assert "Traceback" not in said.err
    for place in places:
        assert place in said.err
    assert not Path("b.jsonl").exists()
    assert not list(Path().glob(".*.tmp"))


# -- encodings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "你好"),
        ("utf-8-sig", "你好"),
        ("utf-16", "你好"),
        ("utf-16-le", "一二三"),
        ("utf-16-be", "一二三"),
        ("utf-32", "你好"),
        ("gb18030", "你好"),
        ("gb18030", "春天"),
        ("gb18030", "好"),
        ("gb18030", "他说：“好”。"),
        ("gbk", "今天天气怎么样？请写一首诗"),
        ("big5", "請把這段話翻譯成英文"),
        ("shift_jis", "今日の天気はどうですか"),
        ("euc-jp", "こんにちは"),
        ("euc-kr", "안녕하세요"),
        ("cp1252", "Größe über naïve"),
    ],
)
def test_usual_encodings_are_found_out(
    convert: Callable[..., Said], encoding: str, text: str
) -> None:
    said = convert(table(f"id,content\n1,{text}\n".encode(encoding)))
    assert questions(said) == [text]
    assert ("read as" in said.err) is not encoding.startswith("utf-8")


def test_encoding_that_is_named_is_taken(convert: Callable[..., Said]) -> None:
    raw = "id,content\n1,你好\n".encode("big5")
    assert questions(convert(table(raw), "--encoding", "big5")) == ["你好"]
    refused(convert(table(raw), "--encoding", "utf-8"), "q.csv:2: ", "--encoding")
    refused(convert(table(raw), "--encoding", "hex"), "--encoding 'hex'", "gb18030")


def test_damaged_utf8_is_refused_with_its_row_and_not_taken_for_another(
    convert: Callable[..., Said],
) -> None:
    raw = "id,content\n1,你好, 世界\n2,".encode() + b"\xff\xfe\n"
    refused(convert(table(raw)), "q.csv:3: ")


def test_bytes_that_are_no_text_are_refused(convert: Callable[..., Said]) -> None:
    refused(convert(table(bytes(range(256)) * 20)), "q.csv")


# -- rows ----------------------------------------------------------------------------------


def test_columns_of_either_language_are_known_and_the_rest_goes_to_extra(
    convert: Callable[..., Said],
) -> None:
    text = "编号,问题,模型,topic,long\nq1,天?,gpt-4,t,12345678901234567890123\n,地?,,,\n"
    assert lines(convert(table(text)).out) == [
        {
            "id": "q1",
            "asks": [{"id": "a-1", "content": "天?"}],
            "model": "gpt-4",
            "extra": {"topic": "t", "long": "12345678901234567890123"},
        },
        {
            "id": "row-2",
            "asks": [{"id": "a-1", "content": "地?"}],
            "extra": {"topic": "", "long": ""},
        },
    ]


def test_columns_can_be_named(convert: Callable[..., Said]) -> None:
    name = table("content,ask me,g\nx,what?,g-1\n")
    (line,) = lines(convert(name, "--content", "ask me", "--gizmo-id", "g").out)
    assert line["asks"][0]["content"] == "what?"
    assert (line["gizmo_id"], line["extra"]) == ("g-1", {"content": "x"})
    refused(convert(name, "--content", "nope"), "--content 'nope'", "content, ask me, g")


def test_column_is_said_first_only_where_it_is_named(convert: Callable[..., Said]) -> None:
    name = table("conversation,content,system\nc,a,be brief\nc,b,\nd,x,\n")
    first, second = lines(convert(name, "--system", "system").out)
    assert (first["system"], "system" in second) == ("be brief", False)
    (first, second) = lines(convert(name).out)
    assert (first["extra"], "system" in first) == ({"system": "be brief"}, False)
    other = table("conversation,content,system\nc,a,one\nc,b,two\n", "other.csv")
    refused(convert(other, "--system", "system"), "other.csv:3: ", "the system is 'two'")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "--content"),
        ("content,prompt\na,b\n", "content, prompt"),
        ("content,x,x\na,b,c\n", "two columns are named 'x'"),
        ("content\n", "no rows"),
        ("", "is empty"),
        ("\n,,\n", "is empty"),
    ],
)
def test_header_that_cannot_be_used_is_refused(
    convert: Callable[..., Said], text: str, reason: str
) -> None:
    refused(convert(table(text), "-o", "b.jsonl"), "q.csv", reason)


def test_every_bad_row_is_told_with_its_number(convert: Callable[..., Said]) -> None:
    text = 'id,content\na,1,2\nb,"two\nlines"\n,,\nc,\nd,x\0y\n' + "e,\n" * 20
    said = convert(table(text), "-o", "b.jsonl")
    refused(said, "q.csv:2: 3 cells", "q.csv:5: the question", "q.csv:6: there is a NUL", "23 prob")
    assert said.err.count("q.csv:") == 10
    assert "and 13 more" in said.err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('content\nok\n"never closed\nx\n', "q.csv:3: "),
        ('content\n"one" more\n', "q.csv:2: "),
    ],
)
def test_quotes_that_do_not_match_are_refused_with_their_row(
    convert: Callable[..., Said], text: str, place: str
) -> None:
    refused(convert(table(text)), place, "quote")


def test_blank_rows_and_empty_cells_at_the_end_are_no_rows(convert: Callable[..., Said]) -> None:
    assert questions(convert(table("content,x\na\n\n,,,\n , \nb,c,,,\n"))) == ["a", "b"]


def test_cell_of_any_length_is_taken(convert: Callable[..., Said]) -> None:
    assert questions(convert(table(f"content\n{'x' * 1_400_000}\n"))) == ["x" * 1_400_000]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id;content\n1;a, b\n", ()),
        ("id\tcontent\n1\ta, b\n", ()),
        ("sep=|\nid|content\n1|a, b\n", ()),
        ("id:content\n1:a, b\n", ("--delimiter", ":")),
        ('id,content\r1,"a, b"\r', ()),
    ],
)
def test_delimiters_and_line_ends_are_found_out(
    convert: Callable[..., Said], text: str, words: tuple[str, ...]
) -> None:
    assert questions(convert(table(text), *words)) == ["a, b"]


def test_line_separators_of_unicode_are_text(convert: Callable[..., Said]) -> None:
    assert questions(convert(table("content\na\u2028b\u0085c\n"))) == ["a\u2028b\u0085c"]


# -- conversations and ids -----------------------------------------------------------------


def test_conversations_are_told_by_their_column(convert: Callable[..., Said]) -> None:
    text = "对话,id,content,t\nc1,1,a,x\nc2,2,b,\nc1,3,c,y\n,4,d,\n"
    first, second, third = lines(convert(table(text)).out)
    assert [ask["id"] for ask in first["asks"]] == ["1", "3"]
    assert (first["id"], second["id"], third["id"]) == ("c1", "c2", "4")
    assert first["extra"] == {"t": "x"}
    assert first["asks"][1]["extra"] == {"t": "y"}


def test_rows_with_the_id_of_the_row_before_follow_it_up_and_this_is_told(
    convert: Callable[..., Said],
) -> None:
    said = convert(table("id,content\n1,a\n1,b\n2,c\n"))
    assert [len(line["asks"]) for line in lines(said.out)] == [2, 1]
    assert "1 row with the id of the row before" in said.err


def test_equal_ids_apart_from_each_other_are_refused(convert: Callable[..., Said]) -> None:
    name = table("id,content\n1,a\n2,b\n1,c\n")
    refused(convert(name), "q.csv:4: ", "'1'", "q.csv:2")
    assert questions(convert(name, "--conversation", "id")) == ["a", "c", "b"]
    other = table("id,content\n2,z\n", "other.csv")
    refused(convert(table("id,content\n2,a\n"), other), "other.csv:2: ", "q.csv:2")


@pytest.mark.parametrize("column", ["model", "gizmo_id"])
def test_conversation_with_two_models_is_refused(convert: Callable[..., Said], column: str) -> None:
    text = f"conversation,content,{column}\nc,a,one\nc,b,\nc,d,two\n"
    refused(convert(table(text)), "q.csv:4: ", "'two'", "row 2")


def test_ids_that_stand_twice_in_a_conversation_are_refused(convert: Callable[..., Said]) -> None:
    refused(convert(table("conversation,id,content\nc,1,a\nc,1,b\n")), "q.csv:3: ", "row 2")


# -- workbooks -----------------------------------------------------------------------------


def workbook(*rows: list[Any], name: str = "q.xlsx") -> Any:
    book: Any = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(name)
    return book


def test_cells_of_a_workbook_are_as_the_sheet_shows_them(convert: Callable[..., Said]) -> None:
    book = workbook(
        ["id", "问题", "day", "moment", "share", "code", "long", "price", "yes"],
        [
            *(1.0, "你好", datetime(2024, 1, 5), datetime(2024, 1, 5, 12, 30)),  # noqa: DTZ001
            *(0.5, 42, "12345678901234567890", 0.1 + 0.2, True),
        ],
    )
    for cell, shape in (("E2", "0%"), ("F2", "0000")):
        book.active[cell].number_format = shape
    book.save("q.xlsx")
    (line,) = lines(convert("q.xlsx").out)
    assert line["id"] == "1"
    assert list(line["extra"].values()) == [
        *("2024-01-05", "2024-01-05 12:30:00", "50%", "0042"),
        *("12345678901234567890", "0.3", "TRUE"),
    ]


def test_hidden_sheets_are_left_out_unless_they_are_named(convert: Callable[..., Said]) -> None:
    book = workbook(["content"], ["hidden"])
    book.active.title = "one"
    book.active.sheet_state = "hidden"
    book.create_sheet("two").append(["content"])
    book["two"].append(["shown"])
    book.save("q.xlsx")
    said = convert("q.xlsx")
    assert questions(said) == ["shown"]
    assert "'two' of 2" in said.err
    assert questions(convert("q.xlsx", "--sheet", "one")) == ["hidden"]
    refused(convert("q.xlsx", "--sheet", "three"), "one, two")
    refused(convert(table("content\na\n"), "--sheet", "one"), "not a workbook")


def test_merged_cells_hold_in_each_of_their_rows(convert: Callable[..., Said]) -> None:
    book = workbook(["会话", "content"], ["c1", "a"], [None, "b"], [], ["c2", "c"])
    book.active.merge_cells("A2:A3")
    book.save("q.xlsx")
    said = convert("q.xlsx")
    assert [(line["id"], len(line["asks"])) for line in lines(said.out)] == [("c1", 2), ("c2", 1)]
    assert "merged" in said.err


def test_formulas_have_the_value_that_was_stored(convert: Callable[..., Said]) -> None:
    workbook(["content", "x"], ["a", "=1+1"])
    refused(convert("q.xlsx"), "q.xlsx:2: ", "B2", "save it again")
    with zipfile.ZipFile("q.xlsx") as old, zipfile.ZipFile("v.xlsx", "w") as new:
        for name in old.namelist():
            raw = old.read(name).replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>")
            new.writestr(name, raw)
    assert lines(convert("v.xlsx").out)[0]["extra"] == {"x": "2"}


def test_error_values_are_refused(convert: Callable[..., Said]) -> None:
    workbook(["content"], ["ok"], ["#N/A"])
    refused(convert("q.xlsx"), "q.xlsx:3: ", "#N/A")


def test_numbers_beyond_fifteen_digits_are_told(convert: Callable[..., Said]) -> None:
    workbook(["id", "content"], [1.234567890123457e18, "a"])
    said = convert("q.xlsx")
    assert lines(said.out)[0]["id"] == "1234567890123457000"
    assert "15 digits" in said.err


@pytest.mark.parametrize("keep", [100, 3000])
def test_torn_workbook_is_refused(convert: Callable[..., Said], keep: int) -> None:
    workbook(["content"], *[[f"question {number}"] for number in range(100)])
    refused(convert(table(Path("q.xlsx").read_bytes()[:keep], "t.xlsx")), "t.xlsx")


def test_old_workbooks_are_refused_with_what_to_do(convert: Callable[..., Said]) -> None:
    refused(convert(table(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "q.xls")), ".xlsx")


@pytest.mark.parametrize(
    ("module", "content"), [("openpyxl", b"PK\x03\x04"), ("chardet", "content\n你好".encode("gbk"))]
)
async def test_missing_library_is_told_with_how_to_install_it(
    bench: Bench, module: str, content: bytes
) -> None:
    if module == "openpyxl":
        workbook(["content"], ["a"], name="q.csv")
    else:
        table(content)
    missing = bench.folder / "missing" / module
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text(f"raise ImportError('no {module}')")
    said = await bench.call("convert", "q.csv", env={"PYTHONPATH": str(missing.parent)})
    assert said.code == 2
    assert "pip install 'gpt4batch[tables]'" in said.err


# -- attachments and pictures --------------------------------------------------------------


def test_paths_in_a_table_start_at_its_folder(convert: Callable[..., Said]) -> None:
    Path("jobs").mkdir()
    shutil.copy(LAKE, "jobs/a.png")
    Path("jobs/n.txt").write_text("n")
    table("content,image,file\nx,a.png; later.png,n.txt\ny,http://h/p.png,\n", "jobs/q.csv")
    said = convert("jobs/q.csv", "-o", "b.jsonl")
    assert said.code == 0
    first, second = lines(Path("b.jsonl").read_bytes())
    assert first["asks"][0]["images"] == ["jobs/a.png", "later.png"]
    assert first["asks"][0]["files"] == ["jobs/n.txt"]
    assert second["asks"][0]["images"] == ["http://h/p.png"]
    assert "not there yet: jobs/q.csv:2: later.png" in said.err


def not_pictures(folder: Path) -> None:
    """Put what only looks like pictures into a folder."""
    (folder / "x.png").mkdir(parents=True)
    (folder / "._y.png").write_bytes(b"\0\x05\x16\x07")
    (folder / "h.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (folder / "e.gif").touch()
    (folder / "t.jpg").write_text("text")
    (folder / "l.webp").symlink_to("nowhere")
    os.mkfifo(folder / "f.png")


def test_what_is_no_picture_is_refused_by_name(convert: Callable[..., Said]) -> None:
    not_pictures(Path("album"))
    Path("album/deep").mkdir()
    shutil.copy(LAKE, "album/deep/good.png")
    shutil.copy(LAKE, os.fsdecode(b"album/deep/\xff.png"))
    names = ["x.png", "._y.png", "h.HEIC", "e.gif", "t.jpg", "l.webp", "f.png", "deep/\\xff.png"]
    said = convert("album", "-o", "b.jsonl")
    refused(said, *[f"album/{name}: " for name in names])
    assert "good" not in said.err


def test_cells_that_name_no_picture_are_refused_with_their_row(
    convert: Callable[..., Said],
) -> None:
    not_pictures(Path("album"))
    rows = "".join(f"q,album/{name}\n" for name in ("x.png", "h.HEIC", "t.jpg"))
    refused(convert(table("content,image\n" + rows)), "q.csv:2: ", "q.csv:3: ", "q.csv:4: ")


def test_pictures_are_asked_about_in_the_order_of_their_names(
    convert: Callable[..., Said],
) -> None:
    for name in ("b.png", "a.PNG", "deep/a.png"):
        (Path("album") / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(LAKE, f"album/{name}")
    Path("album/notes.txt").write_text("no picture")
    made = lines(convert("album", "--ask", "What?", "--ask", "Shorter").out)
    assert [line["id"] for line in made] == ["album/a.PNG", "b", "album/deep/a.png"]
    assert made[1]["asks"] == [
        {"id": "a-1", "content": "What?", "images": ["album/b.png"]},
        {"id": "a-2", "content": "Shorter"},
    ]


def test_folder_without_pictures_is_refused(convert: Callable[..., Said]) -> None:
    Path("album").mkdir()
    refused(convert("album"), "album: there are no pictures")


# -- the file that is written --------------------------------------------------------------


def test_batch_that_is_there_is_kept_unless_forced(convert: Callable[..., Said]) -> None:
    Path("b.jsonl").write_text("mine")
    name = table("content\na\n")
    said = convert(name, "-o", "b.jsonl")
    assert (said.code, Path("b.jsonl").read_text()) == (2, "mine")
    assert "--force" in said.err
    assert convert(table("content\n"), "-o", "b.jsonl", "--force").code == 2
    assert Path("b.jsonl").read_text() == "mine"
    assert convert(table("content\na\n"), "-o", "b.jsonl", "--force").code == 0
    assert questions_in("b.jsonl") == ["a"]


def questions_in(name: str) -> list[str]:
    return [line["asks"][0]["content"] for line in lines(Path(name).read_bytes())]


def test_table_itself_is_never_replaced(convert: Callable[..., Said]) -> None:
    name = table("content\na\n")
    Path("link.csv").symlink_to(name)
    assert convert(name, "-o", "link.csv", "--force").code == 2
    assert Path(name).read_text() == "content\na\n"


@pytest.mark.parametrize("out", ["no/b.jsonl", "."])
def test_batch_that_cannot_be_written_is_told(convert: Callable[..., Said], out: str) -> None:
    said = convert(table("content\na\n"), "-o", out)
    assert (said.code, said.out) == (4, b"")
    assert f"-o {out}: " in said.err


def test_batch_has_the_usual_mode(convert: Callable[..., Said]) -> None:
    convert(table("content\na\n"), "-o", "b.jsonl")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(Path("b.jsonl").stat().st_mode) == 0o666 & ~mask


async def test_variables_of_a_run_mean_nothing_here(bench: Bench) -> None:
    table("content,gpt-4\na,b\n")
    env = {"GPT4BATCH_MODEL": "gpt-4", "GPT4BATCH_OUT": "out.jsonl"}
    said = await bench.call("convert", "-", env=env, stdin=b"content,gpt-4\na,b\n")
    assert said.code == 0
    assert rawjson.loads(said.out.encode())["extra"] == {"gpt-4": "b"}
    assert bench.names("*.jsonl") == []
