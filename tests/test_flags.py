from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
import typer

from gpt4batch.cli import prepared
from gpt4batch.cli.flags import command_of, environment_name
from gpt4batch.settings import AuthSettings, Settings, endpoints, flags_of

if TYPE_CHECKING:
    from conftest import Bench

ORIGINAL = """
-d, --download-dir string
-p, --download-prefix string GPT4API
-e, --enable-download bool true
-n, --enable_nsq bool false
-f, --fix bool false
-z, --gizmo-id string
-g, --goroutine int 60
-s, --history_and_training_disabled bool true
-i, --in string example.jsonl
-m, --model string gpt-4-gizmo
-o, --out string out.jsonl
-q, --qps int 1
-r, --rdb bool true
-v, --rdb_interval int 60
-l, --upload_url string https://beta.gpt4api.plus/standard/uploaded
-u, --url string https://beta.gpt4api.plus/standard/all-tools
"""
AUTH = """
-e, --email string
-p, --password string
-t, --ttl int 86400
-u, --url string https://beta.gpt4api.shop/console/access_token
"""
OURS = {
    "token": "",
    "token-file": "",
    "retries": 5,
    "timeout": 480,
    "limit": 0,
    "max-calls": 0,
    "fsync": "interval",
    "mock": False,
    "proxy": "",
    "nsqd-tcp-address": "127.0.0.1:4150",
    "nsq-topic": "gpt4api",
    "summary": "",
    "log-level": "info",
    "log-format": "text",
    "log-file": "",
    "quiet": False,
    "skip-bad-lines": False,
    "max-consecutive-failures": 20,
    "grace": 20,
}
SPECS = {spec.long: (name, spec) for name, _, spec in flags_of(Settings)}
URL = "http://127.0.0.1:9/concurrent/all-tools"


def parse(*words: str, settings: type = Settings, command: str = "batchsvc") -> Any:
    """Return the settings that a command line asks for, parsed as the real command does."""
    found: list[Any] = []
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command(command)(command_of(settings, found.append))
    app(prepared([command, *words]), standalone_mode=False)
    return found[0]


def table(text: str) -> list[tuple[str, str, str, str]]:
    rows = [line.split() for line in text.strip().splitlines()]
    return [(row[0][1], row[1][2:], row[2], "".join(row[3:])) for row in rows]


@pytest.mark.parametrize(
    ("settings", "row"),
    [(Settings, row) for row in table(ORIGINAL)] + [(AuthSettings, row) for row in table(AUTH)],
    ids=lambda value: value[1] if isinstance(value, tuple) else value.__name__,
)
def test_flag_of_the_original_has_its_names_kind_and_default(
    settings: type, row: tuple[str, str, str, str]
) -> None:
    short, long, kind, default = row
    found = {spec.long: (spec, value) for _, value, spec in flags_of(settings)}
    spec, value = found[long]
    assert spec.short == short
    shown = str(value).lower() if kind == "bool" else f"{value:g}" if kind == "int" else value
    if long == "ttl":
        shown = str(value)
    assert shown == default
    assert spec.kind in {"string": (str,), "bool": (bool,), "int": (int, float)}[kind]


@pytest.mark.parametrize(("long", "default"), OURS.items())
def test_flag_of_the_contract_has_its_default(long: str, default: Any) -> None:
    name, _ = SPECS[long]
    assert getattr(Settings(), name) == default


def test_no_flags_give_the_defaults() -> None:
    assert parse() == Settings()
    assert parse(settings=AuthSettings, command="authsvc") == AuthSettings()


def sample(kind: type, choices: tuple[str, ...]) -> Any:
    if choices:
        return choices[-1]
    return {bool: True, int: 7, float: 7.0, str: URL}[kind]


@pytest.mark.parametrize("long", SPECS)
def test_every_flag_is_read_in_every_form_and_spelling(long: str) -> None:
    name, spec = SPECS[long]
    default = getattr(Settings(), name)
    value = not default if spec.kind is bool else sample(spec.kind, spec.choices)
    text = str(value).lower() if spec.kind is bool else f"{value}".removesuffix(".0")
    forms = []
    for spelling in {long, long.replace("_", "-"), long.replace("-", "_")}:
        forms.append([f"--{spelling}={text}"])
        forms.append([f"--{spelling}"] if value is True else [f"--{spelling}={text}"])
        if spec.kind is not bool:
            forms.append([f"--{spelling}", text])
    if spec.short:
        forms.append([f"-{spec.short}={text}"])
        if spec.kind is not bool:
            forms += [[f"-{spec.short}", text], [f"-{spec.short}{text}"]]
    for words in forms:
        found = parse(*words)
        assert getattr(found, name) == value, words
        others = [item.name for item in fields(Settings) if item.name != name]
        assert all(getattr(found, other) == getattr(Settings(), other) for other in others), words


@pytest.mark.parametrize("long", SPECS)
def test_every_flag_is_set_by_its_environment_variable(
    long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, spec = SPECS[long]
    assert environment_name(spec) == "GPT4BATCH_" + long.upper().replace("-", "_")
    default = getattr(Settings(), name)
    value = not default if spec.kind is bool else sample(spec.kind, spec.choices)
    monkeypatch.setenv(environment_name(spec), str(value))
    assert getattr(parse(), name) == value
    if spec.kind is bool:
        assert getattr(parse(f"--{long}={default}"), name) == default


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True", "tRuE"])
def test_boolean_takes_every_word_for_true(text: str) -> None:
    assert parse(f"-f={text}").fix is True
    assert parse(f"--fix={text}").fix is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_boolean_takes_every_word_for_false(text: str) -> None:
    assert parse(f"-e={text}").enable_download is False
    assert parse(f"--enable-download={text}").enable_download is False


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("-fn", {"fix": True, "enable_nsq": True}),
        ("-fng30", {"fix": True, "enable_nsq": True, "goroutine": 30}),
        ("-fng=30", {"fix": True, "enable_nsq": True, "goroutine": 30}),
        ("-fg 30", {"fix": True, "goroutine": 30}),
        ("-nf=false", {"enable_nsq": True, "fix": False}),
        ("-fe=false -n", {"fix": True, "enable_download": False, "enable_nsq": True}),
        ("-oresult.jsonl", {"out": "result.jsonl"}),
        ("-o=-", {"out": "-"}),
        ("-o -", {"out": "-"}),
        ("-i - -o-", {"input": "-", "out": "-"}),
        ("-p=", {"download_prefix": ""}),
        ("--download-prefix=a=b", {"download_prefix": "a=b"}),
        ("-p -f", {"download_prefix": "-f", "fix": False}),
        ("--out --fix", {"out": "--fix", "fix": False}),
        ("-f -f=false", {"fix": False}),
        ("-g 3 -g 4", {"goroutine": 4}),
        ("-q 0", {"qps": 0.0}),
        ("-q 0.5", {"qps": 0.5}),
        ("-m gpt-4 -f=true", {"model": "gpt-4", "fix": True}),
    ],
)
def test_forms_of_pflag_are_understood(words: str, wanted: dict[str, Any]) -> None:
    found = parse(*words.split())
    assert {name: getattr(found, name) for name in wanted} == wanted


def test_value_may_hold_spaces_and_chinese() -> None:
    assert parse("-i", "输入 文件.jsonl", "-d=下载 夹").input == "输入 文件.jsonl"
    assert parse("-d=下载 夹").download_dir == "下载 夹"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, ("all-tools", "gizmos", "uploaded", "beta.gpt4api.plus/standard")),
        ({"url": URL}, ("all-tools", "all-tools", "uploaded", "127.0.0.1:9/concurrent")),
    ],
)
def test_addresses_left_alone_are_siblings(
    settings: dict[str, Any], wanted: tuple[str, str, str, str]
) -> None:
    found = endpoints(Settings(**settings))
    chat, gizmos, upload, base = wanted
    assert found.chat.endswith(f"{base}/{chat}")
    assert found.gizmos.endswith(f"{base}/{gizmos}")
    assert found.upload.endswith(f"{base}/{upload}")


def test_address_for_uploads_that_was_given_stays() -> None:
    other = "http://127.0.0.1:9/elsewhere"
    assert endpoints(Settings(url=URL, upload_url=other)).upload == other


# The real command


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--goroutin", "3"], "--goroutin"),
        (["--no-such-flag"], "--no-such-flag"),
        (["-k"], "-k"),
        (["-fk"], "-k"),
        (["-g", "many"], "--goroutine"),
        (["-g", "1.5"], "--goroutine"),
        (["-g", "0"], "-g 0"),
        (["-g=-3"], "-3"),
        (["-g"], "-g"),
        (["--out"], "--out"),
        (["-q", "fast"], "--qps"),
        (["-q=-1"], "--qps"),
        (["-q", "nan"], "--qps"),
        (["-q", "inf"], "--qps"),
        (["-f=maybe"], "--fix"),
        (["--fix="], "--fix"),
        (["-f", "true"], "true"),
        (["-u", "ftp://host/x"], "--url"),
        (["-u", "host/x"], "--url"),
        (["-l", "uploaded"], "--upload_url"),
        (["-u", "http://host:port/x"], "--url"),
        (["-u", "http://[::1/x"], "--url"),
        (["--limit", "few"], "'few'"),
        (["--fsync", "sometimes"], "--fsync"),
        (["--log-level", "loud"], "--log-level"),
        (["-v", "0"], "-v 0"),
        (["--retries=-1"], "--retries"),
        (["--timeout", "0"], "--timeout"),
        (["--proxy", "socks5://user:secret@host:1"], "proxy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_wrong_flag_is_refused_by_name(bench: Bench, words: list[str], named: str) -> None:
    bench.write(bench.line(1, "one"))
    result = await bench.call("batchsvc", "-i", "in.jsonl", "--token", "t-secret", *words)
    assert result.code == 2, result.err
    assert named in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    assert "secret" not in result.err
    assert bench.names("*.jsonl") == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "text"), [("GPT4BATCH_GOROUTINE", "many"), ("GPT4BATCH_FIX", "maybe")]
)
async def test_wrong_environment_variable_is_refused_by_name(
    bench: Bench, name: str, text: str
) -> None:
    result = await bench.call("batchsvc", env={name: text})
    assert result.code == 2
    assert name in result.err or f"--{name.removeprefix('GPT4BATCH_').lower()}" in result.err
    assert text in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["batchsvc", "authsvc", "mocksvc"])
@pytest.mark.parametrize("word", ["-h", "--help"])
async def test_help_names_every_flag(bench: Bench, command: str, word: str) -> None:
    from gpt4batch.cli import COMMANDS

    result = await bench.call(command, word)
    assert result.code == 0
    assert result.err == ""
    module: Any = COMMANDS[command]
    for _, _, spec in flags_of(module.SETTINGS):
        assert f"--{spec.long}" in result.out
        assert not spec.short or f"-{spec.short} " in result.out


async def test_help_at_the_end_of_a_bundle_is_help(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-fh")
    assert (result.code, "--goroutine" in result.out) == (0, True)


@pytest.mark.parametrize("variable", ["LANG", "LC_ALL", "LC_MESSAGES"])
async def test_help_is_chinese_where_the_locale_is(bench: Bench, variable: str) -> None:
    result = await bench.call("batchsvc", "-h", env={variable: "zh_CN.UTF-8"})
    assert result.code == 0
    for words in ("是否开启文件下载", "设置文件下载前缀", "续跑模式", "RDB缓存时间间隔"):
        assert words in result.out
    assert "Folder for downloads" not in result.out


async def test_help_is_english_elsewhere(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-h", env={"LANG": "de_DE.UTF-8"})
    assert "Folder for downloads" in result.out
    assert "是否" not in result.out


async def test_unknown_command_is_refused(bench: Bench) -> None:
    result = await bench.call("batchsv")
    assert result.code == 2
    assert "batchsv" in result.err
    assert "Traceback" not in result.err


async def test_missing_input_is_refused_by_name(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-i", "nowhere.jsonl", "--token", "t")
    assert result.code == 2
    assert "nowhere.jsonl: No such file" in result.last
    assert bench.names("*.jsonl") == []
