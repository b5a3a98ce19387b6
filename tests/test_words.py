"""What people read is in their language, and what files hold is not."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpt4batch import errors, words
from gpt4batch.cli.frame import SAID_BY_TYPER, pattern_of
from gpt4batch.errors import InputError, RejectedError, UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import error_record
from gpt4batch.service.secrets import Secrets
from gpt4batch.words import because, catalogue, counted, joined, spoken, tr
from scripts.words import faults, holes_of

if TYPE_CHECKING:
    from conftest import Bench

    from gpt4batch.mock.server import MockService

PACKAGE = Path(words.__file__).parent
CHINESE = {"LC_ALL": "zh_CN.UTF-8"}
HAN = re.compile(r"[\u4e00-\u9fff]")
OURS = {
    name
    for name, item in vars(errors).items()
    if isinstance(item, type) and issubclass(item, Exception)
} | {
    "BadLine",
    "JSONError",
    "UntakenError",
}
"""The errors whose text is shown, or becomes part of one that is."""


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    words.language.cache_clear()


# The catalogue


def test_catalogue_is_in_step_with_the_code() -> None:
    assert list(faults()) == [], "run make words, and translate what it names"


@pytest.mark.parametrize(
    ("text", "holes"),
    [
        ("{n:,} of {most} at {url!r}", {"n!s:,", "most!s:", "url!r:"}),
        ("%s: %d of %(name)s", {"0: s", "1: d", "name: s"}),
        ("90% within, each 'Name: value'", set()),
    ],
)
def test_what_is_filled_in_is_found(text: str, holes: set[str]) -> None:
    assert holes_of(text) == holes


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if "mock" not in path.parts]


def test_every_error_is_raised_with_a_message() -> None:
    bare = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            texts = [arg for arg in node.args if isinstance(arg, ast.JoinedStr | ast.Constant)]
            plain = [
                arg
                for arg in texts
                if isinstance(arg, ast.JoinedStr) or isinstance(getattr(arg, "value", 0), str)
            ]
            if name in OURS and plain:
                bare.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert bare == []


def test_reasons_are_those_of_the_system() -> None:
    known = {os.strerror(number) for number in range(1, 134)}
    of_names = {"Name or service not known", "Temporary failure in name resolution"}
    assert set(words.REASONS) - of_names <= known


# Messages


def test_message_is_english_in_files_and_chinese_on_the_screen(chinese: None) -> None:
    gone = because(FileNotFoundError(2, os.strerror(2)))
    error = RejectedError(tr("cannot read {path}: {reason}", path="a{b}.png", reason=gone))
    english = "cannot read a{b}.png: No such file or directory"
    assert rawjson.loads(rawjson.dumps(error_record(error)))["message"] == english
    assert spoken(error) == "无法读取 a{b}.png：文件不存在"


def test_message_within_a_message_is_shown_in_the_same_language(chinese: None) -> None:
    bad = InputError("in.jsonl", 3, tr("asks is missing"))
    listed = joined("\n", ("1", tr("{place}: {error}", place="x", error=bad)))
    assert str(listed) == "1\nx: in.jsonl:3: asks is missing"
    assert spoken(listed) == "1\nx：in.jsonl:3：缺少 asks"


def test_number_chooses_the_form_of_the_english_sentence(chinese: None) -> None:
    one, many = (counted("{n:,} line", "{n:,} lines", number) for number in (1, 1000))
    assert (str(one), str(many)) == ("1 line", "1,000 lines")
    assert (spoken(one), spoken(many)) == ("1 行", "1,000 行")


def test_secret_in_a_value_is_hidden_in_every_language(chinese: None) -> None:
    secrets = Secrets()
    secrets.add("geheim-123")
    inner = UsageError(tr("cannot read {path}: {reason}", path="geheim-123", reason="no"))
    text = secrets.scrub(tr("{text}: {words}", text=inner, words="geheim-123"))
    assert "geheim" not in text + spoken(text)
    assert spoken(text) == "无法读取 ***：no：***"


@pytest.mark.parametrize("sentence", SAID_BY_TYPER, ids=str)
def test_sentence_of_typer_is_found_by_its_template(sentence: words.Message) -> None:
    names = {hole.partition("!")[0] for hole in holes_of(sentence.template)}
    values = {name: f"'--{name}'" for name in names}
    found = pattern_of(sentence).fullmatch(sentence.filled(**values))
    assert found is not None
    assert found.groupdict() == values


# The locale


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, ""),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, ""),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.GBK"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en:zh"}, ""),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "fr:zh"}, "zh"),
        ({"LC_ALL": "C", "LANGUAGE": "zh_CN"}, ""),
        ({"LC_ALL": "C.UTF-8", "LANGUAGE": "zh_CN"}, ""),
    ],
)
def test_locale_chooses_the_language(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    monkeypatch.delenv("LANG")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    words.language.cache_clear()
    assert words.language() == name


# The real command


REFUSED = {
    "no token": (["batchsvc", "-i", "in.jsonl"], "没有令牌：找不到 "),
    "no input": (["batchsvc", "--mock", "-i", "gone.jsonl"], "无法读取输入 gone.jsonl：文件不存在"),
    "bad lines": (["batchsvc", "--mock", "-i", "bad.jsonl"], "bad.jsonl:2：缺少 asks"),
    "bad address": (["batchsvc", "-u", "ftp://x"], "不是 http(s) 地址"),
    "no places": (["batchsvc", "-g", "0"], "-g 0：至少要同时运行一行"),
    "no number": (["batchsvc", "-q", "x"], "'-q' / '--qps' 的值无效：'x' 不是数字"),
    "unknown flag": (["batchsvc", "--qqs", "1"], "没有此参数：--qqs（相近的参数：--qps）"),
    "unknown command": (["batchsv"], "没有命令 'batchsv'。是否想用 'batchsvc'"),
    "no value": (["batchsvc", "-i"], "-i 需要一个值"),
    "no email": (["authsvc"], "缺少 -e 邮箱"),
    "no output": (["viewsvc"], "viewsvc：请指定输出文件"),
    "no table": (["convert", "gone.csv"], "gone.csv：无法读取：文件不存在"),
    "no such output": (["results", "gone.jsonl"], "无法读取输入 gone.jsonl：文件不存在"),
    "no log": (["batchsvc", "--mock", "--log-file", "gone/log"], "--log-file gone/log：文件不存在"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_refusal_is_told_in_chinese(bench: Bench, what: str) -> None:
    bench.write(bench.line(1, "x"))
    bench.write(bench.line(1, "x"), {"id": 2}, name="bad.jsonl")
    given, said = REFUSED[what]
    result = await bench.call(*given, env=CHINESE)
    assert result.code == 2
    assert said in " ".join(result.err.split()), result.err
    assert not re.search(r"(?i)\b(?:error|try|usage|cannot|missing|not)\b", result.err)


async def test_run_is_told_in_chinese_throughout(bench: Bench, service: MockService) -> None:
    fails = "[[mock:400*1]]"
    bench.write(
        bench.line(1, "a"),
        bench.line(2, f"b {fails}"),
        {"id": 3, "asks": [{"content": "c", "images": ["x.png"]}]},
    )
    bench.write(bench.line(0, "old"), name="out.jsonl")
    words = bench.batchsvc(service.origin, "-d", "files", "--log-level", "debug")
    result = await bench.call(*words, env=CHINESE)
    assert result.code == 1
    rows = result.err.splitlines()
    english = [row for row in rows if not HAN.search(row) and "400 Bad Request" not in row]
    assert english == []


async def outcome(bench: Bench, service: MockService, **env: str) -> tuple[Any, ...]:
    """Return what a run with two kinds of failures leaves in its files."""
    bench.write(
        bench.line(1, "a [[mock:400*9]]"),
        {"id": 2, "asks": [{"content": "b", "images": ["x.png"]}]},
        b"[1]",
    )
    words = bench.batchsvc(service.origin, "--skip-bad-lines", "--summary", "s.json")
    words += ["-d", "files", "--log-format", "json", "--log-file", "log"]
    assert (await bench.call(*words, env=env)).code == 1
    summary = rawjson.loads((bench.folder / "s.json").read_bytes())
    log = [rawjson.loads(row) for row in (bench.folder / "log").read_bytes().splitlines()]
    found = [line["iErr"] for line in bench.read()], summary["failures"], summary["next"]
    for name in ("out.jsonl", "log"):
        (bench.folder / name).unlink()
    return *found, [(row["level"], row["message"]) for row in log]


async def test_files_are_the_same_in_every_locale(bench: Bench, service: MockService) -> None:
    english = await outcome(bench, service, LC_ALL="C.UTF-8")
    assert await outcome(bench, service, **CHINESE) == english
    assert not HAN.search(repr(english))


async def test_check_tells_people_in_chinese_and_programs_in_english(bench: Bench) -> None:
    bench.write(bench.line(1, "x"), {"id": 2})
    words = ("check", "--mock", "-i", "in.jsonl")
    told = await bench.call(*words, env=CHINESE)
    assert "  输入：in.jsonl:2：缺少 asks" in told.out
    report = await bench.call(*words, "--json", env=CHINESE)
    assert not HAN.search(report.out)
    assert "in.jsonl:2: asks is missing" in report.out


def test_catalogue_of_a_language_that_is_not_there_is_english() -> None:
    assert catalogue("").gettext("asks is missing") == "asks is missing"
