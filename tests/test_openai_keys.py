"""Addresses, keys and headers of a service of chat completions, and what never leaves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from completions import completion, completions, once, saying

from gpt4batch import Settings
from gpt4batch.batch.preflight import check
from gpt4batch.dialects.known import dialect_for
from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

KEY = "sk-test-4a9c1b77"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


async def run(bench: Bench, origin: str, **settings: Any) -> Any:
    given = {"url": f"{origin}/v1", "model": "m", "token": "", "retries": 0} | settings
    return await bench.run(origin, **given)


def store(folder: Path, token: str) -> None:
    """Store a token as authsvc does."""
    path = folder / "user" / ".gpt4api-sk.pub"
    path.write_bytes(rawjson.dumps({"access_token": token, "expired_at": None, "username": "u"}))
    path.chmod(0o600)


# Which dialect, and where


@pytest.mark.parametrize(
    ("given", "name", "address"),
    [
        ({"url": "http://h/standard/all-tools"}, "gpt4api", "http://h/standard/all-tools"),
        ({"url": "http://h/x/gizmos/"}, "gpt4api", "http://h/x/gizmos/"),
        ({"url": "http://h/v1"}, "openai", "http://h/v1/chat/completions"),
        ({"url": "http://h/v1/"}, "openai", "http://h/v1/chat/completions"),
        ({"url": "http://h/api/paas/v4"}, "openai", "http://h/api/paas/v4/chat/completions"),
        ({"url": "http://h/v1beta"}, "openai", "http://h/v1beta/chat/completions"),
        ({"url": "http://h/x/chat/completions"}, "openai", "http://h/x/chat/completions"),
        (
            {"url": "http://h/deployments/d/chat/completions?api-version=1"},
            "openai",
            "http://h/deployments/d/chat/completions?api-version=1",
        ),
        ({"url": "http://h/any", "api": "openai"}, "openai", "http://h/any/chat/completions"),
        ({"url": "http://h", "api": "openai"}, "openai", "http://h/chat/completions"),
        ({"url": "http://h/any", "api": "gpt4api"}, "gpt4api", "http://h/any"),
        ({"url": "http://h/v1", "api": "gpt4api"}, "gpt4api", "http://h/v1"),
        ({}, "gpt4api", Settings().url),
    ],
)
def test_address_says_what_is_spoken_and_the_flag_comes_before_it(
    given: dict[str, Any], name: str, address: str
) -> None:
    settings = Settings(**given)
    dialect = dialect_for(settings)
    assert dialect.name == name
    assert dialect.addresses(settings.url, settings.upload_url)["chat"] == address


@pytest.mark.parametrize("command", ["batchsvc", "check"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-u", "http://127.0.0.1:9/any"], "set --api gpt4api or --api openai"),
        (["-u", "http://127.0.0.1:9/version1"], "set --api gpt4api or --api openai"),
        (["--api", "anthropic"], "--api 'anthropic': choose one of gpt4api, openai"),
        (["--api", "openai"], "--api openai needs -u"),
        (["-u", "http://127.0.0.1:9/v1", "-m", "m", "-z", "g-1"], "-z g-1: gizmos are those"),
        (["-u", "http://127.0.0.1:9/v1"], "no model is named: set -m"),
        (["--stream", "--token", "t"], "--stream: gpt4api has no streams"),
        (["-u", "http://127.0.0.1:9/v1", "--fail-on", "empty,odd"], "--fail-on 'odd': choose of"),
        (["-u", "http://127.0.0.1:9/v1", "--header", "api-key"], "'Name: value'"),
        (["-u", "http://127.0.0.1:9/v1", "--header", "Host: h"], "--header Host: this header"),
        (["-u", "http://127.0.0.1:9/v1", "--idle-timeout", "0"], "--idle-timeout 0"),
        (["-u", "http://8.8.8.8/v1", "-m", "m"], "no key for 8.8.8.8: set OPENAI_API_KEY"),
        (["-u", "https://api.deepseek.com/v1", "-m", "m"], "no key for api.deepseek.com"),
        (["-u", "http://198.18.0.5/v1", "-m", "m"], "no key for 198.18.0.5"),  # of a proxy's own
    ],
)
async def test_run_and_check_refuse_before_the_first_call(
    bench: Bench, command: str, words: list[str], told: str
) -> None:
    bench.write(bench.line(1, "a"))
    store(bench.folder, "the-token-of-gpt4api")
    result = await bench.call(command, "-i", "in.jsonl", *words)
    assert result.code == 2
    assert told in result.err + result.out
    assert "the-token-of-gpt4api" not in result.err + result.out


# Keys


@pytest.mark.parametrize(
    ("environment", "flags", "sent"),
    [
        ({"OPENAI_API_KEY": KEY}, [], f"Bearer {KEY}"),
        ({"OPENAI_API_KEY": "other", "GPT4BATCH_TOKEN": KEY}, [], f"Bearer {KEY}"),
        ({"OPENAI_API_KEY": "other"}, ["--token-file", "key.txt"], f"Bearer {KEY}"),
        ({"GPT4BATCH_TOKEN": "other"}, ["--token", KEY], f"Bearer {KEY}"),
        ({}, [], None),
    ],
)
async def test_key_comes_from_flags_then_environment_and_never_from_the_store(
    bench: Bench, environment: dict[str, str], flags: list[str], sent: str | None
) -> None:
    store(bench.folder, "the-token-of-gpt4api")
    (bench.folder / "key.txt").write_text(f"{KEY}\n")
    (bench.folder / "key.txt").chmod(0o600)
    bench.write(bench.line(1, "a"))
    async with completions() as service:
        words = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-m", "m", "-u", f"{service.origin}/v1"]
        result = await bench.call(*words, *flags, env=environment)
    assert result.code == 0, result.err
    assert [headers.get("authorization") for headers in service.headers] == [sent]


async def test_stored_token_and_account_do_not_help_where_a_key_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(bench.folder, "the-token-of-gpt4api")
    monkeypatch.setenv("GPT4BATCH_EMAIL", "e@example.test")
    monkeypatch.setenv("GPT4BATCH_PASSWORD", "the-password")
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    refused = saying(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    async with completions(a=refused, b=refused) as service:
        summary = await run(bench, service.origin, token=KEY, goroutine=1)
    assert summary.exit_code == 3
    assert "OPENAI_API_KEY" in summary.stopped
    assert "authsvc" not in summary.stopped
    assert KEY not in summary.stopped
    assert {headers["authorization"] for headers in service.headers} == {f"Bearer {KEY}"}


async def test_key_that_was_changed_in_its_file_is_taken_up(bench: Bench) -> None:
    path = bench.folder / "key.txt"
    path.write_text("old-key-1")
    path.chmod(0o600)

    async def refuse(request: Any, body: Any) -> Any:
        path.write_text("new-key-2")
        return await saying(401, {"error": {"message": "expired"}})(request, body)

    bench.write(bench.line(1, "a"))
    async with completions(a=once(refuse)) as service:
        summary = await run(bench, service.origin, token_file=str(path))
    assert summary.done == 1
    assert [h["authorization"] for h in service.headers] == ["Bearer old-key-1", "Bearer new-key-2"]


async def test_headers_are_sent_and_their_values_are_shown_nowhere(bench: Bench) -> None:
    echo = {"error": {"message": f"bad: {KEY} and second-secret-9"}}
    kept = completion("", note=f"{KEY}")
    bench.write(bench.line(1, "a"), bench.line(2, "b"), bench.line(3, "c"))
    async with completions(a=saying(400, echo), b=saying(200, kept)) as service:
        words = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-m", "m", "-u", f"{service.origin}/v1"]
        words += ["--header", f"Api-Key: {KEY}", "--log-level", "debug", "--summary", "s.json"]
        words += ["--header", "Authorization: Bearer second-secret-9", "--retries", "0"]
        result = await bench.call(*words, env={"OPENAI_API_KEY": "not-this-one"})
    assert result.code == 1
    sent = {(h["api-key"], h["authorization"]) for h in service.headers}
    assert sent == {(KEY, "Bearer second-secret-9")}
    told = result.err + result.out
    told += "".join(path.read_text() for path in bench.folder.glob("*.json*"))
    assert "bad: *** and ***" in told
    assert KEY not in told
    assert "second-secret-9" not in told
    assert "(and --header as before)" in told


async def test_headers_come_from_the_environment_a_line_each(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    async with completions() as service:
        words = ["batchsvc", "-i", "in.jsonl", "-q", "0", "-m", "m", "-u", f"{service.origin}/v1"]
        named = {"GPT4BATCH_HEADER": f"api-key: {KEY}\nX-Title: some words\n"}
        result = await bench.call(*words, env=named)
    assert result.code == 0
    (headers,) = service.headers
    assert (headers["api-key"], headers["x-title"]) == (KEY, "some words")
    assert "authorization" not in headers


async def test_value_of_a_header_that_is_refused_is_not_shown(bench: Bench) -> None:
    result = await bench.call(
        "batchsvc", "-u", "http://127.0.0.1:9/v1", "--header", f"k: {KEY}\u00e9"
    )
    assert result.code == 2
    assert KEY not in result.err


async def test_gpt4api_is_not_sent_the_key_of_openai(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    url = "http://127.0.0.1:9/standard/all-tools"
    result = await bench.call("batchsvc", "-i", "in.jsonl", "-u", url, env={"OPENAI_API_KEY": KEY})
    assert result.code == 2
    assert "no token" in result.err


# check


async def test_check_tells_pictures_that_are_not_taken_and_reads_no_store(bench: Bench) -> None:
    (bench.folder / "a.png").write_bytes(PNG)
    (bench.folder / "b.png").write_bytes(b"BM" + bytes(20))
    (bench.folder / "big.png").write_bytes(PNG)
    os.truncate(bench.folder / "big.png", (50 << 20) + 1)
    bench.write(
        {"id": 1, "asks": [{"content": "x", "images": ["a.png", "https://h/x.png"]}]},
        {"id": 2, "asks": [{"content": "x", "images": ["b.png"]}]},
        {"id": 3, "asks": [{"content": "x", "images": ["big.png"]}]},
        {"id": 4, "asks": [{"content": "x"}], "system": "s", "params": {"n": 1}},
    )
    settings = bench.settings("", url="http://127.0.0.1:9/v1", model="m", token="")
    report = await check(settings)
    assert report.exit_code == 1
    fails = [item.message for item in report.findings if item.level == "fails"]
    assert len(fails) == 2
    assert "b.png is BMP, and services take PNG, JPEG, GIF and WebP" in fails[0]
    assert "more than the 50 MiB" in fails[1]
    assert [item.message for item in report.findings if item.level == "note"] == []
    assert report.plan is not None
    assert (report.plan.chats, report.plan.uploads, report.plan.to_fail) == (2, 0, 2)


async def test_check_notes_flags_that_do_nothing_and_requests_that_are_large(bench: Bench) -> None:
    for name in ("a.png", "b.png"):
        (bench.folder / name).write_bytes(PNG)
        os.truncate(bench.folder / name, 20 << 20)
    asks = [{"content": "x", "images": [name]} for name in ("a.png", "b.png")]
    bench.write({"id": 1, "asks": asks})
    url, upload = "http://127.0.0.1:9/v1", "http://127.0.0.1:9/up"
    settings = bench.settings("", url=url, upload_url=upload, model="m", token="")
    report = await check(settings)
    notes = "\n".join(item.message for item in report.findings if item.level == "note")
    assert notes.count("\n") == 1
    assert "-l is not used" in notes
    assert "in.jsonl:1: its attachments take 53 MiB inside one request" in notes


async def test_run_refuses_what_check_refuses_of_lines(bench: Bench) -> None:
    bench.write(bench.line(1, "a", gizmo_id="g"), bench.line(2, "b", params=[]))
    settings = bench.settings("", url="http://127.0.0.1:9/v1", model="m", token="")
    report = await check(settings)
    refused = [item.message for item in report.findings if item.level == "refused"]
    with pytest.raises(UsageError) as error, anyio.fail_after(30):
        await run(bench, "http://127.0.0.1:9")
    for words in ("in.jsonl:1: gizmo_id belongs to --api gpt4api", "in.jsonl:2: params must be"):
        assert words in str(error.value)
        assert any(words in message for message in refused)


async def test_rehearsal_needs_neither_address_nor_key(bench: Bench) -> None:
    bench.write(bench.line(1, "a", "b"))
    for command in ("check", "batchsvc"):
        words = [command, "--mock", "--api", "openai", "-m", "m", "-i", "in.jsonl", "-q", "0"]
        assert (await bench.call(*words)).code == 0
    assert [len(record["answers"]) for record in bench.read()] == [2]


# What a service refuses is told with the flag


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (404, "The model `m` does not exist", "(-m, or the line's model, names the model)"),
        (400, "This model only support stream mode", "(set --stream)"),
        (413, "", "(the body holds the line's system, asks, images and files"),
    ],
)
async def test_refused_line_names_the_flag(
    bench: Bench, status: int, message: str, words: str
) -> None:
    bench.write(bench.line(1, "a"))
    async with completions(a=saying(status, {"error": {"message": message}})) as service:
        await run(bench, service.origin)
    error = bench.read()[0]["iErr"]
    assert error["code"] == status
    assert words in error["message"]
