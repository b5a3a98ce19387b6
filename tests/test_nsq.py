"""Publishing to a real nsqd: nothing lost, in order, whatever becomes of it."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
import trustme
from aiohttp import web
from puppets import saying, serving

from gpt4batch.batch.runner import NSQ_PATIENCE
from gpt4batch.errors import UsageError
from gpt4batch.nsq.link import WINDOW, Access, parse_address
from gpt4batch.nsq.publisher import Publisher, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aiohttp.web_request import BaseRequest
    from conftest import Bench

TOPIC = "answers"
DEADLINE = 20


def nsqd_binary() -> str:
    built = Path(__file__).parent.parent / ".tools" / "bin" / "nsqd"
    found = str(built) if built.exists() else shutil.which("nsqd")
    if found:
        return found
    reason = "no nsqd in .tools/bin or on the PATH: `make nsqd` builds it where Go is installed"
    if os.environ.get("GPT4BATCH_REQUIRE_NSQ") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nsqd:
    """One nsqd process with its folder; it keeps its ports and data over a restart."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.port, self.http_port = free_port(), free_port()
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "nsqd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    nsqd_binary(),
                    f"--data-path={self.folder}",
                    f"--tcp-address={self.address}",
                    f"--http-address=127.0.0.1:{self.http_port}",
                    # All by way of the disk: the order is kept.
                    "--mem-queue-size=0",
                    *self.flags,
                ],
                stderr=log,
            )

    async def up(self) -> None:
        self.start()
        with anyio.fail_after(DEADLINE):
            while not await anyio.to_thread.run_sync(self._answers):
                assert self.process is not None
                assert self.process.poll() is None, (self.folder / "nsqd.log").read_text()
                await anyio.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(DEADLINE)
            self.process = None

    def depth(self) -> int:
        url = f"http://127.0.0.1:{self.http_port}/stats?format=json&topic={TOPIC}"
        with urllib.request.urlopen(url, timeout=DEADLINE) as reply:
            topics = orjson.loads(reply.read())["topics"]
        return int(topics[0]["message_count"]) if topics else 0

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE):
                return True
        except OSError:
            return False


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Callable[..., Nsqd]]:
    """Return a function that makes an nsqd; all of them end with the test."""
    made: list[Nsqd] = []

    def make(*flags: str) -> Nsqd:
        made.append(Nsqd(tmp_path / f"nsqd-{len(made)}", *flags))
        return made[-1]

    nsqd_binary()
    yield make
    for nsqd in made:
        nsqd.stop(signal.SIGKILL)


@pytest.fixture
async def nsqd(brokers: Callable[..., Nsqd]) -> Nsqd:
    made = brokers()
    await made.up()
    return made


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run as the command does, on uvloop; the killed run below is on asyncio's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.nsq-spool"


async def consume(address: str, count: int, **options: Any) -> list[bytes]:
    """Return `count` messages, and those that follow within a moment, by the official client."""
    import nsq

    found: list[bytes] = []

    def handler(received: Any) -> bool:
        found.append(received.body)
        return True

    reader = nsq.Reader(TOPIC, "test", handler, nsqd_tcp_addresses=[address], **options)
    with anyio.fail_after(DEADLINE):
        while len(found) < count:
            await anyio.sleep(0.01)
    await anyio.sleep(0.05)
    reader.close()
    return found


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.005)


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [message(f"ask {number}", b"{}", "") for number in range(start, start + count)]


def once(found: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(found))


async def test_message_carries_ask_reply_and_folder_verbatim() -> None:
    reply = '{"n": 1.0000000000000000000001, "text": "描述"}'.encode()
    body = message('a "b"\n', reply, "/down loads")
    assert reply in body
    assert orjson.loads(body) == {
        "ask": 'a "b"\n',
        "answer": orjson.loads(reply),
        "dir": "/down loads",
    }


async def test_message_of_an_ask_with_half_an_emoji_is_json() -> None:
    assert b'"\\ud83d"' in message("\ud83d", b"{}", "")


async def test_published_messages_arrive_in_order(nsqd: Nsqd, spool: Path) -> None:
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        for body in bodies(400):
            publisher.publish(body)
        assert await publisher.aclose(DEADLINE) == 0
    assert publisher.sent == 400
    assert await consume(nsqd.address, 400) == bodies(400)
    assert not spool.exists()


async def test_message_is_on_its_way_without_waiting_for_the_end(nsqd: Nsqd, spool: Path) -> None:
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        publisher.publish(b"1")
        await until(lambda: publisher.sent == 1)
        publisher.publish(b"2")
        await until(lambda: publisher.sent == 2)


async def test_no_nsqd_at_start_is_refused_with_what_to_do(
    tmp_path: Path, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        UsageError, match=f"{address} does not answer: Connection refused; start it"
    ):
        async with Publisher([address], TOPIC, spool):
            pass
    assert not list(tmp_path.glob("*spool*"))
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


async def test_something_else_at_the_address_is_refused(spool: Path) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:

        async def greet(stream: Any) -> None:
            async with stream:
                await stream.send(b"SSH-2.0-server\r\n")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, greet)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            with pytest.raises(UsageError, match="does not answer"):
                await Publisher([f"127.0.0.1:{port}"], TOPIC, spool).__aenter__()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":4150", "host:", "host:port", "host:70000"])
def test_bad_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="not host:port"):
        parse_address(address)


def test_addresses_are_taken_apart() -> None:
    assert parse_address("nsq.example:4150") == ("nsq.example", 4150)
    assert parse_address("[::1]:4150") == ("::1", 4150)


def test_bad_topic_is_refused(spool: Path) -> None:
    with pytest.raises(UsageError, match="nsq-topic"):
        Publisher(["127.0.0.1:4150"], "two words", spool)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_nsqd_restarted_in_the_middle_loses_nothing(
    brokers: Callable[..., Nsqd], spool: Path, how: signal.Signals
) -> None:
    nsqd = brokers("--sync-every=1")  # else kill -9 takes messages that it has said OK to
    await nsqd.up()
    told: list[str] = []
    wanted = bodies(800)
    async with Publisher([nsqd.address], TOPIC, spool, on_state=told.append) as publisher:
        for body in wanted[:500]:
            publisher.publish(body)
        await until(lambda: publisher.sent >= 100)
        nsqd.stop(how)
        for body in wanted[500:]:
            publisher.publish(body)
        await until(lambda: bool(told))
        assert publisher.left >= 300
        await nsqd.up()
        assert await publisher.aclose(DEADLINE) == 0
    found = await consume(nsqd.address, 800)
    assert once(found) == wanted
    assert len(found) - 800 <= WINDOW
    assert "is lost" in told[0]
    assert "is back" in told[-1]


async def test_nsqd_gone_for_good_leaves_the_rest_for_the_next_run(nsqd: Nsqd, spool: Path) -> None:
    told: list[str] = []
    async with Publisher([nsqd.address], TOPIC, spool, on_state=told.append) as publisher:
        nsqd.stop()
        for body in bodies(100):
            publisher.publish(body)
        assert await publisher.aclose(0.1) == 100
    await nsqd.up()
    async with Publisher([nsqd.address], TOPIC, spool, on_state=told.append) as publisher:
        for body in bodies(50, 100):
            publisher.publish(body)
        assert await publisher.aclose(DEADLINE) == 0
    assert f"100 messages of an earlier run in {spool} go first" in told
    assert await consume(nsqd.address, 150) == bodies(150)
    assert not spool.exists()


async def test_messages_of_a_killed_run_are_sent_by_the_next(nsqd: Nsqd, spool: Path) -> None:
    code = """
import os, signal, sys, anyio
from pathlib import Path
from gpt4batch.nsq.publisher import Publisher, message

async def main():
    async with Publisher([sys.argv[1]], "answers", Path(sys.argv[2])) as publisher:
        os.kill(int(sys.argv[3]), signal.SIGKILL)
        for number in range(200):
            publisher.publish(message(f"ask {number}", b"{}", ""))
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""
    assert nsqd.process is not None
    words = [sys.executable, "-c", code, nsqd.address, str(spool), str(nsqd.process.pid)]
    died = await anyio.run_process(words, check=False)
    assert died.returncode == -signal.SIGKILL
    nsqd.stop()
    await nsqd.up()
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        assert publisher.left == 200
        assert await publisher.aclose(DEADLINE) == 0
    assert await consume(nsqd.address, 200) == bodies(200)


async def test_lost_nsqd_is_replaced_by_another(brokers: Callable[..., Nsqd], spool: Path) -> None:
    first, second = brokers(), brokers()
    await first.up()
    await second.up()
    async with Publisher([first.address, second.address], TOPIC, spool) as publisher:
        for body in bodies(10):
            publisher.publish(body)
        await until(lambda: publisher.sent == 10)
        first.stop()
        for body in bodies(10, 10):
            publisher.publish(body)
        assert await publisher.aclose(DEADLINE) == 0
    assert await consume(second.address, 10) == bodies(10, 10)


async def test_first_address_down_at_start_takes_the_next(nsqd: Nsqd, spool: Path) -> None:
    down = f"127.0.0.1:{free_port()}"
    async with Publisher([down, nsqd.address], TOPIC, spool) as publisher:
        publisher.publish(b"1")
    assert await consume(nsqd.address, 1) == [b"1"]


async def test_message_over_the_limit_is_compressed(
    brokers: Callable[..., Nsqd], spool: Path
) -> None:
    nsqd = brokers("--max-msg-size=5000")
    await nsqd.up()
    large = message("large", b'"' + b"x" * 20_000 + b'"', "")
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        for body in (b"1", large, b"2"):
            publisher.publish(body)
    found = await consume(nsqd.address, 3)
    assert found[0::2] == [b"1", b"2"]
    assert found[1][:2] == b"\x1f\x8b"
    assert gzip.decompress(found[1]) == large


async def test_message_too_big_though_compressed_is_kept_and_sent_when_nsqd_takes_it(
    brokers: Callable[..., Nsqd], spool: Path
) -> None:
    nsqd = brokers("--max-msg-size=5000")
    await nsqd.up()
    told: list[str] = []
    large = os.urandom(10_000)
    async with Publisher([nsqd.address], TOPIC, spool, on_state=told.append) as publisher:
        for body in (b"1", large, b"2", large):
            publisher.publish(body)
        assert await publisher.aclose(1) == 2
    assert await consume(nsqd.address, 2) == [b"1", b"2"]
    assert (publisher.left, publisher.waiting.too_big) == (2, 2)
    assert "10000 bytes" in told[0]
    assert "5000" in told[0]
    nsqd.stop()
    nsqd.flags = ()
    await nsqd.up()
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        assert await publisher.aclose(DEADLINE) == 0
    assert await consume(nsqd.address, 2) == [large, large]


async def test_nsqd_that_cannot_store_gets_the_messages_when_it_can(
    nsqd: Nsqd, spool: Path
) -> None:
    """Its folder is gone: the disk is as good as full."""
    told: list[str] = []
    async with Publisher([nsqd.address], TOPIC, spool, on_state=told.append) as publisher:
        away = nsqd.folder.with_name("away")
        nsqd.folder.rename(away)
        for body in bodies(10):
            publisher.publish(body)
        await until(lambda: bool(told))
        assert "E_PUB_FAILED" in told[0]
        away.rename(nsqd.folder)
        assert await publisher.aclose(DEADLINE) == 0
    assert len(told) == 2
    assert "is back" in told[1]
    assert once(await consume(nsqd.address, 10)) == bodies(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_the_wait_for_nsqd_and_nothing_else(
    nsqd: Nsqd, bench: Bench, number: signal.Signals
) -> None:
    bench.write(bench.line(1, "one"))
    assert nsqd.process is not None
    stopped = nsqd.process

    async def answer(request: BaseRequest) -> web.StreamResponse:
        stopped.send_signal(signal.SIGSTOP)
        os.waitpid(stopped.pid, os.WUNTRACED)  # from here on nsqd takes nothing
        return await saying()(request)

    def is_ordered() -> bool:
        out = bench.folder / "out.jsonl"
        return out.exists() and out.read_bytes().startswith(b"{")

    async with serving(answer) as origin:
        words = bench.batchsvc(origin, "-n", "--nsqd-tcp-address", nsqd.address)
        async with bench.start(*words) as running:
            await until(is_ordered)
            running.process.send_signal(number)
            with anyio.fail_after(NSQ_PATIENCE - 1):
                result = await running.end()
    assert result.code == 0, result.err
    assert "stopping at once" in result.err
    assert "1 of 1 lines done" in result.err
    assert "1 wait in" in result.err


async def test_full_spool_drops_counts_and_says_so_once(nsqd: Nsqd, tmp_path: Path) -> None:
    told: list[str] = []
    spool = tmp_path / "spool"
    async with Publisher(
        [nsqd.address], TOPIC, spool, on_state=told.append, room=1000
    ) as publisher:
        nsqd.stop()
        for _ in range(20):
            publisher.publish(b"x" * 100)
        assert (await publisher.aclose(0), publisher.dropped) == (9, 11)
    assert len([text for text in told if "no room" in text]) == 1


@contextmanager
def certificates(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the authority's file, and the flags for an nsqd of that name."""
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    flags = [f"--tls-cert={folder}/cert.pem", f"--tls-key={folder}/key.pem", "--tls-required"]
    yield str(folder / "ca.pem"), flags


async def test_tls_with_our_authority_publishes_and_comes_back(
    brokers: Callable[..., Nsqd], spool: Path, tmp_path: Path
) -> None:
    with certificates(tmp_path / "tls", "127.0.0.1") as (ca, flags):
        nsqd = brokers(*flags)
        await nsqd.up()
        access = Access(tls=True, ca_file=ca)
        async with Publisher([nsqd.address], TOPIC, spool, access=access) as publisher:
            for body in bodies(10):
                publisher.publish(body)
            await until(lambda: publisher.sent == 10)
            nsqd.stop()
            for body in bodies(10, 10):
                publisher.publish(body)
            await nsqd.up()
            assert await publisher.aclose(DEADLINE) == 0
        options = {"tls_v1": True, "tls_options": {"ssl_version": 16, "ca_certs": ca}}
        assert once(await consume(nsqd.address, 20, **options)) == bodies(20)


async def test_authority_is_taken_from_the_environment(
    brokers: Callable[..., Nsqd], spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certificates(tmp_path / "tls", "localhost") as (ca, flags):
        nsqd = brokers(*flags)
        await nsqd.up()
        monkeypatch.setenv("SSL_CERT_FILE", ca)
        address = f"localhost:{nsqd.port}"
        async with Publisher([address], TOPIC, spool, access=Access(tls=True)) as publisher:
            publisher.publish(b"1")
            assert await publisher.aclose(DEADLINE) == 0


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [("127.0.0.1", False, "certificate verify failed"), ("other.example", True, "not valid for")],
)
async def test_certificate_that_does_not_hold_is_refused(
    brokers: Callable[..., Nsqd], tmp_path: Path, name: str, trusted: bool, reason: str
) -> None:
    with certificates(tmp_path / "tls", name) as (ca, flags):
        nsqd = brokers(*flags)
        await nsqd.up()
        access = Access(tls=True, ca_file=ca if trusted else "")
        with pytest.raises(UsageError, match=reason):
            await Publisher([nsqd.address], TOPIC, tmp_path / "s", access=access).__aenter__()


async def test_nsqd_without_tls_is_refused_when_tls_is_wanted(nsqd: Nsqd, spool: Path) -> None:
    with pytest.raises(UsageError, match="offers no TLS"):
        await Publisher([nsqd.address], TOPIC, spool, access=Access(tls=True)).__aenter__()


async def test_nsqd_that_requires_tls_is_refused_without(
    brokers: Callable[..., Nsqd], spool: Path, tmp_path: Path
) -> None:
    with certificates(tmp_path / "tls", "127.0.0.1") as (_, flags):
        nsqd = brokers(*flags)
        await nsqd.up()
        with pytest.raises(UsageError, match="TLS required"):
            await Publisher([nsqd.address], TOPIC, spool).__aenter__()


@asynccontextmanager
async def auth_server() -> AsyncIterator[int]:
    """Run a server that lets the secret `sesame` use the topic `answers`."""

    async def handle(request: web.Request) -> web.Response:
        if request.query["secret"] != "sesame":
            return web.Response(status=403)
        right = {"permissions": ["publish", "subscribe"], "topic": TOPIC, "channels": [".*"]}
        document = {"ttl": 3600, "identity": "us", "identity_url": "", "authorizations": [right]}
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    app = web.Application()
    app.router.add_get("/auth", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("secret", "topic", "reason"),
    [
        ("sesame", TOPIC, None),
        ("", TOPIC, "wants a secret"),
        ("wrong", TOPIC, "E_AUTH_FAILED"),
        ("sesame", "other", "E_UNAUTHORIZED"),
    ],
)
async def test_secret_decides_before_the_run_starts(
    brokers: Callable[..., Nsqd], spool: Path, secret: str, topic: str, reason: str | None
) -> None:
    async with auth_server() as port:
        nsqd = brokers(f"--auth-http-address=127.0.0.1:{port}")
        await nsqd.up()
        publisher = Publisher([nsqd.address], topic, spool, access=Access(auth_secret=secret))
        if reason is None:
            async with publisher:
                publisher.publish(b"1")
            assert publisher.sent == 1
        else:
            with pytest.raises(UsageError, match=reason) as refused:
                await publisher.__aenter__()
            assert "sesame" not in str(refused.value)
            assert "wrong" not in str(refused.value)


async def test_missing_library_is_named(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nsq", None)
    with pytest.raises(UsageError, match=r"pip install 'gpt4batch\[nsq\]'"):
        Publisher(["127.0.0.1:4150"], TOPIC, spool)


async def test_closed_publisher_leaves_no_connection_after_a_restart_either(
    nsqd: Nsqd, spool: Path
) -> None:
    async with Publisher([nsqd.address], TOPIC, spool) as publisher:
        publisher.publish(b"1")
        await until(lambda: publisher.sent == 1)
        nsqd.stop()
        publisher.publish(b"2")
        await nsqd.up()
        assert await publisher.aclose(DEADLINE) == 0
    url = f"http://127.0.0.1:{nsqd.http_port}/stats?format=json"
    with anyio.fail_after(DEADLINE):
        while True:
            reply = await anyio.to_thread.run_sync(urllib.request.urlopen, url)
            with reply:
                if not orjson.loads(reply.read())["producers"]:
                    break
            await anyio.sleep(0.02)
