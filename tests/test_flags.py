from __future__ import annotations

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import typer
from conftest import COMMAND

from gpt4batch.cli import COMMANDS, module_of, prepared
from gpt4batch.cli.flags import command_of, environment_name, rewrite
from gpt4batch.service.wiring import endpoints
from gpt4batch.settings import AuthSettings, Flag, Settings, flags_of

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
    "skip-bad-results": False,
    "max-consecutive-failures": 20,
    "patience": 900,
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


def sample(spec: Flag) -> Any:
    if spec.choices:
        return spec.choices[-1]
    if spec.long == "price":
        return "in=1,out=2"
    if spec.long == "fail-on":
        return "length,empty"
    kinds = {bool: True, int: 7, float: 7.0, str: URL, tuple: ("api-key: secret-1",)}
    return kinds[spec.kind]


@pytest.mark.parametrize("long", SPECS)
def test_every_flag_is_read_in_every_form_and_spelling(long: str) -> None:
    name, spec = SPECS[long]
    default = getattr(Settings(), name)
    value: Any = not default if spec.kind is bool else sample(spec)
    text = value[0] if spec.kind is tuple else f"{value}".removesuffix(".0")
    text = text.lower() if spec.kind is bool else text
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
    value = not default if spec.kind is bool else sample(spec)
    monkeypatch.setenv(environment_name(spec), value[0] if isinstance(value, tuple) else str(value))
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
    assert found["chat"].endswith(f"{base}/{chat}")
    assert found["gizmos"].endswith(f"{base}/{gizmos}")
    assert found["upload"].endswith(f"{base}/{upload}")


def test_address_for_uploads_that_was_given_stays() -> None:
    other = "http://127.0.0.1:9/elsewhere"
    assert endpoints(Settings(url=URL, upload_url=other))["upload"] == other


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
        (["-q", "fast"], "-q"),
        (["-q=-1"], "-q"),
        (["-q", "nan"], "-q nan: must be a finite number"),
        (["-q", "inf"], "-q inf: must be a finite number"),
        (["-q", "1e20"], "-q 1e+20: must be at most 1,000,000,000"),
        (["-q", "1e-310"], "-q 1e-310: must be 0, or at least 1e-09"),
        (["--grace", "inf"], "--grace inf: must be a finite number"),
        (["--metrics-port", "70000"], "--metrics-port 70000: ports end at 65535"),
        (["-f=maybe"], "--fix"),
        (["--fix="], "--fix"),
        (["-f", "true"], "true"),
        (["-u", "ftp://host/x"], "--url"),
        (["-u", "host/x"], "--url"),
        (["-l", "uploaded"], "--upload_url"),
        (["-u", "http://host:port/x"], "--url"),
        (["-u", "http://[::1/x"], "--url"),
        (["-u", "http://127.0.0.1:9/a b"], "--url"),
        (["-u", "http://127.0.0.1:9/a\tb"], "--url"),
        (["-u", "http://user:secret@127.0.0.1:9/x"], "--url 'http://127.0.0.1:9/x': leave out"),
        (["-u", "http://user:secret@127.0.0.1:99999/x"], "--url 'http://127.0.0.1:99999/x'"),
        (["-l", "http://user:secret@127.0.0.1:9/x"], "--upload_url 'http://127.0.0.1:9/x'"),
        (["--limit", "few"], "'few'"),
        (["--fsync", "sometimes"], "--fsync"),
        (["--log-level", "loud"], "--log-level"),
        (["-v", "0"], "-v 0"),
        (["--retries=-1"], "--retries"),
        (["--timeout", "0"], "--timeout"),
        (["--proxy", "socks5://user:secret@host:1"], "--proxy 'socks5://host:1'"),
        (["--proxy", "user:secret@host:1"], "--proxy 'host:1'"),
        (["--proxy", "http://user:secret@host:99999"], "--proxy 'http://host:99999'"),
        (["--proxy", "http://user:secret@[::1"], "--proxy 'http://[::1'"),
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
    ("name", "text", "said"),
    [
        ("GPT4BATCH_GOROUTINE", "many", "Invalid value for GPT4BATCH_GOROUTINE (-g / --goroutine)"),
        ("GPT4BATCH_FIX", "maybe", "Invalid value for GPT4BATCH_FIX (-f / --fix)"),
        ("GPT4BATCH_QPS", "-1", "GPT4BATCH_QPS: -q -1: must not be below 0"),
        ("GPT4BATCH_LOG_LEVEL", "loud", "GPT4BATCH_LOG_LEVEL: --log-level 'loud': choose"),
        ("GPT4BATCH_PROXY", "http://[::1", "GPT4BATCH_PROXY: --proxy 'http://[::1'"),
        ("GPT4BATCH_TOKEN_URL", "http://user:secret@h/x", "GPT4BATCH_TOKEN_URL 'http://h/x'"),
        ("HTTP_PROXY", "http://user:secret@h:99999", "HTTP_PROXY 'http://h:99999'"),
        ("all_proxy", "socks5://user:secret@h:1", "all_proxy 'socks5://h:1': only http"),
    ],
)
async def test_wrong_environment_variable_is_refused_by_name(
    bench: Bench, name: str, text: str, said: str
) -> None:
    bench.write(bench.line(1, "one"))
    account = {"GPT4BATCH_EMAIL": "a", "GPT4BATCH_PASSWORD": "p"}
    for command in ("batchsvc", "check"):
        # No proxy is looked at for a service on this machine.
        url = "http://service.invalid/standard/all-tools"
        words = [command, "-i", "in.jsonl", "-u", url, "--token", "t"]
        result = await bench.call(*words, env=account | {name: text})
        assert result.code == 2, result.err
        assert said in result.err + result.out
        assert "Traceback" not in result.err
        assert "secret" not in result.err + result.out


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("GPT4BATCH_PORT", "many", "GPT4BATCH_PORT: 'many' is not a whole number"),
        ("GPT4BATCH_LATENCY", "-1", "GPT4BATCH_LATENCY: --latency -1: must not be below 0"),
    ],
)
async def test_wrong_variable_of_a_rehearsal_is_refused_by_name(
    bench: Bench, name: str, text: str, said: str
) -> None:
    bench.write(bench.line(1, "one"))
    result = await bench.call("batchsvc", "--mock", "-i", "in.jsonl", env={name: text})
    assert (result.code, result.err) == (2, f"gpt4batch: {said}\n")


async def test_empty_variable_is_not_set(bench: Bench) -> None:
    bench.write(bench.line(1, "one"))
    names = ("QPS", "FIX", "LOG_LEVEL", "URL", "LATENCY", "JITTER", "PORT", "RETRY_AFTER_DATE")
    env = {f"GPT4BATCH_{name}": "" for name in names} | {"HTTP_PROXY": ""}
    result = await bench.call("batchsvc", "--mock", "-i", "in.jsonl", "-q", "0", env=env)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("worksvc", b"the working folder is gone"),
        ("batchsvc", b"the working folder is gone"),
        ("check", b"the working folder is gone"),
    ],
)
async def test_command_in_a_folder_that_is_gone_is_refused(
    bench: Bench, command: str, said: bytes
) -> None:
    source = bench.write(bench.line(1, "one"))
    more = ["--name", "w"] if command == "worksvc" else ["-i", str(source)]
    words = [*COMMAND, command, "--token", "t", "-u", URL, *more]
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    with anyio.fail_after(60):
        done = await anyio.run_process(["sh", "-c", script, "sh", *words], check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_white_space_around_an_address_is_left_out() -> None:
    assert parse("-u", f" {URL}\n").url == URL


@pytest.mark.parametrize("command", ["batchsvc", "authsvc", "mocksvc"])
async def test_help_names_every_flag(bench: Bench, command: str) -> None:
    result = await bench.call(command, "--help-all")
    assert result.code == 0
    assert result.err == ""
    module: Any = module_of(command)
    for _, _, spec in flags_of(module.SETTINGS):
        assert f"--{spec.long}" in result.out
        assert not spec.short or f"-{spec.short} " in result.out


async def test_help_at_the_end_of_a_bundle_is_help(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-fh")
    assert (result.code, "--goroutine" in result.out) == (0, True)


@pytest.mark.parametrize("variable", ["LANG", "LC_ALL", "LC_MESSAGES"])
async def test_help_is_chinese_where_the_locale_is(bench: Bench, variable: str) -> None:
    result = await bench.call("batchsvc", "--help-all", env={variable: "zh_CN.UTF-8"})
    assert result.code == 0
    for words in (
        "下载回答中链接的文件。",
        "下载文件名的前缀。",
        "续跑：",
        "快照的间隔分钟数。",
        "用法：",
    ):
        assert words in result.out
    assert "Folder for downloads" not in result.out


async def test_help_is_english_elsewhere(bench: Bench) -> None:
    result = await bench.call("batchsvc", "-h", env={"LANG": "de_DE.UTF-8"})
    assert "Folder for downloads" in result.out
    assert "下载" not in result.out


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


# Help by what people do, and refusals that say what to do


async def test_help_is_short_and_names_the_flag_for_the_rest(bench: Bench) -> None:
    short = (await bench.call("batchsvc", "--help")).out
    whole = (await bench.call("batchsvc", "--help-all")).out
    assert len(short.splitlines()) < len(whole.splitlines()) / 2
    assert "gpt4batch batchsvc --help-all" in short
    assert ("--fsync" in short, "--fsync" in whole) == (False, True)
    assert short.index("gpt4batch batchsvc -i questions.jsonl") < short.index("--in ")
    assert short.index("--in ") < short.index("--out ") < short.index("--qps")


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_shows_examples_that_can_be_parsed(bench: Bench, command: str) -> None:
    module: Any = module_of(command)
    shown = " ".join((await bench.call(command, "--help")).out.split())
    for example in module.EXAMPLES:
        program, name, *words = shlex.split(example)
        assert (program, name) == ("gpt4batch", command)
        assert example in shown
        longs = {spec.long for _, _, spec in flags_of(module.SETTINGS)}
        for word in rewrite(words, [spec for _, _, spec in flags_of(module.SETTINGS)]):
            assert not word.startswith("--") or word[2:].partition("=")[0] in longs


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["batchsvc", "-f", "false"], "-f takes no separate word: -f=false"),
        (["batchsvc", "--quiet", "0"], "--quiet takes no separate word: --quiet=0"),
        (["batchsvc", "questions.jsonl"], "did you mean -i questions.jsonl?"),
        (["-q", "3"], "-q belongs to batchsvc, check, worksvc: gpt4batch batchsvc -q …"),
        (["batchsvc", "-q", "-1"], "-q -1: must not be below 0"),
    ],
)
async def test_refusal_says_what_may_be_meant(bench: Bench, words: list[str], advice: str) -> None:
    result = await bench.call(*words)
    assert result.code == 2
    assert advice in " ".join(result.err.split()), result.err
