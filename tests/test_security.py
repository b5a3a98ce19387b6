"""The threats of docs/security.md, each tried."""

from __future__ import annotations

import os
import pty
import re
import shutil
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from conftest import COMMAND
from puppets import ask, read, reply_of, saying, serving, settings, write

import gpt4batch
from gpt4batch.errors import DownloadError
from gpt4batch.lines import rawjson
from gpt4batch.service.private_addresses import is_private
from gpt4batch.service.transport import AiohttpTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from aiohttp.web_request import BaseRequest
    from conftest import Bench

SECRET = "sk-secret-token-of-the-test"
PASSWORD = "secret-password-of-the-test"


# -- no secret in anything that is left behind -------------------------------------------------


async def echoing(request: BaseRequest) -> web.StreamResponse:
    """Refuse in every way that services know, with all that was sent in the words."""
    body = (await request.read()).decode(errors="replace")
    secrets = f"{request.headers.get('Authorization')} {PASSWORD if 'password' in body else ''}"
    if request.path == "/console/access_token":
        return web.json_response({"error": body}, status=403)
    number = next((int(word) for word in body.split('"') if word.isdigit()), 400)
    if number == 200:
        return web.json_response({"error": f"nothing {secrets}", "contents": None})
    if number == 201:
        return web.json_response(reply_of(contents=[{"error": secrets}]))
    if number == 202:
        return web.json_response([secrets])
    if number == 203:
        return web.Response(text=f"<html>{secrets}", headers={"Retry-After": "0"})
    headers = {"Location": f"/{SECRET}", "Retry-After": "0"}
    return web.json_response({"error": secrets}, status=number, headers=headers)


STATUSES = (200, 201, 202, 203, 307, 400, 404, 422, 500, 503, 429, 401)


def left_behind(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("form", "way"), [("text", "environment"), ("json", "file"), ("text", "stored")]
)
async def test_a_failing_run_leaves_no_secret_anywhere(bench: Bench, form: str, way: str) -> None:
    write(bench.folder / "in.jsonl", *[ask(str(number), id=number) for number in STATUSES])
    secrets = bench.folder.parent / f"{bench.folder.name}-secrets"
    secrets.mkdir()
    (secrets / "token").write_text(SECRET)
    stored = rawjson.dumps({"access_token": SECRET, "expired_at": 4000000000, "username": "u"})
    (secrets / ".gpt4api-sk.pub").write_bytes(stored)
    env = {"HOME": str(secrets), "GPT4BATCH_EMAIL": "e@example.test"}
    env |= {"GPT4BATCH_PASSWORD": PASSWORD}
    env |= {"GPT4BATCH_TOKEN": SECRET} if way == "environment" else {}
    words = ["--token-file", str(secrets / "token")] if way == "file" else []
    async with serving(echoing) as origin:
        env["GPT4BATCH_TOKEN_URL"] = f"{origin}/console/access_token"
        words = ["batchsvc", "-i", "in.jsonl", "-u", f"{origin}/standard/all-tools", *words]
        done = await bench.call(
            *words,
            "-q=0",
            "-g=1",
            "--retries=1",
            "--log-level=debug",
            f"--log-format={form}",
            "--summary=summary.json",
            "--max-consecutive-failures=0",
            env=env,
        )
        logged = await bench.call(
            *words,
            "-f",
            "-q=0",
            "-g=1",
            "--retries=0",
            "--log-level=debug",
            f"--log-format={form}",
            "--log-file=run.log",
            env=env,
        )
    assert done.code == logged.code == 3
    found = left_behind(bench.folder)
    found |= {"out": done.out.encode(), "err": done.err.encode(), "again": logged.err.encode()}
    assert len(found) > 5
    for name, text in found.items():
        assert SECRET.encode() not in text, name
        assert PASSWORD.encode() not in text, name


async def test_a_password_in_a_proxy_is_not_shown(bench: Bench) -> None:
    write(bench.folder / "in.jsonl", ask())

    async def refuse(request: BaseRequest) -> web.StreamResponse:
        return web.Response(status=407, text="no")

    async with serving(refuse) as proxy:
        address = proxy.replace("//", f"//user:{PASSWORD}@")
        for scheme in ("http", "https"):
            done = await bench.call(
                "batchsvc",
                "-i=in.jsonl",
                f"-u={scheme}://service.test/standard/all-tools",
                f"--proxy={address}",
                "--retries=0",
                "--log-level=debug",
                f"--token={SECRET}",
            )
            assert done.code == 1
            assert PASSWORD not in done.err
    assert PASSWORD.encode() not in (bench.folder / "out.jsonl").read_bytes()


async def test_the_process_shows_no_token_and_dumps_no_core(bench: Bench) -> None:
    write(bench.folder / "in.jsonl", ask())
    arrived = anyio.Event()

    async def hang(request: BaseRequest) -> web.StreamResponse:
        await request.read()
        arrived.set()
        await anyio.sleep(30)
        return web.Response()

    async with serving(hang) as origin:
        url = f"-u={origin}/standard/all-tools"
        env = {"GPT4BATCH_TOKEN": SECRET}
        async with bench.start("batchsvc", "-i=in.jsonl", url, env=env) as running:
            await arrived.wait()
            folder = Path(f"/proc/{running.process.pid}")
            assert SECRET.encode() not in (folder / "cmdline").read_bytes()
            limits = (folder / "limits").read_text().splitlines()
            core = next(line for line in limits if line.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"]


async def test_credentials_that_others_can_read_are_closed_with_a_warning(bench: Bench) -> None:
    path = Path(os.environ["HOME"]) / ".gpt4api-sk.pub"
    path.write_bytes(rawjson.dumps({"access_token": SECRET}))
    path.chmod(0o644)
    write(bench.folder / "in.jsonl", ask())
    async with serving(saying()) as origin:
        done = await bench.call("batchsvc", "-i=in.jsonl", f"-u={origin}/standard/all-tools")
    assert done.code == 0
    assert "could be read by others (mode 644): changed to 600" in done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# -- the token goes to the service only --------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("what", ["all-tools", "uploaded"])
async def test_a_redirect_never_takes_the_token_along(
    tmp_path: Path, status: int, what: str
) -> None:
    (tmp_path / "file.txt").write_text("text")
    write(tmp_path / "in.jsonl", ask(files=["file.txt"]) if what == "uploaded" else ask())
    stolen: list[Any] = []

    async def thief(request: BaseRequest) -> web.StreamResponse:
        stolen.append(request.headers)
        return web.json_response(reply_of())

    async with serving(thief) as elsewhere:

        async def redirecting(request: BaseRequest) -> web.StreamResponse:
            await request.read()
            return web.Response(status=status, headers={"Location": f"{elsewhere}/{what}"})

        async with serving(redirecting) as origin:
            summary = await gpt4batch.run(settings(tmp_path, origin))
    assert summary.failed == 1
    assert not stolen


async def test_downloads_carry_no_token_even_from_the_service_itself(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    seen: list[Any] = []

    async def answer(request: BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            link = f"http://{request.headers['Host']}/first"
            return web.json_response(reply_of(downloads=[link]))
        seen.append(request.headers)
        if request.path == "/first":
            return web.Response(status=302, headers={"Location": "/second"})
        return web.Response(body=b"content")

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
    assert summary.done == 1
    assert len(seen) == 2
    assert not [headers for headers in seen if "Authorization" in headers or "Cookie" in headers]


# -- downloads stay out of the user's own network ----------------------------------------------

INSIDE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_private(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_an_address_outside_is_public(address: str) -> None:
    assert not is_private(address)


HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "0",
    "localhost",
    "LOCALHOST",
    "127.0.0.1.",
    "localhost.",
]


class Names(AbstractResolver):
    """Look names up in a table; the n-th time gives the n-th address."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = 0,  # type: ignore[assignment]
    ) -> list[ResolveResult]:
        self.asked.append(host)
        found = self.table[host.partition(".")[0]]
        address = found.pop(0) if len(found) > 1 else found[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def get(transport: AiohttpTransport, url: str) -> httpx.Response:
    request = httpx.Request("GET", url, extensions={"public": True, "timeout": 5})
    return await transport.handle_async_request(request)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_link_to_a_neighbour_is_refused_in_every_form(tmp_path: Path, host: str) -> None:
    write(tmp_path / "in.jsonl", ask())
    fetched: list[str] = []

    async def neighbour(request: BaseRequest) -> web.StreamResponse:
        fetched.append(request.raw_path)
        return web.Response(body=b"secret")

    async with serving(neighbour) as inside:
        port = inside.rpartition(":")[2]

        async def answer(request: BaseRequest) -> web.StreamResponse:
            await request.read()
            return web.json_response(reply_of(downloads=[f"http://{host}:{port}/secret"]))

        async with serving(answer) as origin:
            # The service is reached by another name than its neighbour.
            given = settings(tmp_path, origin.replace("127.0.0.1", "127.0.0.2"))
            async with beside(origin) as service:
                given = settings(tmp_path, service)
                summary = await gpt4batch.run(given)
    assert summary.exit_code == 1
    assert not fetched
    (line,) = read(tmp_path / "out.jsonl")
    assert line["iErr"]["stage"] == "download"


@asynccontextmanager
async def beside(origin: str) -> AsyncIterator[str]:
    """Serve the same at another loopback address."""
    async with httpx.AsyncClient() as client:

        async def forward(request: BaseRequest) -> web.StreamResponse:
            reply = await client.post(f"{origin}{request.path}", content=await request.read())
            return web.Response(body=reply.content, status=reply.status_code)

        runner = web.ServerRunner(web.Server(forward, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.2", 0).start()
        try:
            yield f"http://127.0.0.2:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_a_redirect_to_a_neighbour_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    fetched: list[str] = []

    async def answer(request: BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            link = f"http://{request.headers['Host']}/file"
            return web.json_response(reply_of(downloads=[link]))
        fetched.append(request.path)
        port = request.headers["Host"].rpartition(":")[2]
        return web.Response(status=302, headers={"Location": f"http://127.0.0.3:{port}/inside"})

    async with serving(answer) as origin:
        refused = await gpt4batch.run(settings(tmp_path, origin))
        assert (refused.exit_code, fetched) == (1, ["/file"])
        allowed = settings(tmp_path, origin, fix=True, allow_private_downloads=True, retries=0)
        again = await gpt4batch.run(allowed)  # followed now, to where nobody listens
    assert again.chats == 0
    assert "--allow-private-downloads" not in read(tmp_path / "out.jsonl")[0]["iErr"]["message"]


async def test_a_name_that_leads_inside_is_refused_where_it_is_connected_to() -> None:
    names = Names(rebind=["1.1.1.1", "127.0.0.1"], inside=["127.0.0.1"])
    async with serving(saying()) as origin, AiohttpTransport(resolver=names) as transport:
        port = origin.rpartition(":")[2]
        with pytest.raises(DownloadError, match="inside this network"):
            await get(transport, f"http://inside.test:{port}/")
        names.table["rebind"].pop(0)  # what was public when somebody looked is inside by now
        with pytest.raises(DownloadError, match="inside this network"):
            await get(transport, f"http://rebind.test:{port}/")
    assert names.asked == ["inside.test", "rebind.test"]


async def test_behind_a_proxy_it_is_the_proxy_that_looks_names_up() -> None:
    names = Names()
    seen: list[str] = []

    async def proxy(request: BaseRequest) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(body=b"content")

    async with (
        serving(proxy) as origin,
        AiohttpTransport(proxy=origin, resolver=names) as transport,
    ):
        reply = await get(transport, "http://far.test/file")
        with pytest.raises(DownloadError):
            await get(transport, "http://127.0.0.1/file")
        with pytest.raises(DownloadError):
            await get(transport, "http://0x7f.1/file")
    assert reply.status_code == 200
    assert seen == ["http://far.test/file"]
    assert not names.asked


@pytest.mark.parametrize("told", [True, False])
async def test_a_download_larger_than_allowed_is_given_up(tmp_path: Path, told: bool) -> None:
    write(tmp_path / "in.jsonl", ask())
    sent = 0

    async def answer(request: BaseRequest) -> web.StreamResponse:
        nonlocal sent
        if request.method == "POST":
            link = f"http://{request.headers['Host']}/file"
            return web.json_response(reply_of(downloads=[link]))
        response = web.StreamResponse()
        if told:
            response.content_length = 1 << 30
        await response.prepare(request)
        while sent < 1 << 28:
            sent += 1 << 18
            await response.write(bytes(1 << 18))
        return response

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, max_download_size=1))
    assert summary.exit_code == 1
    assert "max-download-size" in read(tmp_path / "out.jsonl")[0]["iErr"]["message"]
    assert not list((tmp_path / "downloads").iterdir())
    assert sent < 1 << 26


# -- the terminal ------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2Jgone\u009b31m\u202etxt.exe\r"
TITLE = re.compile(rb"\x1b\]0;\d+% out\.jsonl\x07")
"""How the run itself sets the title of the terminal."""
RAW = [b"\x1b]0;owned", b"\x1b[2J", "\u009b".encode(), "\u202e".encode(), b"\x07"]


async def steering(request: BaseRequest) -> web.StreamResponse:
    body = rawjson.loads(await request.read())
    if "fine" in body["message"]:
        return web.json_response(reply_of(downloads=[f"javascript:{EVIL}"]))
    reason = {"error": {"message": EVIL}}
    return web.Response(status=422, body=rawjson.dumps(reason), content_type="application/json")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("terminal", [True, False])
async def test_nothing_steers_the_terminal(bench: Bench, form: str, terminal: bool) -> None:
    lines = [ask(EVIL, id=EVIL), ask("fine", id=f"2{EVIL}"), ask("x", files=[EVIL], id="3")]
    write(bench.folder / "in.jsonl", *lines)
    main, side = pty.openpty()
    async with serving(steering) as origin:
        done = await anyio.run_process(
            [*COMMAND, "batchsvc", "-i=in.jsonl", f"-u={origin}/standard/all-tools", "-q=0",
             "--token=t", "--log-level=debug", f"--log-format={form}", "--retries=0"],
            stderr=side if terminal else PIPE, check=False, cwd=bench.folder,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
    os.close(side)
    shown = done.stderr or drained(main)
    os.close(main)
    assert done.returncode == 1
    assert b"owned" in shown
    for raw in RAW:
        assert raw not in TITLE.sub(b"", shown)


def drained(descriptor: int) -> bytes:
    found = b""
    try:
        while piece := os.read(descriptor, 1 << 16):
            found += piece
    except OSError:  # the other end is closed
        pass
    return found


async def test_a_token_service_cannot_steer_the_terminal(bench: Bench) -> None:
    async def refuse(request: BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": EVIL + PASSWORD}, status=403)

    async with serving(refuse) as origin:
        words = ("authsvc", "-e=e@example.test", f"-u={origin}/")
        done = await bench.call(*words, env={"GPT4BATCH_PASSWORD": PASSWORD})
    assert done.code == 3
    assert "owned" in done.err
    assert PASSWORD not in done.err
    for raw in RAW:
        assert raw not in done.err.encode()


async def test_saved_answers_cannot_steer_the_terminal(bench: Bench) -> None:
    folder = bench.folder / "small"
    folder.mkdir()
    write(bench.folder / "in.jsonl", ask("fine"))

    async def answer(request: BaseRequest) -> web.StreamResponse:
        await request.read()
        shutil.rmtree(folder)
        return web.Response(body=rawjson.dumps(reply_of(text=EVIL)))

    async with serving(answer) as origin:
        done = await bench.call(
            "batchsvc", "-i=in.jsonl", "-o=small/out.jsonl", "-q=0", "--token=t",
            f"-d={bench.folder}", f"-u={origin}/standard/all-tools",
        )  # fmt: skip
    assert done.code == 4
    saved = next(line for line in done.err.splitlines() if line.startswith('{"asks"'))
    assert rawjson.loads(saved.encode())["answers"][0]["text"] == EVIL
    for raw in RAW:
        assert raw not in done.err.encode()
