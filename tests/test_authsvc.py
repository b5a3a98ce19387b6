from __future__ import annotations

import os
import pty
import stat
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from conftest import COMMAND

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from conftest import Bench, Result

    from gpt4batch.mock.server import MockService

    Until = Callable[[Callable[[], Any]], Awaitable[None]]
    Scripting = Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Any]

EMAIL, PASSWORD = "mock@example.com", "mock-password"


def store(bench: Bench) -> Path:
    return bench.folder / "user" / ".gpt4api-sk.pub"


def words(origin: str, *more: str) -> list[str]:
    return ["authsvc", "-e", EMAIL, "-u", f"{origin}/console/access_token", *more]


def check_stored(bench: Bench, result: Result, service: MockService) -> None:
    assert result.code == 0, result.err
    stored = rawjson.loads(store(bench).read_bytes())
    assert list(stored) == ["access_token", "expired_at", "username"]
    assert stored["access_token"].startswith("mock-")
    assert stored["username"] == EMAIL
    assert stat.S_IMODE(store(bench).stat().st_mode) == 0o600
    assert [path.name for path in (bench.folder / "user").iterdir()] == [".gpt4api-sk.pub"]
    for text in (result.out, result.err):
        assert stored["access_token"] not in text
        assert PASSWORD not in text
    assert str(store(bench)) in result.out
    assert service.stats.tokens_issued == 1


async def test_token_is_fetched_with_the_password_of_the_flag(
    bench: Bench, service: MockService
) -> None:
    check_stored(bench, await bench.call(*words(service.origin, "-p", PASSWORD)), service)


async def test_password_comes_from_a_pipe(bench: Bench, service: MockService) -> None:
    result = await bench.call(*words(service.origin), stdin=PASSWORD.encode() + b"\n")
    check_stored(bench, result, service)


async def test_password_comes_from_the_environment(bench: Bench, service: MockService) -> None:
    result = await bench.call(*words(service.origin), env={"GPT4BATCH_PASSWORD": PASSWORD})
    check_stored(bench, result, service)


async def test_password_is_asked_for_unseen(
    bench: Bench, service: MockService, until: Until
) -> None:
    code, shown = await typed(until, words(service.origin), PASSWORD.encode())
    assert code == 0, shown
    assert b"Password:" in shown
    assert PASSWORD.encode() not in shown
    assert store(bench).exists()


async def test_typed_bytes_that_are_no_text_are_refused_in_one_line(
    service: MockService, until: Until
) -> None:
    code, shown = await typed(until, words(service.origin), b"caf\xe9-secret")
    assert code == 2
    assert b"gpt4batch: the password is not UTF-8 text" in shown
    assert b"Traceback" not in shown
    assert b"secret" not in shown
    assert service.stats.arrivals == 0


@pytest.mark.parametrize("way", ["pipe", "pipe in C", "variable", "email"])
async def test_bytes_that_are_no_text_are_refused_in_one_line(
    bench: Bench, service: MockService, way: str
) -> None:
    bad = b"caf\xe9-secret"
    env = {"LANG": "C", "LC_ALL": "C"} if way == "pipe in C" else {}
    if way == "variable":
        env["GPT4BATCH_PASSWORD"] = os.fsdecode(bad)
    given = words(service.origin, *(["-p", "x", "-e", os.fsdecode(bad)] if way == "email" else []))
    result = await bench.call(*given, env=env, stdin=bad if way.startswith("pipe") else b"")
    check_refused(result, "is not UTF-8 text")
    assert "secret" not in result.err
    assert service.stats.arrivals == 0


@pytest.mark.parametrize("content", [None, b"no certificates"])
async def test_certificates_that_cannot_be_read_are_said_before_the_password_is_asked_for(
    bench: Bench, content: bytes | None
) -> None:
    if content:
        (bench.folder / "ca.pem").write_bytes(content)
    given = words("https://127.0.0.1:9")
    result = await bench.call(*given, env={"SSL_CERT_FILE": str(bench.folder / "ca.pem")})
    check_refused(result, f"cannot read the certificates in {bench.folder / 'ca.pem'}")
    assert result.code == 2


def terminal_output(main: int) -> bytes:
    """Return what was written to a terminal whose other end is closed."""
    shown = b""
    with suppress(OSError):  # that is its end
        while chunk := os.read(main, 1000):
            shown += chunk
    return shown


async def typed(until: Until, words: list[str], text: bytes) -> tuple[int, bytes]:
    """Type a password when it is asked for; return the exit code and what the terminal shows."""
    main, side = pty.openpty()
    try:
        process = await anyio.open_process(
            [*COMMAND, *words], stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)
        try:
            # What is typed before the echo is off is thrown away.
            await until(lambda: not termios.tcgetattr(main)[3] & termios.ECHO)
            os.write(main, text + b"\n")
            with anyio.fail_after(30):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
        return code, terminal_output(main)
    finally:
        os.close(main)


async def test_request_carries_email_password_and_time_to_live(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"access_token": "t-1", "expired_at": "2030-01-01T00:00:00Z"})

    async with scripted(handler) as server:
        for more in ((), ("-t", "60"), ("--ttl=60",)):
            result = await bench.call(*words(server.origin, "-p", PASSWORD, *more))
            assert result.code == 0, result.err
        assert server.bodies() == [
            {"email": EMAIL, "password": PASSWORD, "ttl": ttl} for ttl in (86400, 60, 60)
        ]
        assert {(method, path) for method, path, *_ in server.requests} == {
            ("POST", "/console/access_token")
        }


async def test_stored_token_is_used_by_a_batch(bench: Bench, service: MockService) -> None:
    await bench.call(*words(service.origin, "-p", PASSWORD))
    bench.write(bench.line(1, "one"))
    url = f"{service.origin}/standard/all-tools"
    result = await bench.call("batchsvc", "-i", "in.jsonl", "-u", url)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (401, "application/json", b'{"error":{"message":"wrong email"}}', "wrong email"),
        (403, "application/json", b"{}", "403"),
        (500, "application/json", b'{"message":"mock-password is bad"}', "***"),
        (200, "text/html", b"<html>Sign in</html>", "no JSON"),
        (502, "text/html", b"<html>Bad gateway</html>", "502"),
        (200, "application/json", b'{"expired_at":1}', "without a token"),
        (200, "application/json", b'{"access_token":""}', "without a token"),
        (200, "application/json", b"[]", "without a token"),
        (200, "application/json", b'{"access_token":12}', "without a token"),
        (302, "text/html", b"", "302"),
    ],
)
async def test_refusal_is_said_in_one_line_and_nothing_is_stored(
    bench: Bench, scripted: Scripting, status: int, kind: str, body: bytes, said: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=kind)

    store(bench).write_bytes(b"old")
    async with scripted(handler) as server:
        result = await bench.call(*words(server.origin, "-p", PASSWORD))
        assert server.origin in result.err
    check_refused(result, said)
    assert store(bench).read_bytes() == b"old"


def check_refused(result: Result, said: str) -> None:
    assert result.code in (2, 3)
    assert len(result.err.splitlines()) == 1, result.err
    assert said in result.err
    assert result.out == ""
    assert PASSWORD not in result.err


async def test_wrong_password_is_said_in_one_line(bench: Bench, service: MockService) -> None:
    result = await bench.call(*words(service.origin, "-p", "not-the-password"))
    check_refused(result, "wrong email or password")
    assert "not-the-password" not in result.err
    assert not store(bench).exists()


async def test_no_network_is_said_in_one_line(bench: Bench) -> None:
    check_refused(await bench.call(*words("http://127.0.0.1:9", "-p", PASSWORD)), "127.0.0.1:9")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["authsvc", "-p", "x"], "-e"),
        (["authsvc", "-e", EMAIL], "no password"),
        (["authsvc", "-e", EMAIL, "-p", "x", "-u", "nowhere"], "nowhere"),
        (["authsvc", "-e", EMAIL, "-p", "x", "-t=-5"], "--ttl"),
        (["authsvc", "-e", EMAIL, "-p", "x", "-t=0"], "ttl"),
    ],
)
async def test_what_is_missing_or_wrong_is_said_before_any_call(
    bench: Bench, more: list[str], said: str
) -> None:
    nowhere = {"GPT4BATCH_URL": "http://127.0.0.1:9"}
    result = await bench.call(*more, env=nowhere)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1, result.err


async def test_token_that_cannot_be_stored_is_said_in_one_line(
    bench: Bench, service: MockService
) -> None:
    store(bench).mkdir()
    result = await bench.call(*words(service.origin, "-p", PASSWORD))
    check_refused(result, str(store(bench)))
    assert [path.name for path in (bench.folder / "user").iterdir()] == [".gpt4api-sk.pub"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"access_token": "one\ntwo"}, "gave is not valid: it contains line breaks"),
        ({"access_token": "t-1", "expired_at": 1000}, "is this machine's clock right?"),
    ],
)
async def test_token_that_a_batch_would_refuse_is_not_stored(
    bench: Bench, scripted: Scripting, reply: dict[str, Any], said: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(reply)

    store(bench).write_bytes(b"old")
    async with scripted(handler) as server:
        result = await bench.call(*words(server.origin, "-p", PASSWORD))
    check_refused(result, said)
    assert result.code == 2
    assert store(bench).read_bytes() == b"old"


FAR = [
    ("9999-12-31T23:59:59Z", "Asia/Shanghai", ", good until 9999-12-31 23:59 UTC"),
    ("9999-12-31T23:59:59", "Etc/GMT+5", ", good until 9999-12-31 23:59 -05"),
    ("0001-01-01T00:00:00Z", "America/New_York", ""),
    ("0001-01-01T00:00:00", "Asia/Shanghai", ""),
    (253402300799, "UTC", ", good until 9999-12-31 23:59"),
    (253402300799000, "Asia/Shanghai", ", good until 9999-12-31 23:59 UTC"),
    (4102444800000, "UTC", ", good until 2100-01-01 00:00"),
]


@pytest.mark.parametrize(("moment", "zone", "shown"), FAR)
async def test_token_without_end_is_stored_and_used(
    bench: Bench, scripted: Scripting, moment: object, zone: str, shown: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"access_token": "t-1", "expired_at": moment})

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        result = await bench.call(*words(server.origin, "-p", PASSWORD), env={"TZ": zone})
    assert (result.code, result.out) == (0, f"token stored in {store(bench)}{shown}\n"), result.err
    url = "http://127.0.0.1:9/standard/all-tools"
    checked = await bench.call("check", "-i=in.jsonl", "-u", url, env={"TZ": zone})
    assert checked.code == 0, checked.out + checked.err


# What a batch makes of it


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "is not there"),
        (b"", "holds no token"),
        (b'{"username":"x"}', "holds no token"),
        (b'{"access_token":"t-secret","expired_at":1700000000}', "expired at 2023-11-14"),
        (b'{"access_token":"t-secret","expired_at":1700000000000}', "expired at 2023-11-14"),
        (b'{"access_token":"t-secret","expired_at":"2023-11-14T22:13:20Z"}', "expired at 2023-"),
        (b'{"access_token":"t-secret","expired_at":"2023-11-14 22:13:20"}', "expired at 2023-"),
        (b'{"access_token":"t-secret\\nX: y"}', "is not valid"),
    ],
)
async def test_token_that_cannot_be_used_is_refused_before_any_call(
    bench: Bench, service: MockService, stored: bytes | None, said: str
) -> None:
    if stored is not None:
        store(bench).write_bytes(stored)
        store(bench).chmod(0o600)
    bench.write(bench.line(1, "one"))
    url = f"{service.origin}/standard/all-tools"
    result = await bench.call("batchsvc", "-i", "in.jsonl", "-u", url)
    assert result.code == 2
    assert said in result.err
    assert "t-secret" not in result.err
    if b"\\n" not in (stored or b""):
        assert "gpt4batch authsvc -e" in result.err
    assert service.stats.arrivals == 0


WAYS = ["flag", "header", "environment", "file", "marked", "stored", "file of credentials"]


@pytest.mark.parametrize("way", WAYS)
async def test_token_comes_from_each_of_its_places(
    bench: Bench, service: MockService, way: str
) -> None:
    bench.write(bench.line(1, "one"))
    more: list[str] = []
    env = {}
    credentials = rawjson.dumps(
        {"access_token": service.token, "expired_at": int(time.time()) + 99}
    )
    if way == "flag":
        more = ["--token", service.token]
    elif way == "header":
        more = ["--token", f"Bearer {service.token}"]
    elif way == "environment":
        env = {"GPT4BATCH_TOKEN": service.token}
    elif way == "stored":
        store(bench).write_bytes(credentials)
    else:
        (bench.folder / "t").write_bytes(
            credentials if way == "file of credentials" else service.token.encode() + b"\n"
        )
        if way == "marked":  # as Notepad saves it
            (bench.folder / "t").write_text(f"{service.token}\r\n", "utf-8-sig")
        more = ["--token-file", "t"]
    url = f"{service.origin}/standard/all-tools"
    result = await bench.call("batchsvc", "-i", "in.jsonl", "-u", url, *more, env=env)
    assert result.code == 0, result.err
    assert service.token not in result.err


async def test_stored_token_that_others_can_read_is_made_private(
    bench: Bench, service: MockService
) -> None:
    store(bench).write_bytes(rawjson.dumps({"access_token": service.token}))
    store(bench).chmod(0o644)
    bench.write(bench.line(1, "one"))
    url = f"{service.origin}/standard/all-tools"
    result = await bench.call("batchsvc", "-i", "in.jsonl", "-u", url)
    assert result.code == 0
    assert stat.S_IMODE(store(bench).stat().st_mode) == 0o600
    assert "could be read by others" in result.err


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o600, False)])
async def test_token_file_that_others_can_read_is_told_of(
    bench: Bench, service: MockService, mode: int, told: bool
) -> None:
    path = bench.folder / "t"
    path.write_text(service.token)
    path.chmod(mode)
    bench.write(bench.line(1, "one"))
    url = f"{service.origin}/standard/all-tools"
    result = await bench.call("batchsvc", "-i=in.jsonl", "-u", url, "--token-file=t")
    assert result.code == 0
    assert ("t can be read by others (mode 644): chmod 600 t" in result.err) == told
    assert stat.S_IMODE(path.stat().st_mode) == mode
